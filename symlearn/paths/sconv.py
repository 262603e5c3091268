"""Sparse convolution: filters of a few anchor values each (paper, Eq. 6).

    y[c', x'] = sum_c sum_x x[c, x] s[c', c, x' - x]      s[c', c, p] = sum_j u[c', c, j] phi_j(p)

Weight ``u [C', C/g, M]``; Kronecker rule: the convolution's, with patches projected on the basis.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from symlearn.basis import Basis, BasisOptions, hyperparameters
from symlearn.basisconv import BasisConv
from symlearn.geometry import Geometry
from symlearn.paths.base import PathSpec, he_std
from symlearn.paths.window import WindowPath

_ROUNDING = 1e3  # machine epsilons that solving for the anchor values may lose


class SConvPath(WindowPath):
    """A convolution without bias, with the geometry of the layer it stands for.

    Args:
        geometry: Shapes of the layer.
        options: Number and layout of the anchors, and what is learned.
        fit_tolerance: Largest relative error at which pretrained filters are taken over.
    """

    strictness = 1
    conv: BasisConv

    def __init__(self, geometry: Geometry, options: BasisOptions, fit_tolerance: float) -> None:
        super().__init__(geometry, BasisConv(geometry, Basis(geometry.kernel_size, options)))
        self.fit_tolerance = fit_tolerance

    def _std(self) -> float:
        return he_std(self.geometry.in_channels // self.geometry.groups * len(self.conv.phi()))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Anchor values fitted to Gaussian filters of He's size over the window."""
        super().reset_parameters(generator)
        self.conv.basis.fit_white_(self.tested())

    def seed(self, descent: Tensor, size: float) -> None:
        """Anchor values along the descent, with filters of a fraction of the initial size.

        A descent is smooth: its functions add up where those of a fit to noise cancel.
        """
        with torch.no_grad():
            taps = descent @ self.conv.phi().T
        self.set_along(self.tested(), descent, size * self._std(), taps)

    def filters(self) -> Tensor:
        """The dense filters [C', C/g, *kernel]."""
        return self.conv.filters().detach()

    def from_dense(self, filters: Tensor) -> float:
        """Set the anchor values to the least-squares fit of dense filters.

        Args:
            filters: Filters [C', C/g, *kernel].

        Returns:
            Norm of what is not fitted, relative to the filters'.
        """
        return self.conv.fit(filters)

    def adopt(self, conv: nn.Module) -> bool:
        """Fit the filters, if the error is rounding or below the tolerance (then with a warning).

        As many anchors as taps fit all filters, fewer do not.
        """
        filters = conv.get_parameter("weight")
        error = self.from_dense(filters)
        if error <= _ROUNDING * torch.finfo(filters.dtype).eps:
            return True
        if error > self.fit_tolerance:
            return False
        warnings.warn(
            f"{len(self.conv.basis.anchors)} anchors hold the pretrained filters "
            f"{list(filters.shape)} with a relative error of {error:.2g} (fit_tolerance is "
            f"{self.fit_tolerance:g}): the relaxed layer does not start as the same function",
            stacklevel=2,
        )
        return True

    def hyperparameters(self) -> dict[str, str | None]:
        """Learned omega and places of the anchors."""
        return hyperparameters(self)


@dataclass(frozen=True)
class SConv(BasisOptions, PathSpec):
    """Spec of the sparse-convolution path ``"sconv"``; see `BasisOptions` for the other options.

    Args:
        fit_tolerance: Largest relative error (at most 1) at which the path takes over pretrained
            filters, with a warning that names the error; 0 for none but rounding.

    Raises:
        ValueError: For a tolerance that is negative or NaN.

    Example:
        >>> import torch, symlearn
        >>> from symlearn.paths import SConv
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 8, 8)
        >>> relaxed = symlearn.wrap(cnn, x, paths=(SConv(anchors=9), "sfc"))
        >>> bool(torch.allclose(relaxed(x), cnn(x), atol=1e-4))
        True
    """

    name: ClassVar[str] = "sconv"
    fit_tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fit_tolerance >= 0:
            raise ValueError(f"fit_tolerance is {self.fit_tolerance!r}; it must not be negative")

    def unsuited(self, geometry: Geometry) -> list[str]:
        """More anchors than taps."""
        return self.too_many("window", geometry.kernel_size)

    def build(self, geometry: Geometry) -> SConvPath:
        """Make the path for one layer."""
        self.check(geometry)
        return SConvPath(geometry, self, self.fit_tolerance)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C/g M`` anchor values, and what is learned of the basis."""
        pairs = geometry.out_channels * geometry.in_channels // geometry.groups
        return pairs * self.count(geometry.kernel_size) + self.n_learned(geometry.kernel_size)

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per channel group."""
        g = geometry.groups
        inputs = geometry.in_channels // g * self.count(geometry.kernel_size)
        return g * (inputs**2 + (geometry.out_channels // g) ** 2)
