"""PowerBlock: layers of power series with a residual connection (PowerNet, Sec. 4.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvature.checking import check_count, is_count, seeded
from symlearn.geometry import CONVS, Geometry
from symlearn.memory.paths import Place, check_memory
from symlearn.paths import Power
from symlearn.paths.base import normal_
from symlearn.relaxed import RelaxedLayer

_BATCH: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NORMS = ("batch", "layer", None)


class PowerBlock(nn.Module):
    """``y = body(x) + rho skip(x)``, a body of layers ``activation(norm(P x + b))``.

    P is a power series of base matrices with weights for each pair of channels
    (`symlearn.paths.Power`). Its layers are relaxed layers with the one path ``"power"``: networks
    of blocks can be fitted, reported and collapsed as wrapped ones. The skip is the identity, or a
    matrix over channels where their number changes.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels C' of all layers of the block.
        size: Spatial size of the maps; it stays the same.
        power: Base matrices and powers.
        layers: Layers in the block.
        rho: Strength of the residual connection; 0 for none.
        norm: Normalisation in each layer: "batch", "layer" (over channels and sites of a sample),
            or None.
        activation: Module that each layer has a copy of; ``nn.LeakyReLU(0.2)`` by default.
        seed: Seed of the initial weights.
        memory_limit_gib: Refuse blocks that need more for weights, curvature factors and powers.

    Attributes:
        body: The layers.
        skip: Module of the residual connection, None without one.

    Raises:
        ValueError: If the base matrices do not act on maps of the size, an option is unknown or out
            of range, or the block would not fit in memory.
        TypeError: For a power that is no `Power`, or an activation that is no module.

    Example:
        >>> import torch, symlearn
        >>> block = symlearn.PowerBlock(1, 8, (9, 9), symlearn.paths.Power("rotation"), rho=0.5)
        >>> tuple(block(torch.randn(4, 1, 9, 9)).shape)
        (4, 8, 9, 9)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, ...],
        power: Power | None = None,
        *,
        layers: int = 2,
        rho: float = 1.0,
        norm: str | None = "batch",
        activation: nn.Module | None = None,
        seed: int = 0,
        memory_limit_gib: float = 8.0,
    ) -> None:
        super().__init__()
        power = Power() if power is None else power
        activation = nn.LeakyReLU(0.2) if activation is None else activation
        _check(power, activation, norm, rho)
        size = _checked(size)
        counts = {"in_channels": in_channels, "out_channels": out_channels, "layers": layers}
        for name, count in counts.items():
            check_count(name, count)
        channels = [in_channels] + [out_channels] * (layers - 1)
        shapes = [_geometry(c, out_channels, size) for c in channels]
        power.check(shapes[0])
        itemsize = torch.empty(0).element_size()
        places = [Place(f"layer {i}", geo, itemsize) for i, geo in enumerate(shapes, start=1)]
        check_memory([(place, power) for place in places], memory_limit_gib)
        generator = seeded(seed)
        self.rho = float(rho)
        self.body: nn.Module = nn.Sequential()
        for i, geometry in enumerate(shapes, start=1):
            layer = RelaxedLayer(geometry, (power,))
            layer.reset_parameters(generator)
            self.body.add_module(f"power{i}", layer)
            if norm is not None:
                self.body.add_module(f"norm{i}", _norm(norm, geometry))
            self.body.add_module(f"activation{i}", copy.deepcopy(activation))
        self.skip = _skip(shapes[0], generator) if rho else None

    @classmethod
    def assemble(cls, body: nn.Module, skip: nn.Module | None, rho: float) -> PowerBlock:
        """A block of given modules, as one that was collapsed or read from a file."""
        block = cls.__new__(cls)
        nn.Module.__init__(block)
        block.body, block.skip, block.rho = body, skip, rho
        return block

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *size] to [N, C', *size]."""
        out: Tensor = self.body(x)
        return out if self.skip is None else out + self.rho * self.skip(x)

    def extra_repr(self) -> str:
        """Strength of the residual connection."""
        return f"rho={self.rho:g}"


def _check(power: object, activation: object, norm: str | None, rho: float) -> None:
    if not isinstance(power, Power):
        raise TypeError(f"power must be a symlearn.paths.Power, got {power!r}")
    if not isinstance(activation, nn.Module):
        raise TypeError(f"activation must be a module such as nn.ReLU(), got {activation!r}")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; choose one of {list(NORMS)}")
    if not isinstance(rho, int | float) or not 0 <= rho < math.inf:
        raise ValueError(f"rho must be finite and not negative, got {rho!r}")


def _checked(size: object) -> tuple[int, ...]:
    """The spatial size as a tuple."""
    axes = tuple(size) if isinstance(size, Sequence) else ()
    if not 1 <= len(axes) <= 3 or not all(is_count(n) for n in axes):
        raise ValueError(
            f"size is {size!r}; give the maps' size along each of one to three axes, such as (9, 9)"
        )
    return axes


def _geometry(c_in: int, c_out: int, size: tuple[int, ...]) -> Geometry:
    """A layer that keeps the size of its maps; its window is one site."""
    ones, zeros = (1,) * len(size), (0,) * len(size)
    return Geometry(c_in, c_out, size, size, ones, ones, zeros, ones)


def _norm(norm: str, geometry: Geometry) -> nn.Module:
    if norm == "layer":
        return nn.GroupNorm(1, geometry.out_channels)
    made: nn.Module = _BATCH[len(geometry.out_size)](geometry.out_channels)
    return made


def _skip(geometry: Geometry, generator: torch.Generator) -> nn.Module:
    """The identity, or a matrix over channels that keeps the scale of activations."""
    if geometry.in_channels == geometry.out_channels:
        return nn.Identity()
    make: Any = CONVS[len(geometry.in_size)]
    conv: nn.Module = nn.utils.skip_init(
        make, geometry.in_channels, geometry.out_channels, 1, bias=False
    )
    normal_(conv.get_parameter("weight"), geometry.in_channels**-0.5, generator)
    return conv
