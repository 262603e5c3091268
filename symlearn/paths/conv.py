"""Convolution: the strictly shift-equivariant path (paper, Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symlearn.geometry import Geometry, wrap_pad
from symlearn.paths.base import Path, PathSpec, he_std, normal_

_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class ConvPath(Path):
    """A convolution without bias, with the geometry of the layer it stands for.

    In a circular layer the input is padded circularly here and convolved unpadded, so that the
    curvature rule of the convolution sees the patches that are really used.
    """

    reads_aligned = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.conv = geometry.build_conv()
        self._pads = geometry.circular_pads() if geometry.circular else []

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.conv(wrap_pad(x, self._pads))
        return out

    def dense(self, x: Tensor) -> Tensor:
        """The circular convolution at stride one, [N, C', *in]: all sampling grids at once."""
        geo = self.geometry.at_stride_one()
        out: Tensor = _CONVOLVE[len(geo.in_size)](
            wrap_pad(x, geo.circular_pads()),
            self.conv.weight.detach(),
            dilation=geo.dilation,
            groups=geo.groups,
        )
        return out

    def reset_parameters(self, generator: torch.Generator) -> None:
        """He initialisation over the window and the channels of a group."""
        normal_(self.conv.weight, he_std(self.geometry.fan_in), generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All filters zero."""
        nn.init.zeros_(self.conv.weight)

    def tested(self) -> Tensor:
        """The filters [C', C/g, *kernel]."""
        return self.conv.weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Filters at zero."""
        nn.init.zeros_(self.conv.weight)

    def seed(self, descent: Tensor, size: float) -> None:
        """Filters along the descent direction, at a fraction of the initial size."""
        self.set_along(self.conv.weight, descent, size * he_std(self.geometry.fan_in))

    def adopt(self, conv: nn.Module) -> bool:
        """Copy the filters."""
        with torch.no_grad():
            self.conv.weight.copy_(conv.get_parameter("weight"))
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
        return geometry.out_channels * geometry.fan_in

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per channel group."""
        g = geometry.groups
        return g * (geometry.fan_in**2 + (geometry.out_channels // g) ** 2)
