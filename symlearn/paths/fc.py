"""Fully-connected: any linear map between the two feature maps (paper, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from symlearn.geometry import Geometry, wrap_pad
from symlearn.paths.base import Path, PathSpec, he_std, normal_

_UNITS_AT_ONCE = 256


class FCPath(Path):
    """One weight per pair of input and output element: ``C' S' C S`` of them."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self._fan_in = geometry.in_channels * geometry.in_sites
        fan_out = geometry.out_channels * geometry.out_sites
        # skip_init: random weights would be overwritten, and take seconds
        self.linear: nn.Linear = nn.utils.skip_init(
            nn.Linear, self._fan_in, fan_out, bias=False, device=torch.get_default_device()
        )
        nn.init.zeros_(self.linear.weight)

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

    def tested(self) -> Tensor:
        """The weight [C'S', CS]."""
        return self.linear.weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Weights at zero."""
        nn.init.zeros_(self.linear.weight)

    def seed(self, descent: Tensor, size: float) -> None:
        """Weights along the descent direction, at a fraction of the initial size."""
        self.set_along(self.linear.weight, descent, size * he_std(self._fan_in))

    def adopt(self, conv: nn.Module) -> bool:
        """Unroll the convolution into a matrix; columns are its responses to unit inputs.

        Not where the sampling grid differs between samples: that is not one linear map.
        """
        geo, weight = self.geometry, conv.get_parameter("weight").detach()
        if geo.circular and any(step > 1 for step in geo.stride):
            return False
        plain = geo.build_conv()
        pads = geo.circular_pads() if geo.circular else []
        for start in range(0, self._fan_in, _UNITS_AT_ONCE):
            stop = min(start + _UNITS_AT_ONCE, self._fan_in)
            units = weight.new_zeros(stop - start, self._fan_in)
            units.diagonal(start).fill_(1)
            maps = units.reshape(-1, geo.in_channels, *geo.in_size)
            columns = functional_call(plain, {"weight": weight}, (wrap_pad(maps, pads),))
            with torch.no_grad():
                self.linear.weight[:, start:stop] = columns.flatten(1).T
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
