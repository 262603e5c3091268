"""Convolution: the strictly shift-equivariant path (paper, Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec, he_std, normal_


class ConvPath(Path):
    """A convolution without bias, with the geometry of the layer it stands for.

    In a circular layer the input is padded circularly here and convolved unpadded, so that the
    curvature rule of the convolution sees the patches that are really used.
    """

    reads_aligned = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.conv = geometry.build_conv()
        pads = geometry.circular_pads() if geometry.circular else []
        self._pads = [p for pad in reversed(pads) for p in pad]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        if any(self._pads):
            x = F.pad(x, self._pads, mode="circular")
        out: Tensor = self.conv(x)
        return out

    def dense(self, x: Tensor) -> Tensor:
        """The circular convolution at stride one, [N, C', *in]: all sampling grids at once."""
        geo = replace(self.geometry, stride=(1,) * len(self.geometry.stride))
        before = [lo for lo, _ in self.geometry.circular_pads()]
        spans = [d * (k - 1) for k, d in zip(geo.kernel_size, geo.dilation, strict=True)]
        flat = [p for lo, s in zip(before[::-1], spans[::-1], strict=True) for p in (lo, s - lo)]
        conv = geo.build_conv().to(x)
        with torch.no_grad():
            conv.weight.copy_(self.conv.weight)
            out: Tensor = conv(F.pad(x, flat, mode="circular"))
        return out

    def reset_parameters(self, generator: torch.Generator) -> None:
        """He initialisation over the window and the channels of a group."""
        geo = self.geometry
        normal_(self.conv.weight, he_std(geo.in_channels / geo.groups * geo.window), generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All filters zero."""
        nn.init.zeros_(self.conv.weight)

    def tested(self) -> nn.Parameter:
        """The filters [C', C/g, *kernel]."""
        return self.conv.weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Filters at zero."""
        nn.init.zeros_(self.conv.weight)

    def seed(self, descent: Tensor, size: float) -> None:
        """Filters along the descent direction, at a fraction of the initial size."""
        geo = self.geometry
        std = he_std(geo.in_channels / geo.groups * geo.window)
        scale = size * std * descent.numel() ** 0.5 / descent.norm().clamp(min=1e-30)
        with torch.no_grad():
            self.conv.weight.copy_(descent * scale)

    def adopt(self, conv: nn.Module) -> bool:
        """Copy the filters."""
        with torch.no_grad():
            self.conv.weight.copy_(conv.weight)  # type: ignore[arg-type]
        return True


@dataclass(frozen=True)
class Conv(PathSpec):
    """Spec of the convolution path ``"conv"``."""

    name: ClassVar[str] = "conv"

    def build(self, geometry: Geometry) -> ConvPath:
        """Make the path for one layer."""
        return ConvPath(geometry)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C/g K`` weights."""
        return (
            geometry.out_channels * (geometry.in_channels // geometry.groups) * geometry.window
        )

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per channel group."""
        g = geometry.groups
        fan_in = geometry.in_channels // g * geometry.window
        return g * (fan_in**2 + (geometry.out_channels // g) ** 2)
