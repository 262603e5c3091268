"""Linear maps on a basis: ``vec W = Q beta``, with the coefficients beta as the single weight.

Index letters: n size of a representation, r rank of a basis, m copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import curvature
from symlearn.groups import EquivariantBasis, Rep
from symlearn.groups.cache import dense_of


class BasisExpansion(nn.Module):
    """``beta -> Q beta``, with Q kept as its blocks.

    Args:
        basis: The basis Q [n, r].

    Raises:
        ValueError: If the basis is complex.
    """

    def __init__(self, basis: EquivariantBasis):
        super().__init__()
        self.n, self.rank = basis.shape
        self.ranks = [block.rank for block in basis.blocks]
        self._exact: list[Tensor] = []
        for i, block in enumerate(basis.blocks):
            solution = torch.from_numpy(dense_of(block.solution))
            if solution.is_complex():
                raise ValueError(f"layers are real, but the basis of {basis.rep!r} is complex")
            self._exact.append(solution)
            solution = solution.to(torch.empty(()))  # dtype and device of a new parameter
            self.register_buffer(f"solution{i}", solution, persistent=False)
            places = torch.from_numpy(block.positions).to(solution.device)
            self.register_buffer(f"positions{i}", places, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> BasisExpansion:
        """Move to another device or dtype; the basis is orthonormal to the precision of that."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for i, exact in enumerate(self._exact):
            self.get_buffer(f"solution{i}").copy_(exact)
        return self

    def forward(self, beta: Tensor) -> Tensor:
        """The vector [n] of coefficients [r]."""
        out = beta.new_zeros(self.n)
        for i, part in enumerate(beta.split(self.ranks)):
            solution, positions = self.get_buffer(f"solution{i}"), self.get_buffer(f"positions{i}")
            part = part.reshape(len(positions), -1) @ solution.T.to(beta)
            out = out.index_put((positions,), part)
        return out

    def project(self, v: Tensor) -> Tensor:
        """The coefficients ``Q^T v`` [r] of a vector [n]; the inverse of `forward` on the span."""
        parts = []
        for i in range(len(self.ranks)):
            solution, positions = self.get_buffer(f"solution{i}"), self.get_buffer(f"positions{i}")
            parts.append((v[positions] @ solution.to(v)).flatten())
        return torch.cat(parts) if parts else v.new_zeros(0)


class EquivariantMap(nn.Module):
    """``y = W x`` with ``vec W = Q beta``; zero in a new one.

    Args:
        rep_in: Representation of the input, bound to a group.
        rep_out: Representation of the output.

    Attributes:
        beta: Coefficients [r] of the basis Q of ``rep_in >> rep_out``.
        fresh_std: Standard deviation of beta with which entries of W have the variance 1 / n.

    Raises:
        ValueError: If the groups differ, or the basis is complex or too large.
    """

    def __init__(self, rep_in: Rep, rep_out: Rep):
        super().__init__()
        self.rep_in, self.rep_out = rep_in, rep_out
        self.basis = BasisExpansion(EquivariantBasis(rep_in >> rep_out))
        self.beta = nn.Parameter(torch.zeros(self.basis.rank))
        # Q is orthonormal: entries of W have variance var(beta) r / (n' n)
        self.fresh_std = (rep_out.dim / max(1, self.basis.rank)) ** 0.5

    @property
    def weight(self) -> Tensor:
        """The matrix W [n', n]."""
        found: Tensor = self.basis(self.beta)
        return found.reshape(self.rep_out.dim, self.rep_in.dim)

    def columns(self) -> Tensor:
        """The basis Q [n' n, r], in double precision."""
        units = torch.eye(self.basis.rank, dtype=torch.float64, device=self.beta.device)
        rows: Tensor = torch.vmap(self.basis)(units)
        return rows.T

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., n] to vectors [..., n']."""
        return nn.functional.linear(x, self.weight)


@curvature.register_rule(EquivariantMap)
class EquivariantMapRule(curvature.Rule):
    """A matrix product whose matrix is ``Q beta``: its curvature is ``Q^T (G (x) A) Q``."""

    weight, bias, restricted = "beta", None, True

    def to_blocks(self, weight: Tensor) -> Tensor:
        """``Q beta`` as [1, n', n]."""
        blocks: Tensor = self.module.basis(weight)
        return blocks.reshape(1, self.module.rep_out.dim, self.module.rep_in.dim)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """``Q^T vec W``."""
        coefficients: Tensor = self.module.basis.project(blocks.flatten())
        return coefficients
