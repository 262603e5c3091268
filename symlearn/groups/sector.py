"""Constraints on a tensor product of axes, in coordinates where some of them are already solved.

Generators that are normal and commute are diagonal in one orthonormal basis of each axis. There,
``d rho(A)`` of a tensor product is diagonal with sums of eigenvalues, and ``rho(h)`` with products:
a solution is supported on the **sector**, the positions where every sum is zero and every product
one. For SO(n) these are the tensors of weight zero. Only the other generators are left to solve.

Index letters: k axes of sizes d, n = d1 d2 ... positions, s positions in the sector, b columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Array = NDArray[Any]

_EXACT = 1e-10
_ZERO = 1e-13
_FILL = 0.25  # work of a sparse product relative to one axis by axis, up to which it is preferred


@dataclass(frozen=True)
class Constraints:
    """``d rho(A_i) v = 0`` and ``rho(h_k) v = v`` on a tensor product (Finzi et al. 2021, Eq. 2.6).

    Attributes:
        lie: For each A_i its matrices by kind of axis [d, d].
        discrete: Likewise for each h_k.
        axes: Kind of each axis.
    """

    lie: tuple[tuple[Array, ...], ...]
    discrete: tuple[tuple[Array, ...], ...]
    axes: tuple[int, ...]

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Size of each axis."""
        one = (*self.lie, *self.discrete)[0]
        return tuple(len(one[kind]) for kind in self.axes)

    @property
    def n(self) -> int:
        """Positions of the tensor product."""
        return math.prod(self.dims)


class Sector:
    """The coordinates of the module docstring, and the constraints that are left in them.

    Args:
        constraints: All constraints.
    """

    def __init__(self, constraints: Constraints):
        self.dims, self.axes, self.n = constraints.dims, constraints.axes, constraints.n
        commuting = _commuting(constraints)
        self.bases = _common_bases(commuting, constraints)
        if not _diagonal(
            commuting, self.bases
        ):  # nearly equal eigenvalues: leave all to the solver
            commuting, self.bases = [], _common_bases([], constraints)
        self.positions = self._solved(commuting)
        chosen = {id(one) for one, _ in commuting}
        left = [(g, is_lie) for g, is_lie in _both(constraints) if id(g) not in chosen]
        self._lie = [self._turned(g) for g, is_lie in left if is_lie]
        self._discrete = [self._turned(g) for g, is_lie in left if not is_lie]

    @property
    def size(self) -> int:
        """Positions s in the sector."""
        return len(self.positions)

    @property
    def is_real(self) -> bool:
        """Whether coordinates and constraints are real."""
        turned = [m for g in (*self._lie, *self._discrete) for m in g]
        return not any(np.iscomplexobj(m) for m in (*self.bases, *turned))

    def expand(self, x: Array) -> Array:
        """Vectors [n, b] from coordinates [s, b]."""
        full = np.zeros((self.n, x.shape[1]), dtype=x.dtype)
        full[self.positions] = x
        return kron_apply([self.bases[kind] for kind in self.axes], full)

    def stacked(self) -> tuple[sparse.csr_array, list[list[Array]]]:
        """The constraints left: a sparse matrix [m, s], and the factors of those too full for one.

        The latter are ``rho(h) - 1`` with h dense on many axes, given by the matrices of each axis.
        """
        parts = [self._kron_sum(generator) for generator in self._lie]
        full = []
        for generator in self._discrete:
            matrices = [generator[kind] for kind in self.axes]
            # numbers in a column of rho(h), against those met when h is applied axis by axis
            fill = math.prod(max(1.0, np.count_nonzero(m) / len(m)) for m in matrices)
            if fill * self.size > _FILL * self.n * sum(self.dims):
                full.append(matrices)
            else:
                parts.append(self._kron_minus_one(generator))
        empty = sparse.csr_array((0, self.size))
        return sparse.csr_array(sparse.vstack([empty, *parts])), full

    def _solved(self, commuting: list[tuple[tuple[Array, ...], bool]]) -> Array:
        """Positions on which the commuting generators act as on an invariant [s]."""
        keep: Array | None = None
        for generator, is_lie in commuting:
            weights = [
                np.einsum("ji,jk,ki->i", u.conj(), m, u)
                for u, m in zip(self.bases, generator, strict=True)
            ]
            value = _combined([weights[kind] for kind in self.axes], keep, self.dims, is_lie)
            good = np.flatnonzero(np.abs(value - (not is_lie)) < _EXACT * len(self.axes))
            keep = good if keep is None else keep[good]
        return np.arange(self.n) if keep is None else keep

    def _turned(self, generator: tuple[Array, ...]) -> tuple[Array, ...]:
        """A generator's matrices in the bases of the axes."""
        turned = [u.conj().T @ m @ u for u, m in zip(self.bases, generator, strict=True)]
        cut = _ZERO * max(float(np.abs(m).max()) for m in turned)
        return tuple(np.where(np.abs(m) > cut, m, 0) for m in turned)

    def _kron_sum(self, generator: tuple[Array, ...]) -> sparse.csr_array:
        """``sum_j 1 (x) A (x) 1`` on the sector, rows that stay zero left out."""
        start = (self.positions, np.arange(self.size), np.ones(self.size))
        parts = [self._step(start, axis, generator) for axis in range(len(self.axes))]
        rows, columns, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _matrix(rows, columns, values, self.size)

    def _kron_minus_one(self, generator: tuple[Array, ...]) -> sparse.csr_array:
        """``h (x) h (x) ... - 1`` on the sector."""
        entries = (self.positions, np.arange(self.size), np.ones(self.size))
        rows, columns, values = entries
        for axis in range(len(self.axes)):
            rows, columns, values = self._step((rows, columns, values), axis, generator)
        return _matrix(
            np.concatenate([rows, entries[0]]),
            np.concatenate([columns, entries[1]]),
            np.concatenate([values, -entries[2]]),
            self.size,
        )

    def _step(
        self, entries: tuple[Array, Array, Array], axis: int, generator: tuple[Array, ...]
    ) -> tuple[Array, Array, Array]:
        """Entries (row, column, value) of a matrix, multiplied from the left along one axis."""
        rows, columns, values = entries
        matrix = generator[self.axes[axis]]
        stride = math.prod(self.dims[axis + 1 :])
        digit = rows // stride % self.dims[axis]
        by_column, to = np.nonzero(matrix.T)
        count = np.bincount(by_column, minlength=len(matrix))
        first = np.cumsum(count) - count
        repeats = count[digit]
        source = np.repeat(np.arange(len(rows)), repeats)
        offset = np.arange(len(source)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        entry = first[digit[source]] + offset
        moved = rows[source] + (to[entry] - digit[source]) * stride
        return moved, columns[source], values[source] * matrix[to[entry], by_column[entry]]


def kron_apply(matrices: Sequence[Array], x: Array) -> Array:
    """``(M1 (x) M2 (x) ...) x`` for columns [n, b], one axis at a time."""
    shape = (*(len(m) for m in matrices), x.shape[1])
    tensor = x.reshape(shape)
    for axis, m in enumerate(matrices):
        if not np.array_equal(m, np.eye(len(m))):
            tensor = np.moveaxis(np.tensordot(m, tensor, axes=(1, axis)), 0, axis)
    return tensor.reshape(x.shape)


def _both(constraints: Constraints) -> list[tuple[tuple[Array, ...], bool]]:
    return [(g, True) for g in constraints.lie] + [(g, False) for g in constraints.discrete]


def _commuting(constraints: Constraints) -> list[tuple[tuple[Array, ...], bool]]:
    """Generators, as many as come along, that are normal and commute on every axis."""
    chosen: list[tuple[tuple[Array, ...], bool]] = []
    for generator, is_lie in _both(constraints):
        others = [one for one, _ in chosen]
        if all(
            _commute(m, other.conj().T if j == 0 else other)
            for kind, m in enumerate(generator)
            for j, other in enumerate([m, *(one[kind] for one in others)])
        ):
            chosen.append((generator, is_lie))
    return chosen


def _commute(a: Array, b: Array) -> bool:
    scale = float(np.abs(a).max() * np.abs(b).max())
    return bool(np.abs(a @ b - b @ a).max() <= _EXACT * max(scale, 1e-300))


def _common_bases(
    commuting: list[tuple[tuple[Array, ...], bool]], constraints: Constraints
) -> list[Array]:
    """For each kind of axis a unitary matrix that makes the commuting matrices diagonal."""
    sizes = [len(m) for m in (*constraints.lie, *constraints.discrete)[0]]
    random = np.random.default_rng(0)
    bases = []
    for kind, size in enumerate(sizes):
        mixed = np.zeros((size, size), dtype=complex)
        for generator, _ in commuting:
            m = generator[kind]
            mixed += random.uniform(0.5, 1.5) * m / max(float(np.abs(m).max()), 1e-300)
        if np.count_nonzero(mixed - np.diag(np.diag(mixed))) == 0:
            bases.append(np.eye(size))
        else:
            bases.append(linalg.schur(mixed, output="complex")[1])
    return bases


def _diagonal(commuting: list[tuple[tuple[Array, ...], bool]], bases: list[Array]) -> bool:
    """Whether every matrix is diagonal in its basis."""
    turned = [u.conj().T @ m @ u for g, _ in commuting for u, m in zip(bases, g, strict=True)]
    return all(
        np.abs(m - np.diag(np.diag(m))).max() <= _EXACT * max(1.0, float(np.abs(m).max()))
        for m in turned
    )


def _combined(
    weights: Sequence[Array], keep: Array | None, dims: tuple[int, ...], is_lie: bool
) -> Array:
    """Sums, or products, of one number per axis, at all positions or at those to keep."""
    combine = np.add if is_lie else np.multiply
    if keep is None:
        value: Array = np.zeros(1) if is_lie else np.ones(1)
        for w in weights:
            value = combine.outer(value, w).ravel()
        return value
    value = np.zeros(len(keep)) if is_lie else np.ones(len(keep))
    for w, digit in zip(weights, np.unravel_index(keep, dims), strict=True):
        value = combine(value, w[digit])
    return value


def _matrix(rows: Array, columns: Array, values: Array, size: int) -> sparse.csr_array:
    used, row = np.unique(rows, return_inverse=True)
    return sparse.csr_array(sparse.coo_array((values, (row, columns)), shape=(len(used), size)))
