"""Orthonormal bases of null spaces: by a dense SVD, or by a Krylov method with products only.

Index letters: m rows, s columns of a constraint matrix C, r its nullity, b columns of a block.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[Any]
Product = Callable[[Array], Array]

_NULL, _UNSURE = 1e-9, 1e-6
_CONVERGED = 1e-13
_STEPS = 5000
_FIRST_BLOCK = 16


def dense_null(c: Array) -> Array:
    """The null space of a matrix, by its singular value decomposition.

    Args:
        c: The matrix C [m, s].

    Returns:
        Q [s, r] with ``C Q = 0`` and orthonormal columns.

    Warns:
        UserWarning: If a singular value is neither clearly zero nor clearly not.
    """
    if not c.size:
        return np.eye(c.shape[1])
    triangle = np.linalg.qr(c, mode="r") if c.shape[0] > c.shape[1] else c
    _, sigma, vh = np.linalg.svd(triangle, full_matrices=True)
    sigma = np.concatenate([sigma, np.zeros(c.shape[1] - len(sigma))])
    scale = max(float(sigma[0]), 1e-300)
    _warn_if_unsure(sigma / scale)
    return np.asarray(vh[sigma <= _NULL * scale].conj().T)


def krylov_null(gram: Product, size: int, *, is_real: bool, check: Callable[[int], None]) -> Array:
    """The null space of C by products with ``C^H C`` only (Finzi et al. 2021, Algorithm 1).

    A random block descends on ``|C X|^2`` and ends at its projection on the null space, whose rank
    is the nullity if the block is wide enough. Two steps differ from Algorithm 1. The descent is by
    conjugate gradients instead of a fixed rate, so it needs no rate and ends after as many steps as
    ``C^H C`` has different eigenvalues, which for the full basis of a compact Lie algebra are the
    few values of its Casimir operator. And a block that turns out too narrow is kept: the next one
    only looks for what is missing.

    Args:
        gram: ``X -> C^H C X`` for columns [s, b].
        size: Columns s of C.
        is_real: Whether C is.
        check: Called with the number of columns that are about to be held; may refuse by raising.

    Returns:
        Q [s, r] with ``C Q = 0`` and orthonormal columns.

    Raises:
        ValueError: If the descent does not converge, because some singular values of C are close to
            zero but not zero.
    """
    random = np.random.default_rng(0)
    q = np.zeros((size, 0), dtype=float if is_real else complex)
    while q.shape[1] < size:
        b = min(max(_FIRST_BLOCK, q.shape[1]), size - q.shape[1])
        check(q.shape[1] + b)
        x = random.standard_normal((size, b))
        if not is_real:
            x = x + 1j * random.standard_normal((size, b))
        x = _without(project_null(gram, _without(x, q)), q)
        u, sigma, _ = np.linalg.svd(x, full_matrices=False)
        new = u[:, sigma > _UNSURE * np.sqrt(size)]
        # what is left of other directions grew with 1/sigma: project once more
        new = _without(project_null(gram, new), q)
        q = np.concatenate([q, np.linalg.qr(new)[0]], axis=1)
        if new.shape[1] < b:
            break
    return q


def project_null(gram: Product, x: Array) -> Array:
    """Project columns on the null space of C, by conjugate gradients on ``|C x|^2`` from x.

    Args:
        gram: ``X -> C^H C X``.
        x: Where to start [s, b].

    Raises:
        ValueError: If that does not converge.
    """
    x = x.copy()
    residual = -gram(x)
    direction = residual.copy()
    size = _squares(residual)
    start = np.maximum(_squares(x), 1e-300)
    scale = 0.0  # the largest Rayleigh quotient met stands for the norm of C^H C
    for _ in range(_STEPS):
        if np.sqrt(size / start).max(initial=0.0) <= _CONVERGED * max(scale, 1e-300):
            return x
        along = gram(direction)
        bend = np.einsum("sb,sb->b", direction.conj(), along).real
        length = _squares(direction)
        scale = max(scale, float((bend / np.maximum(length, 1e-300)).max()))
        step = np.where(bend > 0, size / np.where(bend > 0, bend, 1.0), 0.0)
        x += step * direction
        residual -= step * along
        new = _squares(residual)
        direction = residual + np.where(size > 0, new / np.maximum(size, 1e-300), 0.0) * direction
        size = new
    raise ValueError(
        f"the equivariance constraints did not converge in {_STEPS} steps: some singular values "
        "are close to zero but not zero. Rescale the generators, or take exact ones"
    )


def real_basis(q: Array) -> Array:
    """A real orthonormal basis [n, r] of a space that is closed under complex conjugation.

    ``[Re Q, Im Q] [Re Q, Im Q]^T = Re Q Q^H``, the projection itself, so its r nonzero singular
    values are all one.

    Args:
        q: A complex orthonormal basis [n, r] of the space.
    """
    if not np.iscomplexobj(q):
        return q
    parts = np.concatenate([q.real, q.imag], axis=1)
    _, vectors = linalg.eigh(parts.T @ parts)
    return np.asarray(parts @ vectors[:, q.shape[1] :])


def _without(x: Array, q: Array) -> Array:
    """Columns less their part in the span of q."""
    return np.asarray(x - q @ (q.conj().T @ x))


def _squares(x: Array) -> Array:
    """Squared norm of every column [b]."""
    return np.asarray(np.einsum("sb,sb->b", x.conj(), x).real)


def _warn_if_unsure(relative: Array) -> None:
    unsure = relative[(relative > _NULL) & (relative < _UNSURE)]
    if len(unsure):
        warnings.warn(
            f"the rank of the equivariant basis is uncertain: relative singular values "
            f"{unsure[:5]} are neither zero nor clearly not; give the generators more exactly",
            stacklevel=2,
        )
