"""Networks with data, small enough for slow oracles, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.blocklinear import BlockLinear

Data = tuple[Tensor, Tensor]


class MeanOver(nn.Module):
    """Mean over some axes."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims)


class Twice(nn.Module):
    """Calls one linear layer twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.inner(self.inner(x).tanh()))
        return out


class Factored(nn.Module):
    """Two block-linear maps with a transpose between them, as in the F-FC path."""

    def __init__(self, channels: int, out: int, sites: int) -> None:
        super().__init__()
        self.read = BlockLinear((out, channels, sites), order=(1, 0, 2))
        self.write = BlockLinear((out, channels, sites), order=(0, 2, 1))
        self.head = nn.Linear(out * sites, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.read(x).transpose(1, 2)
        out: Tensor = self.head(self.write(hidden).tanh().flatten(1))
        return out


@dataclass(frozen=True)
class Case:
    """A network and the data it is for.

    Attributes:
        name: Name in test identifiers.
        build: Makes the network.
        shape: Shape of one input.
        likelihood: Name of the likelihood.
        outputs: Network outputs K.
        n: Number of samples.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    likelihood: str = "categorical"
    outputs: int = 3
    n: int = 5

    def __str__(self) -> str:
        return self.name

    def make(
        self, n: int | None = None, dtype: torch.dtype = torch.float64
    ) -> tuple[nn.Module, Data]:
        """The network with all parameters random (no zeros), and n samples."""
        generator = torch.Generator().manual_seed(1)
        model = self.build().to(dtype)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
        n = self.n if n is None else n
        x = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64).to(dtype)
        if self.likelihood == "categorical":
            return model, (x, torch.randint(self.outputs, (n,), generator=generator))
        y = torch.randn(n, self.outputs, generator=generator, dtype=torch.float64).to(dtype)
        return model, (x, (y > 0).to(dtype) if self.likelihood == "bernoulli" else y)


def _cnn(mode: str = "zeros", **options: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode, **options),
        nn.Tanh(),
        nn.Conv2d(4, 2, 2, stride=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


CASES = (
    Case("linear-gaussian", lambda: nn.Linear(4, 3, bias=False), (4,), "gaussian"),
    Case("mlp", lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
    Case(
        "mlp-bernoulli",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        (3,),
        "bernoulli",
        outputs=2,
    ),
    Case(
        "shared-linear",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), MeanOver(1), nn.Linear(4, 3)),
        (6, 3),
    ),
    Case("cnn", _cnn, (2, 4, 5)),
    Case("cnn-circular", lambda: _cnn("circular"), (2, 4, 4)),
    Case("cnn-grouped", lambda: _cnn("reflect", groups=2), (2, 4, 4)),
    Case(
        "conv1d",
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3, dilation=2), nn.ReLU(inplace=True), MeanOver(2)),
        (2, 7),
        "gaussian",
    ),
    Case(
        "conv3d",
        lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        (1, 3, 3, 3),
        "gaussian",
        n=3,
    ),
    Case("factored", lambda: Factored(2, 3, 4), (2, 4)),
    Case("twice", Twice, (3,), outputs=2),
)


def case(name: str) -> Case:
    """The case of a name."""
    return next(c for c in CASES if c.name == name)
