"""The terms of a Lie algebra convolution: one generator and its weights each.

Index letters: ``C``, ``C'`` channels, ``S``, ``S'`` sites, ``d_h`` rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symlearn.generators.sitemap import SiteMap
from symlearn.geometry import Geometry
from symlearn.paths.base import he_std, normal_

_TINY = 1e-30


class Term(nn.Module):
    """One generator and its weights: [N, C, S] to [N, C', S']."""

    def weights(self) -> list[nn.Parameter]:
        """The factors, W first."""
        return list(self.parameters())

    def contributes(self) -> bool:
        """Whether no factor is identically zero."""
        return all(bool(p.detach().any()) for p in self.weights())


class FixedTerm(Term):
    """``L x W^T`` for a given L.

    Args:
        geometry: Shapes of the layer.
        sites: The map L.
        tap: Tap of the layer's window that L reads, if it is one.
    """

    def __init__(self, geometry: Geometry, sites: SiteMap, tap: int | None) -> None:
        super().__init__()
        self.sites, self.tap = sites, tap
        self.W = zero_linear(geometry.in_channels, geometry.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C', S']."""
        out: Tensor = self.W(self.sites(x).transpose(1, 2))
        return out.transpose(1, 2)

    def draw(self, power: float, generator: torch.Generator) -> None:
        """Gaussian weights with which the term's share of He's variance is ``power``."""
        normal_(self.W.weight, self.std() * power**0.5, generator)

    def std(self) -> float:
        """Size of W at which the term alone has He's variance."""
        return he_std(self.W.in_features * max(self.sites.power(), _TINY))


class LearnedTerm(Term):
    """``U V x W^T`` with learned U [S', d_h] and V [d_h, S].

    Args:
        geometry: Shapes of the layer.
        rank: d_h.
    """

    def __init__(self, geometry: Geometry, rank: int) -> None:
        super().__init__()
        self.W = zero_linear(geometry.in_channels, geometry.out_channels)
        self.V = zero_linear(geometry.in_sites, rank)
        self.U = zero_linear(rank, geometry.out_sites)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C', S']."""
        out: Tensor = self.U(self.W(self.V(x).transpose(1, 2)).transpose(1, 2))
        return out

    def norm(self) -> float:
        """Norm of each factor at which they are equal in norm and the map has He's variance."""
        numbers = [p.numel() for p in self.weights()]
        square = he_std(self.W.in_features * self.V.in_features * self.V.out_features) ** 2
        return float((square * numbers[0] * numbers[1] * numbers[2]) ** (1 / 6))

    def draw(self, power: float, generator: torch.Generator) -> None:
        """Gaussian factors, equal in norm, with the share ``power`` of He's variance."""
        size = self.norm() * power ** (1 / 6)
        for p in self.weights():
            normal_(p, size / p.numel() ** 0.5, generator)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A matrix of zeros, without bias."""
    # skip_init: drawing weights that are overwritten would move the global random state
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear
