"""The equivariant basis of one tensor product of representations.

From cheap to dear: factors that share no generator are solved apart and multiplied (products.py);
signed permutations are solved by their orbits (orbits.py); what commutes is solved by its
eigenvalues (sector.py); and only the rest is a null space (nullspace.py). Equal problems, up to the
order of the factors, are solved once (cache.py).

Index letters: n size of the product, r rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from symlearn.groups import cache
from symlearn.groups.atoms import Atom
from symlearn.groups.matrix import Group, digest_of
from symlearn.groups.nullspace import Array, dense_null, krylov_null, real_basis
from symlearn.groups.orbits import is_signed_permutation, orbit_basis
from symlearn.groups.products import kron_of, wreath_basis
from symlearn.groups.sector import Constraints, Sector, kron_apply

_VERSION = "1"  # of what is kept on disk
DENSE = 384  # columns up to which a dense singular value decomposition is as fast
_GIB = 2**30


def solve_product(factors: Sequence[Atom], group: Group | None, limit_gib: float) -> cache.Solution:
    """An orthonormal basis [n, r] of the invariants of a tensor product.

    Args:
        factors: Its factors, in order.
        group: Their group, None if there are none.
        limit_gib: Memory that may be used.

    Raises:
        ValueError: If that is not enough; the need is named.
    """
    if group is None or not factors:
        return np.ones((1, 1))
    kinds = [_Kind(factor, group) for factor in factors]
    order = sorted(range(len(kinds)), key=lambda i: kinds[i].digest)
    parts = _independent([kinds[i] for i in order])
    solved = kron_of([_solve(part, limit_gib) for part in parts])
    # axes of the solution: positions of the factors, part by part
    place = {id(kind): i for kind, i in zip((kinds[i] for i in order), order, strict=True)}
    axes = [place[id(kind)] for part in parts for kind in part]
    return _reordered(solved, [kinds[a].n for a in axes], axes)


class _Kind:
    """A factor: its matrices for all generators."""

    def __init__(self, atom: Atom, group: Group):
        self.atom = atom
        self.n = atom.dim
        lie = [atom.generator(a) for a in group.lie]
        discrete = [atom.matrix(h) for h in group.discrete]
        self.digest = " ".join(map(digest_of, (*lie, *discrete)))
        self.lie = [m.numpy() for m in lie]
        self.discrete = [m.numpy() for m in discrete]
        eye = np.eye(self.n)
        acts = [np.abs(m).max() > 0 for m in self.lie]
        acts += [not np.array_equal(m, eye) for m in self.discrete]
        self.acting = frozenset(np.flatnonzero(acts).tolist())


def _independent(kinds: Sequence[_Kind]) -> list[list[_Kind]]:
    """Split factors into parts that no generator links: each solution is a Kronecker product."""
    parts: list[tuple[set[int], list[_Kind]]] = []
    for kind in kinds:
        linked = [part for part in parts if part[0] & kind.acting]
        parts = [part for part in parts if not part[0] & kind.acting]
        acting = set(kind.acting).union(*(part[0] for part in linked))
        parts.append((acting, [k for part in linked for k in part[1]] + [kind]))
    return [members for _, members in parts]


def _solve(kinds: Sequence[_Kind], limit_gib: float) -> cache.Solution:
    """The basis of a product of factors in canonical order, from the cache if it is there."""
    n = math.prod(kind.n for kind in kinds)
    generators = sorted(set().union(*(kind.acting for kind in kinds)))
    if not generators:
        return sparse.csr_array(sparse.identity(n))
    text = " ".join([_VERSION, str(generators), *(kind.digest for kind in kinds)])
    key = hashlib.sha256(text.encode()).hexdigest()
    found = cache.find(key, n)
    if found is None:
        found = _fresh(kinds, generators, limit_gib)
        cache.keep(key, found)
    return found


def _fresh(kinds: Sequence[_Kind], generators: Sequence[int], limit_gib: float) -> cache.Solution:
    """The basis, by the cheapest rule that applies."""
    by_rule = wreath_basis(
        [kind.atom for kind in kinds],
        lambda factors, group: solve_product(factors, group, limit_gib),
    )
    if by_rule is not None:
        return by_rule
    distinct = list(dict.fromkeys(kind.digest for kind in kinds))
    first = {kind.digest: kind for kind in reversed(kinds)}
    members = [first[digest] for digest in distinct]
    n_lie = len(members[0].lie)
    lie = [tuple(m.lie[g] for m in members) for g in generators if g < n_lie]
    discrete = [tuple(m.discrete[g - n_lie] for m in members) for g in generators if g >= n_lie]
    axes = tuple(distinct.index(kind.digest) for kind in kinds)
    if not lie and all(is_signed_permutation(m) for one in discrete for m in one):
        moves = [[one[axis] for axis in axes] for one in discrete]
        n = math.prod(kind.n for kind in kinds)
        refuse_if_over(n * (48 + 24 * len(moves)), limit_gib, f"the orbits of {n:,} positions")
        return orbit_basis(moves, [kind.n for kind in kinds])
    scaled = [tuple(m / _norm(one) for m in one) for one in lie]
    return _null(Constraints(tuple(scaled), tuple(discrete), axes), limit_gib)


def _norm(matrices: Sequence[Array]) -> float:
    """The norm that makes a generator's constraint comparable with the others'."""
    return float(max(np.linalg.norm(m) for m in matrices))


def _null(constraints: Constraints, limit_gib: float) -> Array:
    """The basis, as the null space of the stacked constraints on the sector."""
    sector = Sector(constraints)
    is_real = not any(
        np.iscomplexobj(m) for one in (*constraints.lie, *constraints.discrete) for m in one
    )
    itemsize = 8 if is_real and sector.is_real else 16

    def check(columns: int) -> None:
        need = itemsize * columns * (2 * sector.n + 6 * sector.size)
        refuse_if_over(need, limit_gib, f"{columns} or more vectors of size {sector.n:,}")

    if not sector.size:
        return np.zeros((sector.n, 0))
    stacked = _Stacked(sector)
    if sector.size <= DENSE:
        found = dense_null(stacked.dense())
    else:
        found = krylov_null(stacked.gram, sector.size, is_real=sector.is_real, check=check)
    check(found.shape[1])
    vectors = sector.expand(found)
    return real_basis(vectors) if is_real else vectors


class _Stacked:
    """The constraints C that are left on the sector, applied without the full ones being formed."""

    def __init__(self, sector: Sector):
        self.sector = sector
        self.matrix, self.full = sector.stacked()
        self.adjoint = sparse.csr_array(self.matrix.conj().T)

    def dense(self) -> Array:
        """``C`` [m, s]."""
        eye = np.eye(self.sector.size)
        return np.concatenate([self.matrix.toarray(), *(self._lift(f, eye) for f in self.full)])

    def gram(self, x: Array) -> Array:
        """``C^H C x`` for columns [s, b]."""
        found = self.adjoint @ (self.matrix @ x)
        for factors in self.full:
            moved = self._lift(factors, x)
            back = kron_apply([m.conj().T for m in factors], moved) - moved
            found = found + back[self.sector.positions]
        return np.asarray(found)

    def _lift(self, factors: Sequence[Array], x: Array) -> Array:
        """``(rho(h) - 1) x`` [n, b], axis by axis."""
        lifted = np.zeros((self.sector.n, x.shape[1]), dtype=np.result_type(x, *factors))
        lifted[self.sector.positions] = x
        return kron_apply(factors, lifted) - lifted


def _reordered(
    solution: cache.Solution, dims: Sequence[int], axes: Sequence[int]
) -> cache.Solution:
    """Rows of a solution whose i-th axis is factor ``axes[i]``, in the order of the factors."""
    if list(axes) == sorted(axes):
        return solution
    rows = np.arange(math.prod(dims)).reshape(tuple(dims)).transpose(np.argsort(axes)).ravel()
    return solution[rows]


def refuse_if_over(need: float, limit_gib: float, what: str) -> None:
    """Refuse what needs too much memory.

    Args:
        need: Bytes.
        limit_gib: Memory that may be used.
        what: What needs it.

    Raises:
        ValueError: If the need is above the limit; both are named.
    """
    if need > limit_gib * _GIB:
        raise ValueError(
            f"the equivariant basis would need {need / _GIB:.3g} GiB for {what}, limit_gib is "
            f"{limit_gib:g}; take tensors of lower rank, or raise the limit"
        )
