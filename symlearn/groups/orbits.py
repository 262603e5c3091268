"""Invariants of signed permutations: one vector per orbit, found by walking, without a solver.

Index letters: k axes, n positions of a tensor product of axes, r orbits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Array = NDArray[Any]


def is_signed_permutation(matrix: Array) -> bool:
    """Whether a matrix has one entry +1 or -1 in each row and column, and zeros elsewhere."""
    hit = np.abs(matrix) > 0
    return bool(
        not np.iscomplexobj(matrix)
        and (hit.sum(0) == 1).all()
        and (hit.sum(1) == 1).all()
        and (np.abs(matrix[hit]) == 1).all()
    )


def is_permutation(matrix: Array) -> bool:
    """Whether a matrix has one entry +1 in each row and column, and zeros elsewhere."""
    return is_signed_permutation(matrix) and bool(matrix.min() >= 0)


def orbit_basis(generators: Sequence[Sequence[Array]], dims: Sequence[int]) -> sparse.csr_array:
    """An orthonormal basis of ``{v: (h1 (x) h2 (x) ...) v = v for every generator}``.

    A vector is constant along an orbit, up to the signs met on the way. An orbit on which some way
    returns to its start with the other sign carries no vector.

    Args:
        generators: For every generator its signed permutation matrices, one per axis [d, d].
        dims: Sizes d of the axes.

    Returns:
        A sparse matrix [n, r] with at most one number per row.
    """
    n = math.prod(dims)
    moves = [_move(matrices) for matrices in generators]
    # in the double cover the nodes i and i + n stand for +e_i and -e_i
    signed = any((sign < 0).any() for _, sign in moves)
    here = np.arange(n)
    ends = [
        np.concatenate([target + n * (sign < 0), target + n * (sign > 0)]) if signed else target
        for target, sign in moves
    ]
    size = 2 * n if signed else n
    starts = np.tile(np.arange(size), len(ends))
    ones = np.ones(len(starts), dtype=np.int8)
    stop = np.concatenate(ends) if ends else np.zeros(0, dtype=int)
    graph = sparse.coo_array((ones, (starts, stop)), shape=(size, size))
    _, label = csgraph.connected_components(graph.tocsr(), directed=False)
    plus, minus = (label[:n], label[n:]) if signed else (label, np.full(n, -1))
    # each orbit has two copies in the cover; the one with the smaller label names it
    alive = plus != minus
    orbit = np.where(minus < 0, plus, np.minimum(plus, minus))[alive]
    sign = np.where((minus < 0) | (plus < minus), 1.0, -1.0)[alive]
    _, column, count = np.unique(orbit, return_inverse=True, return_counts=True)
    values = sign / np.sqrt(count[column])
    return sparse.csr_array((values, (here[alive], column)), shape=(n, len(count)))


def _move(matrices: Sequence[Array]) -> tuple[Array, Array]:
    """Where a Kronecker product of signed permutations sends each position, and the signs [n]."""
    target, sign = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int8)
    for matrix in matrices:
        to = np.abs(matrix).argmax(0)
        signs = np.sign(matrix[to, np.arange(len(to))]).astype(np.int8)
        target = (target[:, None] * len(to) + to).ravel()
        sign = (sign[:, None] * signs).ravel()
    return target, sign
