"""A network as a function of d numbers: ``theta = theta_0 + P w`` (Eq. 5.3).

The network runs in eval mode: statistics of normalisation layers measured on the training data
would be part of what was learned, and would have to be sent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvature.capture import check_separable

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


class FlatNetwork:
    """A network with its parameters as one vector [D], frozen ones too.

    Args:
        model: The network, whose parameters are theta_0; it is put in eval mode.

    Attributes:
        start: theta_0 [D].
        film: Positions of the parameters of normalisation layers and of the head.

    Raises:
        ValueError: If it has no parameters, or its output for one sample depends on others.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        named = dict(model.named_parameters())
        if not named:
            raise ValueError("the network has no parameters; there is nothing to certify")
        check_separable(model)
        self._shapes = {name: p.shape for name, p in named.items()}
        self._sizes = [p.numel() for p in named.values()]
        self.start = torch.cat([p.detach().reshape(-1) for p in named.values()])
        self.film = self._positions(film_parameters(model))

    def __len__(self) -> int:
        """Return the number D of parameters in the vector."""
        return len(self.start)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs [N, K] at parameters theta [D]."""
        out: Tensor = functional_call(self.model, self.named(theta), (x,))
        return out

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The parameters [D] by name and in their shapes."""
        parts = zip(self._shapes.items(), theta.split(self._sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    @torch.no_grad()
    def put(self, theta: Tensor) -> None:
        """Give the network the parameters theta [D]."""
        own = dict(self.model.named_parameters())
        for name, values in self.named(theta).items():
            own[name].copy_(values)

    def _positions(self, names: set[str]) -> tuple[int, ...]:
        positions = torch.arange(len(self)).split(self._sizes)
        chosen = [at for name, at in zip(self._shapes, positions, strict=True) if name in names]
        return tuple(torch.cat(chosen).tolist()) if chosen else ()


def film_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of normalisation layers and of the head, the last linear layer."""
    heads = [name for name, module in model.named_modules() if isinstance(module, _CONVS)]
    chosen = {name for name, module in model.named_modules() if isinstance(module, _NORMS)}
    chosen |= set(heads[-1:])
    prefixes = {f"{name}." if name else "" for name in chosen}
    return {name for name, _ in model.named_parameters() if name[: name.rfind(".") + 1] in prefixes}
