"""How invariants of products of groups follow from those of the factors (Finzi et al. 2021, A.1.7).

Index letters: d size of the inner representation, m blocks that the outer group permutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

import numpy as np
import torch
from scipy import sparse

from symlearn.groups.atoms import Atom, Base
from symlearn.groups.cache import Solution
from symlearn.groups.matrix import Group, MatrixGroup
from symlearn.groups.orbits import is_permutation

Solve: TypeAlias = Callable[[Sequence[Atom], Group], Solution]


def kron_of(solutions: Sequence[Solution]) -> Solution:
    """The Kronecker product of bases: the invariants where no generator acts on two factors."""
    return reduce(_kron, solutions)


def _kron(a: Solution, b: Solution) -> Solution:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.kron(a, b)
    return sparse.csr_array(sparse.kron(a, b))


class Wreath(MatrixGroup):
    """The wreath product: m blocks, each moved by an element of its own, and the blocks permuted.

    ``V`` is ``R^m (x) V_inner``, vectors of the blocks one after the other.

    Args:
        inner: The group of one block.
        outer: A group of permutations of the blocks.

    Raises:
        ValueError: If the outer group is not one of permutation matrices.

    Example:
        >>> from symlearn.groups import S, Wreath, equivariant_basis, V
        >>> G = Wreath(S(3), S(2))  # two sets of three, in any order
        >>> equivariant_basis(V(G) >> V(G)).shape
        torch.Size([36, 3])
    """

    def __init__(self, inner: MatrixGroup, outer: MatrixGroup):
        if outer.lie or not all(is_permutation(h.numpy()) for h in outer.discrete):
            raise ValueError(
                f"the outer group of a wreath product permutes blocks, {outer!r} does not"
            )
        self.inner, self.outer = inner, outer
        blocks = torch.eye(outer.dim, dtype=torch.float64)
        one = torch.eye(inner.dim, dtype=torch.float64)
        # all blocks, not one for each orbit of the outer group: the algebra is closed then
        spots = [torch.outer(e, e) for e in blocks]
        discrete = [
            torch.kron(blocks - p, one) + torch.kron(p, h) for p in spots for h in inner.discrete
        ]
        discrete += [torch.kron(h, one) for h in outer.discrete]
        lie = [torch.kron(p, a) for p in spots for a in inner.lie]
        super().__init__(f"Wreath({inner!r}, {outer!r})", discrete, lie, dim=inner.dim * outer.dim)


def wreath_basis(factors: Sequence[Atom], solve: Solve) -> Solution | None:
    """The invariants of two base representations of a wreath product; None for any other factors.

    As matrices of blocks: blocks on the diagonal are invariants of both inner representations. Off
    it, the two sides are moved independently, so that a block is a product of an invariant of each.
    Along an orbit of the outer group on pairs of blocks, blocks are the same. The paper's form of
    the rule, ``Q_a b (x) I + 1 1^T (x) Q_b a``, is the case of a transitive inner group, with one
    vector too many: its two parts share the map that is constant on all diagonal blocks.

    Args:
        factors: Factors of a tensor product.
        solve: Solves a smaller tensor product.

    Returns:
        An orthonormal basis [n, r].
    """
    if len(factors) != 2:
        return None
    a, b = factors
    if not isinstance(a, Base) or not isinstance(b, Base) or not isinstance(a.of, Wreath):
        return None
    group = a.of
    inner = [Base(group.inner, f.dual and not group.inner.is_orthogonal) for f in (a, b)]
    both, left, right = (solve(part, group.inner) for part in (inner, inner[:1], inner[1:]))
    pairs = sparse.csr_array(solve([Base(group.outer)] * 2, group.outer))
    m, d = group.outer.dim, group.inner.dim
    on_diagonal = np.asarray(abs(pairs[:: m + 1]).sum(axis=0)).ravel() > 0
    found = sparse.hstack(
        [
            sparse.kron(pairs[:, on_diagonal], both),
            sparse.kron(pairs[:, ~on_diagonal], kron_of([left, right])),
        ],
        format="csr",
    )
    # rows are (block, block, inner, inner); each representation wants its block and inner together
    rows = np.arange(m * m * d * d).reshape(m, m, d, d).transpose(0, 2, 1, 3).ravel()
    return sparse.csr_array(found[rows])
