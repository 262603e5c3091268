"""Eigendecompositions of factors: small eigenvalues, known ranks, and the way out in double."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curvature import Factor

pytestmark = pytest.mark.core


def graded(n: int = 60, decades: float = 6.0) -> Tensor:
    """Vectors [N, D] whose scales, and so the eigenvalues of their sum, span many decades."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(4 * n, n, generator=generator, dtype=torch.float64)
    return v * torch.logspace(0, -decades / 2, n, dtype=torch.float64)


def test_small_eigenvalues_are_evidence_in_single_precision_too() -> None:
    v = graded()
    want = Factor((v.T @ v).unsqueeze(0)).values
    single = v.float()
    got = Factor((single.T @ single).unsqueeze(0)).values.double()
    for delta in (1e-2, 0.1, 1.0):
        error = (torch.log1p(got / delta).sum() - torch.log1p(want / delta).sum()).abs()
        assert float(error) <= 1e-5 * float(torch.log1p(want / delta).sum())


def test_beyond_the_number_of_vectors_there_is_nothing() -> None:
    v = torch.randn(3, 8)
    values = Factor((v.T @ v).unsqueeze(0), rank=3).values
    assert int((values > 0).sum()) == 3
    assert bool((values >= 0).all())


class Failing:
    """``torch.linalg.eigh`` that fails in single precision, or at first in double as well."""

    def __init__(self, how: str) -> None:
        self.how, self.eigh, self.dtypes = how, torch.linalg.eigh, list[torch.dtype]()

    def __call__(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        self.dtypes.append(matrix.dtype)
        values, vectors = self.eigh(matrix)
        if matrix.dtype == torch.float32:
            if self.how != "wrong values":
                raise torch.linalg.LinAlgError(self.how)
            values = values - 0.1 * values[..., -1:]
        if self.how == "nor in double" and self.dtypes.count(torch.float64) == 1:
            raise torch.linalg.LinAlgError(self.how)
        return values, vectors


@pytest.mark.parametrize("how", ["no convergence", "wrong values", "nor in double"])
def test_double_where_single_precision_fails(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    v = graded(decades=2).float()
    matrix = (v.T @ v).unsqueeze(0)
    want = Factor(matrix).values
    failing = Failing(how)
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    factor = Factor(matrix)
    assert torch.allclose(factor.values, want, rtol=1e-4)
    assert factor.vectors.dtype == torch.float32
    again = factor.vectors * factor.values.unsqueeze(1) @ factor.vectors.mT
    assert torch.allclose(again, matrix, rtol=0, atol=1e-5 * float(matrix.abs().max()))
    tries = 2 if how == "nor in double" else 1
    assert failing.dtypes == [torch.float32, *[torch.float64] * tries]
