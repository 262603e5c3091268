"""Convolution with filters that a group leaves as they are: maps to maps, without lifting.

    y[c', x'] = sum_c sum_x x[c, x] s[c', c, x' - x]       s[c', c, g u] = s[c', c, u] for all g

Weight ``[C', C/g, M]``: the filters in an orthonormal basis of the symmetric ones, one function per
orbit of the window. Kronecker rule: the convolution's, with patches projected on that basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from symlearn.basisconv import BasisConv
from symlearn.geometry import Geometry
from symlearn.groups.grid import GridGroup, named
from symlearn.groups.windows import invariant_filters, window_problems
from symlearn.paths.base import PathSpec, he_std
from symlearn.paths.window import WindowPath

_ROUNDING = 16  # machine epsilons by which averaging over the group may change a symmetric filter


class OrbitBasis(nn.Module):
    """The basis of `invariant_filters`, as a module without parameters.

    Args:
        group: The group.
        kernel_size: Window per axis.
    """

    values: Tensor

    def __init__(self, group: GridGroup, kernel_size: tuple[int, ...]) -> None:
        super().__init__()
        basis = invariant_filters(group, kernel_size)
        # the dtype and the device that a new parameter would have
        self.register_buffer("values", basis.to(torch.empty(())), persistent=False)

    def matrix(self) -> Tensor:
        """Values Phi [K, M]."""
        return self.values


class SymConvPath(WindowPath):
    """A convolution without bias whose filters are constant on the orbits of a group.

    Args:
        geometry: Shapes of the layer.
        group: The group.
    """

    strictness = 2
    conv: BasisConv

    def __init__(self, geometry: Geometry, group: GridGroup) -> None:
        super().__init__(geometry, BasisConv(geometry, OrbitBasis(group, geometry.kernel_size)))

    def _std(self) -> float:
        # a weight per orbit: the energy of C M weights is spread over C K taps
        channels = self.geometry.in_channels // self.geometry.groups
        return he_std(channels * self.tested().shape[2])

    def filters(self) -> Tensor:
        """The dense filters [C', C/g, *kernel]."""
        return self.conv.filters().detach()

    def adopt(self, conv: nn.Module) -> bool:
        """Copy the filters if they are symmetric; averaging others would change the function."""
        filters = conv.get_parameter("weight")
        if filters.is_meta:  # nothing to lose
            return True
        return self.conv.fit(filters) <= _ROUNDING * torch.finfo(filters.dtype).eps


@dataclass(frozen=True)
class SymConv(PathSpec):
    """Spec of the path ``"symconv"``.

    Args:
        group: Name of the group.

    Raises:
        ValueError: For an unknown group; the names are listed.

    Example:
        >>> import torch, symlearn
        >>> from symlearn.paths import SymConv
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 8, 8)
        >>> relaxed = symlearn.wrap(cnn, x, paths=("conv", SymConv("p4m")))
        >>> tuple(relaxed[0].paths["symconv"].tested().shape)  # centre, edges, corners
        (4, 1, 3)
    """

    name: ClassVar[str] = "symconv"
    group: str = "p4"

    def __post_init__(self) -> None:
        named(self.group)

    @classmethod
    def from_text(cls, text: str) -> SymConv:
        """The name of the group."""
        return cls(group=text)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """Reasons of the window."""
        return window_problems(named(self.group), geometry)

    def build(self, geometry: Geometry) -> SymConvPath:
        """Make the path for one layer."""
        self.check(geometry)
        return SymConvPath(geometry, named(self.group))

    def n_params(self, geometry: Geometry) -> int:
        """``C' C/g M`` weights for M orbits."""
        return geometry.out_channels * self._inputs(geometry)

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per channel group."""
        g = geometry.groups
        return g * (self._inputs(geometry) ** 2 + (geometry.out_channels // g) ** 2)

    def _inputs(self, geometry: Geometry) -> int:
        self.check(geometry)
        orbits = invariant_filters(named(self.group), geometry.kernel_size).shape[1]
        return geometry.in_channels // geometry.groups * orbits
