"""A stack of symmetric positive semi-definite matrices with one eigendecomposition."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from curvature.gram import accumulator_dtype
from curvature.reduce import Reduction, assigned

_TOLERANCE = 1e-5  # of the trace: more is worth a decomposition in double precision


def check_weight(weight: float) -> float:
    """Return a weight of the likelihood as a float.

    Raises:
        ValueError: If it is not positive and finite.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight of a curvature is {weight}; it must be positive and finite")
    return float(weight)


class _Spectrum:
    """Eigendecomposition of matrices [B, D, D] of at most some rank, made when first needed."""

    def __init__(self, matrix: Tensor, rank: int) -> None:
        self.matrix, self.rank = matrix, rank

    @cached_property
    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues [B, D], never negative, eigenvectors [B, D, D], and what was clamped [B].

        Small eigenvalues are kept: the curvature of many weights rests on them, and each is nearly
        as accurate as the sums in the matrix. Cutting off all that rounding could have made, as for
        a numerical rank, would lose a hundred times more evidence than rounding does.
        """
        self.check()
        found, vectors = _decompose(self.matrix)
        values = found.clamp(min=0)
        values[:, : max(0, values.shape[1] - self.rank)] = 0
        return values, vectors, (values - found).abs().sum(1)

    def check(self) -> None:
        """Refuse matrices that are not finite."""
        if not bool(torch.isfinite(self.matrix).all()):
            raise ValueError("a curvature contains NaN or infinite values")

    @property
    def unknown(self) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros in the place of the decomposition."""
        zeros = self.matrix.new_zeros(self.matrix.shape[:2])
        return zeros, torch.zeros_like(self.matrix), zeros.sum(1)


def _decompose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [B, D] and eigenvectors [B, D, D]; in double where single precision fails.

    LAPACK does not converge in single precision on some factors of saturated networks. A positive
    semi-definite matrix has no negative eigenvalue: their sum tells how large the errors are. On a
    few sparse factors (of windows on maps of one pixel) it does not converge in double either,
    but does with rows and columns in reverse order.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
        trace = matrix.diagonal(dim1=1, dim2=2).sum(1)
        error = values.clamp(max=0).sum(1).abs() + (values.sum(1) - trace).abs()
        if bool((error <= _TOLERANCE * trace).all()):
            return values, vectors
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        pass
    try:
        values, vectors = torch.linalg.eigh(matrix.double())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = torch.linalg.eigh(matrix.double().flip(1, 2))
        vectors = vectors.flip(1)
    return values.to(matrix), vectors.to(matrix)


class Factor:
    """Symmetric PSD matrices [B, D, D] and their eigendecomposition, made once.

    One object may serve two blocks (a weight and its bias share the output factor), and a scaled
    copy shares the eigendecomposition, so that each matrix is decomposed once.

    Args:
        matrix: The matrices, [B, D, D].
        rank: Number of vectors of whose outer products each matrix is the sum, where known: beyond
            it eigenvalues are zero, not rounding.

    Raises:
        ValueError: If they are not square matrices in a stack.
    """

    def __init__(self, matrix: Tensor, rank: int = sys.maxsize) -> None:
        if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
            raise ValueError(f"a factor is a stack [B, D, D], got {list(matrix.shape)}")
        self._spectrum, self._scale = _Spectrum(matrix, rank), 1.0

    @property
    def blocks(self) -> int:
        """Number of matrices B."""
        return len(self._spectrum.matrix)

    @property
    def dim(self) -> int:
        """Rows D of each matrix."""
        return self._spectrum.matrix.shape[-1]

    @property
    def unscaled(self) -> Tensor:
        """The matrices before `scaled`, [B, D, D]: what is in memory."""
        return self._spectrum.matrix

    @property
    def matrix(self) -> Tensor:
        """The matrices, [B, D, D]."""
        return self._spectrum.matrix if self._scale == 1 else self._spectrum.matrix * self._scale

    @property
    def values(self) -> Tensor:
        """Eigenvalues [B, D], ascending, rounding noise set to zero."""
        return self._spectrum.decomposed[0] * self._scale

    @property
    def clamped_mass(self) -> float:
        """Share of the trace that rounding had put into eigenvalues which must be zero."""
        trace = float(self._spectrum.matrix.diagonal(dim1=1, dim2=2).double().sum())
        return float(self._spectrum.decomposed[2].double().sum()) / trace if trace > 0 else 0.0

    @property
    def vectors(self) -> Tensor:
        """Eigenvectors [B, D, D] as columns."""
        return self._spectrum.decomposed[1]

    def scaled(self, factor: float) -> Factor:
        """The matrices times a positive number."""
        other = copy.copy(self)
        other._scale = self._scale * check_weight(factor)
        return other

    def __add__(self, other: Factor) -> Factor:
        rank = self._spectrum.rank + other._spectrum.rank
        return Factor(self.matrix + other.matrix, rank)


def decompose(factors: Iterable[Factor], reduction: Reduction) -> None:
    """Decompose factors, each process a part of them; all processes know all results.

    Args:
        factors: Factors with the same matrices in all processes.
        reduction: The processes; alone, nothing is done before it is needed.

    Raises:
        ValueError: If a matrix is not finite.
    """
    if reduction.size == 1:
        return
    spectra = list({id(f._spectrum): f._spectrum for f in factors}.values())
    for spectrum in spectra:  # all processes find the same here: none waits for one that failed
        spectrum.check()
    sizes = [spectrum.matrix.shape for spectrum in spectra]
    owners = assigned([blocks * dim**3 for blocks, dim, _ in sizes], reduction.size)
    found = [
        spectrum.decomposed if owner == reduction.rank else spectrum.unknown
        for spectrum, owner in zip(spectra, owners, strict=True)
    ]
    # in one memory layout everywhere, on which the rounding of products depends
    found = [(values, vectors.mT.contiguous(), clamped) for values, vectors, clamped in found]
    reduction.sum(*(part for parts in found for part in parts))
    for spectrum, (values, rows, clamped) in zip(spectra, found, strict=True):
        spectrum.decomposed = values, rows.mT, clamped


def rotated(v: Tensor, vectors: Tensor) -> Tensor:
    """Coefficients [..., B, D] of vectors [..., B, D] in eigenbases [B, D, D]."""
    return torch.einsum("...bd,bde->...be", v.to(accumulator_dtype(v)), vectors)
