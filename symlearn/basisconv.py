"""The primitive of sparse convolutions: filters that are sums of basis functions, and their rule.

Index letters: ``C``, ``C'`` channels, ``g`` channel groups, ``K`` filter taps, ``M`` anchors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
from curvature.gram import patch_gram
from curvature.rules import ConvRule, pad
from symlearn.geometry import Geometry, Sizes

_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class BasisConv(nn.Module):
    """A convolution whose filters are given by anchor values: ``s = Phi u`` (paper, Eq. 6).

    Args:
        geometry: Shapes and window of the layer; a circular layer is given padded maps.
        basis: Module whose ``matrix()`` is Phi [K, M], the basis functions at the window's taps.

    Attributes:
        weight: Anchor values u, [C', C/g, M].

    Example:
        >>> import torch
        >>> from symlearn.basis import Basis, BasisOptions
        >>> from symlearn.geometry import Geometry
        >>> geometry = Geometry.of(torch.nn.Conv2d(2, 3, 3), (5, 5), (3, 3))
        >>> conv = BasisConv(geometry, Basis(geometry.kernel_size, BasisOptions()))
        >>> tuple(conv.weight.shape), tuple(conv(torch.randn(1, 2, 5, 5)).shape)
        ((3, 2, 5), (1, 3, 3, 3))
    """

    stride: Sizes
    padding: Sizes | str
    dilation: Sizes
    groups: int
    padding_mode: str

    def __init__(self, geometry: Geometry, basis: nn.Module) -> None:
        super().__init__()
        self.kernel_size = geometry.kernel_size
        for name, value in geometry.window_options().items():
            setattr(self, name, value)
        self.basis: Any = basis
        pairs = (geometry.out_channels, geometry.in_channels // geometry.groups)
        self.weight = nn.Parameter(torch.zeros(*pairs, self.phi().shape[1]))

    def phi(self) -> Tensor:
        """Basis functions at the window's taps, [K, M]."""
        values: Tensor = self.basis.matrix()
        return values

    def filters(self) -> Tensor:
        """The dense filters [C', C/g, *kernel]."""
        sums: Tensor = self.weight @ self.phi().T
        return sums.reshape(*sums.shape[:2], *self.kernel_size)

    def fit(self, filters: Tensor) -> float:
        """Set the anchor values to the least-squares fit of dense filters.

        Args:
            filters: Filters [C', C/g, *kernel].

        Returns:
            Norm of what is not fitted, relative to the filters' (0 for filters that are zero).
        """
        with torch.no_grad():
            wanted, phi = (t.detach().cpu().double() for t in (filters.flatten(2), self.phi()))
            self.weight.copy_(wanted @ torch.linalg.pinv(phi).T)
            rest = self.filters().flatten(2).cpu().double() - wanted
        return float(rest.norm() / wanted.norm().clamp(min=torch.finfo(torch.float64).tiny))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = _CONVOLVE[len(self.kernel_size)](
            pad(self, x),
            self.filters(),
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        return out


@curvature.register_rule(BasisConv)
class BasisConvRule(ConvRule):
    """The convolution's rule with its patches projected on the basis (paper, App. C.2)."""

    bias = None

    def inputs(self, module: Any, x: Tensor) -> Tensor:
        """Projected patches [N, sites, g, C/g * M]."""
        phi = module.phi().detach()
        patches = super().inputs(module, x).unflatten(3, (-1, len(phi)))
        projected: Tensor = patches @ phi
        return projected.flatten(3)

    def input_gram(self, module: Any, x: Tensor) -> Tensor:
        """``Phi^T A Phi`` for each pair of channels, with the dense convolution's sums A."""
        window = (module.kernel_size, module.stride, module.dilation, module.groups)
        dense = patch_gram(pad(module, x), *window)
        phi = module.phi().detach().to(dense)
        blocks = dense.unflatten(2, (-1, len(phi))).unflatten(1, (-1, len(phi)))
        projected: Tensor = torch.einsum("gckdl,km,ln->gcmdn", blocks, phi, phi)
        return projected.flatten(3).flatten(1, 2)
