"""A stack of symmetric positive semi-definite matrices with one eigendecomposition."""

from __future__ import annotations

import copy
import math
from functools import cached_property

import torch
from torch import Tensor


def check_weight(weight: float) -> float:
    """Return a weight of the likelihood as a float.

    Raises:
        ValueError: If it is not positive and finite.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight of a curvature is {weight}; it must be positive and finite")
    return float(weight)


class _Spectrum:
    """Eigendecomposition of matrices [B, D, D], made when it is first needed."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @cached_property
    def decomposed(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [B, D], rounding noise set to zero, and eigenvectors [B, D, D]."""
        if not bool(torch.isfinite(self.matrix).all()):
            raise ValueError("a curvature contains NaN or infinite values")
        # single precision LAPACK fails to converge on some factors of saturated networks
        values, vectors = (part.to(self.matrix) for part in torch.linalg.eigh(self.matrix.double()))
        # below this, eigenvalues of a PSD matrix are rounding: a rank-deficient factor would
        # otherwise contribute noise that small precisions turn into evidence
        noise = values.shape[-1] * torch.finfo(values.dtype).eps * values[..., -1:].clamp(min=0)
        return torch.where(values > noise, values, 0.0), vectors


class Factor:
    """Symmetric PSD matrices [B, D, D] and their eigendecomposition, made once.

    One object may serve two blocks (a weight and its bias share the output factor), and a scaled
    copy shares the eigendecomposition, so that each matrix is decomposed once.

    Args:
        matrix: The matrices, [B, D, D].

    Raises:
        ValueError: If they are not square matrices in a stack.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
            raise ValueError(f"a factor is a stack [B, D, D], got {list(matrix.shape)}")
        self._spectrum, self._scale = _Spectrum(matrix), 1.0

    @property
    def blocks(self) -> int:
        """Number of matrices B."""
        return len(self._spectrum.matrix)

    @property
    def dim(self) -> int:
        """Rows D of each matrix."""
        return self._spectrum.matrix.shape[-1]

    @property
    def matrix(self) -> Tensor:
        """The matrices, [B, D, D]."""
        return self._spectrum.matrix if self._scale == 1 else self._spectrum.matrix * self._scale

    @property
    def values(self) -> Tensor:
        """Eigenvalues [B, D], ascending, rounding noise set to zero."""
        return self._spectrum.decomposed[0] * self._scale

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
        return Factor(self.matrix + other.matrix)
