"""Fully-connected: any linear map between the two feature maps (paper, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec, he_std, normal_


class FCPath(Path):
    """One weight per pair of input and output element: ``C' S' C S`` of them."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self._fan_in = geometry.in_channels * geometry.in_sites
        self.linear = nn.Linear(
            self._fan_in, geometry.out_channels * geometry.out_sites, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.linear(x.flatten(1))
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """He initialisation over all input elements."""
        normal_(self.linear.weight, he_std(self._fan_in), generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All weights zero."""
        nn.init.zeros_(self.linear.weight)

    def tested(self) -> nn.Parameter:
        """The weight [C'S', CS]."""
        return self.linear.weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Weights at zero."""
        nn.init.zeros_(self.linear.weight)

    def seed(self, descent: Tensor, size: float) -> None:
        """Weights along the descent direction, at a fraction of the initial size."""
        std = he_std(self._fan_in)
        scale = size * std * descent.numel() ** 0.5 / descent.norm().clamp(min=1e-30)
        with torch.no_grad():
            self.linear.weight.copy_(descent * scale)

    def adopt(self, conv: Any) -> bool:
        """Unroll the convolution into a matrix; columns are its responses to unit inputs."""
        geo = self.geometry
        if geo.circular:
            return False
        eye = torch.eye(self._fan_in, dtype=conv.weight.dtype, device=conv.weight.device)
        plain = geo.build_conv().to(conv.weight)
        with torch.no_grad():
            plain.weight.copy_(conv.weight)
            for rows in eye.split(256):
                units = rows.reshape(-1, geo.in_channels, *geo.in_size)
                start = int(rows[0].argmax())
                columns = plain(units).flatten(1).T
                self.linear.weight[:, start : start + len(rows)] = columns
        return True


@dataclass(frozen=True)
class FC(PathSpec):
    """Spec of the fully-connected path ``"fc"``."""

    name: ClassVar[str] = "fc"

    def build(self, geometry: Geometry) -> FCPath:
        """Make the path for one layer."""
        return FCPath(geometry)

    def n_params(self, geometry: Geometry) -> int:
        """``C' S' C S`` weights."""
        inputs = geometry.in_channels * geometry.in_sites
        return inputs * geometry.out_channels * geometry.out_sites

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors over all elements."""
        return (geometry.in_channels * geometry.in_sites) ** 2 + (
            geometry.out_channels * geometry.out_sites
        ) ** 2
