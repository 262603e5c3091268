"""Factored fully-connected: two spatial maps per pair of channels (paper, Eq. 5).

    y[c', x'] = sum_c theta1[c', c, x'] sum_x theta2[c', c, x] x[c, x]

Both halves are block-linear, so their Kronecker factors have one small block per channel; the
product is unchanged under ``theta1 -> s theta1, theta2 -> theta2 / s``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from symlearn.blocklinear import BlockLinear
from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec, he_std, normal_

_ITERATIONS = 12


class FFCPath(Path):
    """Reads each input map with ``theta2 [C', C, S]``, writes each output with ``theta1 [C', C, S']``."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        c_out, c_in = geometry.out_channels, geometry.in_channels
        self.theta1 = BlockLinear((c_out, c_in, geometry.out_sites), order=(0, 2, 1))
        self.theta2 = BlockLinear((c_out, c_in, geometry.in_sites), order=(1, 0, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        hidden = self.theta2(x.flatten(2))
        out: Tensor = self.theta1(hidden.transpose(1, 2))
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def _product_std(self) -> float:
        return he_std(self.geometry.in_channels * self.geometry.in_sites)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Both factors Gaussian, with a product of He's size."""
        for factor in (self.theta1, self.theta2):
            normal_(factor.weight, self._product_std() ** 0.5, generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """``theta2 = 0`` and random ``theta1``: no contribution, but not a saddle."""
        normal_(self.theta1.weight, self._product_std() ** 0.5, generator)
        nn.init.zeros_(self.theta2.weight)

    def tested(self) -> nn.Parameter:
        """The reading maps ``theta2``, given writing maps ``theta1``."""
        return self.theta2.weight

    def needs_direction(self) -> bool:
        """At ``theta1 = theta2 = 0`` all gradients vanish, so a direction must be found."""
        return True

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Set ``theta1`` to the best rank-one output map of each channel pair, ``theta2`` to zero.

        The gradient of a full map between channels c and c' is ``sum_n g[n, c'] x[n, c]^T``; its
        leading left singular vector is found by power iteration on the samples, without building
        the ``C' C S' S`` numbers of the gradient.
        """
        x, g = x.flatten(2), g.flatten(2)
        v = x.new_ones(g.shape[1], x.shape[1], x.shape[2])
        # a fixed start that is not orthogonal to smooth maps; the sign pattern breaks symmetry
        v = v + torch.linspace(-0.5, 0.5, x.shape[2], dtype=x.dtype, device=x.device)
        for _ in range(_ITERATIONS):
            u = _unit(torch.einsum("ndy,ndc->dcy", g, torch.einsum("ncx,dcx->ndc", x, v)))
            v = _unit(torch.einsum("ncx,ndc->dcx", x, torch.einsum("ndy,dcy->ndc", g, u)))
        with torch.no_grad():
            self.theta1.weight.copy_(u)
            self.theta2.weight.zero_()

    def seed(self, descent: Tensor, size: float) -> None:
        """Scale ``theta1`` and set ``theta2`` along the descent direction, balanced in norm."""
        with torch.no_grad():
            total = size * self._product_std()
            sites = self.geometry.in_sites * self.geometry.out_sites
            scale = (total * sites**0.5) ** 0.5
            self.theta1.weight.mul_(scale)
            self.theta2.weight.copy_(_unit(descent) * scale)


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-30)


@dataclass(frozen=True)
class FFC(PathSpec):
    """Spec of the factored fully-connected path ``"ffc"``."""

    name: ClassVar[str] = "ffc"

    def build(self, geometry: Geometry) -> FFCPath:
        """Make the path for one layer."""
        return FFCPath(geometry)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C (S + S')`` weights."""
        pairs = geometry.out_channels * geometry.in_channels
        return pairs * (geometry.in_sites + geometry.out_sites)

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per input channel (theta2) and per output channel (theta1)."""
        c_in, c_out = geometry.in_channels, geometry.out_channels
        theta2 = c_in * (geometry.in_sites**2 + c_out**2)
        return theta2 + c_out * (geometry.out_sites**2 + c_in**2)
