"""Factored fully-connected: two spatial maps per pair of channels (paper, Eq. 5).

    y[c', x'] = sum_c theta1[c', c, x'] sum_x theta2[c', c, x] x[c, x]

Over a group the position is (g, x): features [N, C |G|, *size] with channel index ``c |G| + g`` are
read as C maps of ``|G| S`` positions (paper, App. A).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from symlearn.geometry import Geometry
from symlearn.paths.base import PathSpec
from symlearn.paths.factored import FactoredPath, Factors, no_group


class FFCPath(FactoredPath):
    """Reads maps with ``theta2 [C', C, S]`` and writes maps with ``theta1 [C', C, S']``.

    Args:
        geometry: Shapes of the layer.
        shapes: Shapes of the factors.
    """

    def read(self, x: Tensor) -> Tensor:
        """The input's values [N, C, |G| S]."""
        return x.reshape(len(x), *self.theta2.weight.shape[1:])

    def write(self, z: Tensor) -> Tensor:
        """The output maps themselves."""
        return z.reshape(len(z), self.geometry.out_channels, *self.geometry.out_size)

    def pull(self, g: Tensor) -> Tensor:
        """The gradients' values [N, C', |G| S']."""
        return g.reshape(len(g), -1, self.theta1.weight.shape[2])


@dataclass(frozen=True)
class FFC(PathSpec):
    """Spec of the factored fully-connected path ``"ffc"``.

    Args:
        over_group: Treat elements of the layer's group as positions, not as channels (for networks
            made by `symlearn.lift`): ``C' C |G| (S + S')`` weights, and not ``|G|`` times as many.
    """

    name: ClassVar[str] = "ffc"
    over_group: bool = False

    def _shapes(self, geometry: Geometry) -> Factors:
        return Factors(geometry, geometry.in_sites, geometry.out_sites, self.over_group)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """A layer without a group where one is asked for."""
        return no_group(geometry, self.over_group)

    def build(self, geometry: Geometry) -> FFCPath:
        """Make the path for one layer."""
        self.check(geometry)
        return FFCPath(geometry, self._shapes(geometry))

    def n_params(self, geometry: Geometry) -> int:
        """``C' C (S + S')`` weights."""
        return self._shapes(geometry).n_params

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per input channel (theta2) and per output channel (theta1)."""
        return self._shapes(geometry).factor_elements
