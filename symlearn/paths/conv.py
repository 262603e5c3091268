"""Convolution: the strictly shift-equivariant path (paper, Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.paths.base import PathSpec, he_std
from symlearn.paths.window import WindowPath


class ConvPath(WindowPath):
    """A convolution without bias, with the geometry of the layer it stands for."""

    strictness = 1

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry, geometry.build_conv())

    def _std(self) -> float:
        return he_std(self.geometry.fan_in)

    def filters(self) -> Tensor:
        """The filters [C', C/g, *kernel]."""
        return self.tested().detach()

    def adopt(self, conv: nn.Module) -> bool:
        """Copy the filters."""
        with torch.no_grad():
            self.tested().copy_(conv.get_parameter("weight"))
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
