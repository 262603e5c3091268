"""Equivariant bases: the vectors, and the linear maps, that a group leaves alone.

A vector is left alone by a group if and only if ``d rho(A_i) v = 0`` for its Lie algebra and
``rho(h_k) v = v`` for its discrete generators (Finzi et al. 2021, Theorem A.1).

Index letters: n size of the representation, r rank, m copies of a tensor product in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symlearn.groups.atoms import Atom
from symlearn.groups.cache import Solution, dense_of
from symlearn.groups.rep import Product, Rep, Sum, unbound
from symlearn.groups.solver import refuse_if_over, solve_product

LIMIT_GIB = 4.0
"""Memory that a basis, and its computation, may take by default."""

_GIB = 2**30
_Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Copies of one tensor product within a representation, which share one basis.

    Attributes:
        positions: Where the entries of each copy are [m, n'].
        solution: Their orthonormal basis [n', r'], dense or sparse.
    """

    positions: _Positions
    solution: Solution

    @property
    def rank(self) -> int:
        """Basis vectors of all copies."""
        return len(self.positions) * int(self.solution.shape[1])


class EquivariantBasis:
    """An orthonormal basis Q [n, r], kept as one small basis per kind of tensor product.

    Coefficients ``beta`` [r] run over the blocks, in a block over its copies, in a copy over the
    columns of its solution. `to_dense` gives Q in the same order.

    Args:
        rep: The representation, bound to a group; ``rep_in >> rep_out`` for maps.
        limit_gib: Memory that finding the basis may take.

    Raises:
        ValueError: If the representation is not bound to a group, or the basis needs more memory.

    Example:
        >>> from symlearn.groups import SO, EquivariantBasis, V
        >>> rep = 20 * V(SO(3))
        >>> maps = EquivariantBasis(rep >> rep)
        >>> maps.shape, [block.solution.shape for block in maps.blocks]
        ((3600, 400), [(9, 1)])
    """

    def __init__(self, rep: Rep, *, limit_gib: float = LIMIT_GIB):
        if not isinstance(rep, Rep):
            raise TypeError(
                f"a basis is one of a representation such as T(2)(SO(3)), got {type(rep)}"
            )
        if unbound(rep):
            raise ValueError(f"{rep!r} has no group yet; bind it, as in ({rep!r})(SO(3))")
        self.rep = rep
        # entries' places, and at least one vector
        refuse_if_over(24 * rep.dim, limit_gib, f"one vector of size {rep.dim:,}")
        grouped: dict[tuple[Atom, ...], list[_Positions]] = {}
        for factors, positions in _terms(rep):
            grouped.setdefault(factors, []).append(positions)
        self.blocks = tuple(
            Block(np.concatenate(parts), solve_product(factors, rep.group, limit_gib))
            for factors, parts in grouped.items()
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Size n of the representation and rank r."""
        return (self.rep.dim, self.rank)

    @property
    def rank(self) -> int:
        """Dimension r of the space of invariants."""
        return sum(block.rank for block in self.blocks)

    def to_dense(self, *, limit_gib: float = LIMIT_GIB) -> Tensor:
        """The basis Q [n, r], in double precision.

        Raises:
            ValueError: If it needs more memory than the limit.
        """
        n, r = self.shape
        is_complex = any(np.iscomplexobj(block.solution) for block in self.blocks)
        need = n * r * (16 if is_complex else 8) / _GIB
        if need > limit_gib:
            raise ValueError(
                f"the dense basis [{n:,}, {r:,}] needs {need:.3g} GiB, limit_gib is {limit_gib:g}; "
                "use EquivariantBasis, which keeps its blocks, or raise the limit"
            )
        q = torch.zeros(n, r, dtype=torch.complex128 if is_complex else torch.float64)
        start = 0
        for block in self.blocks:
            dense = torch.from_numpy(dense_of(block.solution)).to(q.dtype)
            for rows in torch.from_numpy(block.positions):
                q[rows, start : start + dense.shape[1]] = dense
                start += dense.shape[1]
        return q


def equivariant_basis(rep: Rep, *, limit_gib: float = LIMIT_GIB) -> Tensor:
    """An orthonormal basis of the vectors of a representation that its group leaves alone.

    For linear maps give ``rep_in >> rep_out``: a basis vector is then a matrix W [dim_out, dim_in],
    flattened row-major, with ``rho_out(g) W = W rho_in(g)``; get it back by
    ``column.reshape(rep_out.dim, rep_in.dim)``.

    Args:
        rep: The representation, bound to a group.
        limit_gib: Memory that finding the basis, and the basis itself, may take.

    Returns:
        Q [dim, rank] in double precision on the CPU, ``Q^T Q = 1``; complex for complex groups.

    Raises:
        ValueError: If the representation is not bound to a group, or the basis needs more memory.

    Example:
        >>> from symlearn.groups import S, V, equivariant_basis
        >>> rep = V(S(4))
        >>> equivariant_basis(rep >> rep).shape  # deep sets: the identity and the mean
        torch.Size([16, 2])
    """
    return EquivariantBasis(rep, limit_gib=limit_gib).to_dense(limit_gib=limit_gib)


def _terms(rep: Rep) -> Iterator[tuple[tuple[Atom, ...], _Positions]]:
    """The tensor products that a representation is a sum of, and their entries' places [m, n']."""
    if isinstance(rep, Sum):
        start = 0
        for term, count in rep.terms:
            copies = start + term.dim * np.arange(count)[:, None]
            for factors, positions in _terms(term):
                yield (
                    factors,
                    (copies[:, :, None] + positions[None]).reshape(-1, positions.shape[1]),
                )
            start += term.dim * count
    elif isinstance(rep, Product):
        yield from _multiplied(rep.factors)
    elif isinstance(rep, Atom):
        yield (rep,), np.arange(rep.dim)[None]
    else:
        raise TypeError(f"cannot solve a representation of type {type(rep)}: derive it from Atom")


def _multiplied(factors: tuple[Rep, ...]) -> Iterator[tuple[tuple[Atom, ...], _Positions]]:
    """The terms of a tensor product: one for every choice of a term of each factor."""
    if not factors:
        yield (), np.zeros((1, 1), dtype=np.int64)
        return
    rest = list(_multiplied(factors[1:]))
    stride = math.prod(factor.dim for factor in factors[1:])
    for atoms, positions in _terms(factors[0]):
        for more, inner in rest:
            both = positions[:, None, :, None] * stride + inner[None, :, None, :]
            yield atoms + more, both.reshape(len(positions) * len(inner), -1)
