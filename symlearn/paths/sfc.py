"""Sparse fully-connected: two maps of a few anchor values per pair of channels (paper, Eq. 7).

    y[c', x'] = sum_c s1[c', c, x'] sum_x s2[c', c, x] x[c, x]     s[c', c, x] = sum_j u_j phi_j(x)

It is the factored path between projections of the maps on the basis: with Phi2 [S, M] and
Phi1 [S', M'], inputs ``x Phi2``, anchor values ``theta2 [C', C, M]`` and ``theta1 [C', C, M']``,
and outputs ``z Phi1^T``. Over a group the position is (g, x), and a basis function is ``phi_j(x)``
at one element g and zero at the others: maps are projected element by element (paper, App. A).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from symlearn.basis import Basis, BasisOptions, hyperparameters
from symlearn.blocklinear import BlockLinear
from symlearn.geometry import Geometry
from symlearn.paths.base import PathSpec, he_std
from symlearn.paths.factored import FactoredPath, Factors, no_group


class SFCPath(FactoredPath):
    """Reads maps with ``theta2 [C', C, M]`` and writes maps with ``theta1 [C', C, M']``.

    Args:
        geometry: Shapes of the layer.
        shapes: Shapes of the factors.
        options: Number and layout of the anchors, and what is learned.

    Attributes:
        reading: Basis functions on the input grid.
        writing: Basis functions on the output grid.
    """

    def __init__(self, geometry: Geometry, shapes: Factors, options: BasisOptions) -> None:
        super().__init__(geometry, shapes)
        self.reading = Basis(geometry.in_size, options)
        self.writing = Basis(geometry.out_size, options)

    def read(self, x: Tensor) -> Tensor:
        """The input projected on the basis, [N, C, |G| M]."""
        return (x.flatten(2) @ self.reading.matrix()).reshape(len(x), *self.theta2.weight.shape[1:])

    def write(self, z: Tensor) -> Tensor:
        """Sums of basis functions."""
        phi, geo = self.writing.matrix(), self.geometry
        maps = z.reshape(len(z), geo.out_channels, phi.shape[1]) @ phi.T
        return maps.reshape(len(z), geo.out_channels, *geo.out_size)

    def pull(self, g: Tensor) -> Tensor:
        """The gradients projected on the basis, [N, C', |G| M']."""
        return (g.flatten(2) @ self.writing.matrix()).reshape(
            len(g), -1, self.theta1.weight.shape[2]
        )

    def maps(self) -> tuple[Tensor, Tensor]:
        """Sums of basis functions: values of the writing and of the reading maps on the grids."""
        written, read = (
            factor.weight.unflatten(2, (-1, len(basis.anchors))) @ basis.matrix().T
            for factor, basis in ((self.theta1, self.writing), (self.theta2, self.reading))
        )
        return written.flatten(2), read.flatten(2)

    def _product_std(self) -> float:
        inputs = self.theta2.weight[0].numel() // len(self.reading.anchors)
        return he_std(inputs * self.geometry.in_sites)

    def _draw(self, factor: BlockLinear, generator: torch.Generator) -> None:
        """Anchor values fitted to Gaussian maps."""
        super()._draw(factor, generator)
        (self.writing if factor is self.theta1 else self.reading).fit_white_(factor.weight)

    def hyperparameters(self) -> dict[str, str | None]:
        """Learned omegas and places of the anchors."""
        return hyperparameters(self)


@dataclass(frozen=True)
class SFC(BasisOptions, PathSpec):
    """Spec of the sparse fully-connected path ``"sfc"``; see `BasisOptions` for the other options.

    Args:
        over_group: Treat elements of the layer's group as positions, not as channels (for networks
            made by `symlearn.lift`).
    """

    name: ClassVar[str] = "sfc"
    over_group: bool = False

    def _shapes(self, geometry: Geometry) -> Factors:
        counts = self.count(geometry.in_size), self.count(geometry.out_size)
        return Factors(geometry, *counts, self.over_group)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """More anchors than sites, or a layer without a group where one is asked for."""
        return [
            *self.too_many("input", geometry.in_size),
            *self.too_many("output", geometry.out_size),
            *no_group(geometry, self.over_group),
        ]

    def build(self, geometry: Geometry) -> SFCPath:
        """Make the path for one layer."""
        self.check(geometry)
        return SFCPath(geometry, self._shapes(geometry), self)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C (M + M')`` anchor values, and what is learned of the two bases."""
        learned = self.n_learned(geometry.in_size) + self.n_learned(geometry.out_size)
        return self._shapes(geometry).n_params + learned

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per input channel (theta2) and per output channel (theta1)."""
        return self._shapes(geometry).factor_elements
