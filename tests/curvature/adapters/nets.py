"""Small networks in float64 that the adapters must agree with the native engine on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import curvature
import symlearn

Data = tuple[Tensor, Tensor]
CLASSES = 3
SMALL = ("conv", "ffc", "sconv", "sfc")  # paths for networks whose dense curvature is small


class Deep(nn.Module):
    """``out[n, b] = W[b] in[n, b]`` with a weight of five axes, stored block last."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 1, 3, 1, 3))  # [O, 1, I, 1, B]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 9] to [N, 6]."""
        w = self.weight[:, 0, :, 0]
        return torch.einsum("oib,nbi->nbo", w, x.reshape(-1, 3, 3)).flatten(1)


@curvature.register_rule(Deep)
class DeepRule(curvature.Rule):
    """Three blocks, one position."""

    bias = None

    def inputs(self, module: Deep, x: Tensor) -> Tensor:
        return x.reshape(len(x), 1, 3, 3)

    def grads(self, module: Deep, g: Tensor) -> Tensor:
        return g.reshape(len(g), 1, 3, 2)

    def to_blocks(self, weight: Tensor) -> Tensor:
        return weight[:, 0, :, 0].permute(2, 0, 1)


class Tail(nn.Module):
    """A linear layer that no other library knows, stored transposed, in float64."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, I] to [N, O]."""
        return x @ self.weight


@curvature.register_rule(Tail)
class TailRule(curvature.Rule):
    """A matrix product over the last axis."""

    bias = None

    def to_blocks(self, weight: Tensor) -> Tensor:
        return weight.T.unsqueeze(0)


class Residual(nn.Module):
    """Branches, functional activations, and one convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + 0.5 * self.twice(self.twice(x).tanh())
        return self.head(x.mean((2, 3)))


def mlp() -> nn.Module:
    """Linear layers only."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, CLASSES, bias=False)
    )


def convolutions(**options: object) -> nn.Module:
    """Two convolutions and a head."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, **options),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, CLASSES),
    )


def deep() -> nn.Module:
    """A module of somebody else's with a rule."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 9), nn.Tanh(), Deep(), nn.Tanh(), nn.Linear(6, CLASSES)
    )


def transposed() -> nn.Module:
    """A weight that is stored transposed."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), Tail(4, CLASSES))


def normalised() -> nn.Module:
    """A pretrained-like network to relax: batch normalisation, a pool, and a stride."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, CLASSES),
    )


def _lively(model: nn.Module) -> nn.Module:
    """Let all paths contribute, and freeze what has no curvature."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return model


def relaxed(path: str, boundary: str = "keep") -> nn.Module:
    """A relaxed network with a strict path and another, all of them contributing."""
    paths = ("conv",) if path == "conv" else ("conv", path)
    example = torch.randn(2, 1, 6, 6)
    model = symlearn.wrap(normalised().eval(), example, paths=paths, boundary=boundary, seed=0)
    return _lively(model)


def grouped() -> nn.Module:
    """A relaxed network on features over a group; its group convolutions have five axes."""
    lifted = symlearn.lift(normalised().eval(), "p4")
    model = symlearn.wrap(lifted, torch.randn(2, 1, 6, 6), paths=("conv", "gconv"), seed=0)
    return _lively(model)


# name -> network for images [N, 1, 6, 6], with every trainable parameter covered
NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": mlp,
    "convolutions": convolutions,
    "circular": lambda: convolutions(padding_mode="circular"),
    "residual": Residual,
    "five axes": deep,
    "transposed": transposed,
    **{f"relaxed {name}": (lambda n=name: relaxed(n)) for name in SMALL},
    "relaxed over a group": grouped,
    "relaxed circular": lambda: relaxed("ffc", "circular"),
}


def make(name: str, likelihood: str = "categorical", n: int = 12) -> tuple[nn.Module, Data]:
    """A network in float64 and eval mode, and data for it."""
    torch.manual_seed(0)
    model = NETS[name]().double().eval()
    x = torch.randn(n, 1, 6, 6, dtype=torch.float64)
    if likelihood == "categorical":
        return model, (x, torch.randint(CLASSES, (n,)))
    return model, (x, torch.randn(n, CLASSES, dtype=torch.float64))
