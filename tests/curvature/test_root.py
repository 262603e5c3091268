"""Square roots of output Hessians: against the matrices themselves, also where they saturate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curvature.root import DiagonalRoot, SoftmaxRoot
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def softmax_hessian(logits: Tensor) -> Tensor:
    p = logits.double().softmax(1)
    return torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)


@settings(deadline=None, max_examples=50)
@given(
    k=st.integers(2, 9),
    scale=st.floats(0, 30),
    seed=st.integers(0, 1000),
)
def test_softmax_root_squares_to_the_hessian(k: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(4, k, generator=generator, dtype=torch.float64)
    columns = SoftmaxRoot(logits).dense()
    assert columns.shape == (k - 1, 4, k)
    error = torch.einsum("cnk,cnl->nkl", columns, columns) - softmax_hessian(logits)
    assert float(error.abs().max()) <= 1e-15  # the matrix itself has this rounding


def test_columns_are_pivoted_choleskys() -> None:
    """Each column is the largest pivot's of what the columns before it have left."""
    logits = torch.randn(6, 5, dtype=torch.float64)
    rest = whole = softmax_hessian(logits)
    for column in SoftmaxRoot(logits).columns():
        pivot = rest.diagonal(dim1=1, dim2=2).argmax(1)
        mine = rest[torch.arange(6), pivot]
        want = mine / mine[torch.arange(6), pivot].sqrt().unsqueeze(1)
        # of the last two classes both are: up to sign
        square = column.unsqueeze(2) * column.unsqueeze(1)
        assert_near(square, want.unsqueeze(2) * want.unsqueeze(1), 1e-9)
        rest = rest - square
    assert float(rest.abs().max()) <= 1e-15 * len(whole)


def test_masses_are_squared_norms_that_fall() -> None:
    for root in (
        SoftmaxRoot(2 * torch.randn(7, 6, dtype=torch.float64)),
        DiagonalRoot(torch.rand(7, 6, dtype=torch.float64)),
    ):
        assert_near(root.masses, root.dense().square().sum(2).T, 1e-12)
        assert bool((root.masses.diff(dim=1) <= 1e-12).all())


@pytest.mark.parametrize("make", [SoftmaxRoot, DiagonalRoot])
def test_times_is_the_weighed_sum_of_columns(make: type) -> None:
    root = make(torch.rand(5, 4, dtype=torch.float64))
    weights = torch.randn(root.masses.shape, dtype=torch.float64)
    assert_near(root.times(weights), torch.einsum("cnk,nc->nk", root.dense(), weights), 1e-13)


def test_saturated_outputs_keep_their_curvature_in_single_precision() -> None:
    logits = torch.tensor([[30.0, 0.0, -2.0], [0.0, 60.0, 1.0]])
    columns = SoftmaxRoot(logits).dense().double()
    got = torch.einsum("cnk,cnl->nkl", columns, columns)
    # the smaller classes' curvature, to single precision of its own size
    want = softmax_hessian(logits.double())
    for n, k in ((0, 1), (0, 2), (1, 0), (1, 2)):
        assert float(got[n, k, k]) == pytest.approx(float(want[n, k, k]), rel=1e-5)


def test_masses_of_saturated_outputs_in_single_precision() -> None:
    logits = torch.tensor([[50.0, 16.7, 0.0, -50.0], [40.0, -30.0, -31.0, -60.0]])
    masses, want = SoftmaxRoot(logits).masses.double(), SoftmaxRoot(logits.double()).masses
    assert torch.allclose(masses, want, rtol=1e-5, atol=1e-40)


def test_certain_outputs_have_no_curvature_and_no_nan() -> None:
    root = SoftmaxRoot(torch.tensor([[0.0, -500.0, -500.0], [0.0, 0.0, -500.0]]))
    assert not bool(root.masses[0].any())
    assert bool(torch.isfinite(root.dense()).all())
    assert float(root.masses[1].sum()) == pytest.approx(0.5)


def test_one_class_has_no_columns() -> None:
    root = SoftmaxRoot(torch.zeros(3, 1))
    assert list(root.columns()) == []
    assert root.dense().shape == (0, 3, 1)
