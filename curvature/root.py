"""Square roots of the likelihoods' output Hessians, column by column and largest first.

For outputs ``f`` the Hessian of ``-log p(y | f)`` is ``Lambda = S S^T`` for each sample, with ``S
[K, C]`` of C columns. S is never formed: a pass needs single columns and random sums of columns.
Index letters: ``N`` samples, ``K`` network outputs, ``C`` columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor


class HessianRoot(ABC):
    """The square roots S of a batch of output Hessians.

    Attributes:
        masses: Squared norms of the columns, [N, C], falling within each sample; their sum is the
            trace of the Hessian.
    """

    masses: Tensor

    @abstractmethod
    def times(self, weights: Tensor) -> Tensor:
        """``S w`` [N, K] for weights w [N, C] of each sample's columns."""

    def columns(self, limit: int | None = None) -> Iterator[Tensor]:
        """The first columns [N, K], or all of them, one at a time."""
        total = self.masses.shape[1]
        for c in range(total if limit is None else min(limit, total)):
            weights = torch.zeros_like(self.masses)
            weights[:, c] = 1
            yield self.times(weights)

    def dense(self) -> Tensor:
        """All columns, [C, N, K]."""
        columns = list(self.columns())
        return torch.stack(columns) if columns else self.times(self.masses).expand(0, -1, -1)


class DiagonalRoot(HessianRoot):
    """The root of independent outputs: one column per output.

    Args:
        scales: Square roots of the Hessian's diagonal, [N, K].
    """

    def __init__(self, scales: Tensor) -> None:
        self._scales, self._order = scales.sort(dim=1, descending=True, stable=True)
        self.masses = self._scales.square()

    def times(self, weights: Tensor) -> Tensor:
        """``S w``, [N, K]."""
        out = torch.zeros_like(self._scales)
        return out.scatter_(1, self._order, self._scales * weights)


class SoftmaxRoot(HessianRoot):
    """The root of ``diag(p) - p p^T`` for softmax probabilities p: K - 1 columns.

    Its Cholesky factor is known in closed form. With probabilities sorted falling and tails
    ``q_c = sum_{i >= c} p_i``, column c holds

        sqrt(p_c q_{c+1} / q_c) at c,     -p_i sqrt(p_c / (q_c q_{c+1})) at i > c,

    and the Hessian less its first c columns is ``diag(p) - p p^T / q_c`` of the classes from c on:
    each column is the largest pivot's. No difference of nearly equal numbers is formed, so that
    saturated outputs keep their small curvature.

    Args:
        logits: [N, K].
    """

    def __init__(self, logits: Tensor) -> None:
        p, self._order = logits.softmax(1).sort(dim=1, descending=True, stable=True)
        tails = p.flip(1).cumsum(1).flip(1)
        head, tail, rest = p[:, :-1], tails[:, :-1], tails[:, 1:]
        share = (head / tail).sqrt()
        # underflown classes have no curvature; a tail of zero would divide by zero
        alive = rest > 0
        self._p, root = p, rest.sqrt()
        self._diagonal = torch.where(alive, share * root, 0.0)
        self._below = torch.where(alive, share / root, 0.0)
        # in double: squares of small probabilities underflow, and the square of `_below` overflows
        squares = p.double().square().flip(1).cumsum(1).flip(1)[:, 1:]
        below = torch.where(alive, share.double().square() * (squares / rest), 0.0)
        self.masses = (self._diagonal.double().square() + below).to(p)

    def times(self, weights: Tensor) -> Tensor:
        """``S w``, [N, K]."""
        out = torch.zeros_like(self._p)
        out[:, :-1] = self._diagonal * weights
        out[:, 1:] -= self._p[:, 1:] * (self._below * weights).cumsum(1)
        return torch.empty_like(out).scatter_(1, self._order, out)
