"""Closure and overlap of generators of low rank, against dense matrices."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from symlearn.generators.closure import closure, overlap

pytestmark = pytest.mark.core


def factors(n: int = 3, sites: int = 7, rank: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, sites, rank, generator=generator, dtype=torch.float64)
    v = torch.randn(n, rank, sites, generator=generator, dtype=torch.float64)
    return u.requires_grad_(), v.requires_grad_()


def slow_closure(u: Tensor, v: Tensor) -> float:
    """Bracket by bracket, by least squares on dense matrices."""
    given = (u @ v).detach()
    rows = torch.cat([given.flatten(1), torch.eye(u.shape[1], dtype=u.dtype).reshape(1, -1)])
    total = 0.0
    for i, j in itertools.combinations(range(len(u)), 2):
        bracket = (given[i] @ given[j] - given[j] @ given[i]).flatten()
        best = torch.linalg.lstsq(rows.T, bracket.unsqueeze(1), driver="gelsd").solution[:, 0]
        rest = (bracket - best @ rows).square().sum()
        total += float(rest / given[i].square().sum() / given[j].square().sum())
    return total


@pytest.mark.parametrize(("n", "sites", "rank"), [(3, 7, 2), (4, 6, 3), (2, 5, 5), (1, 4, 2)])
def test_closure_is_that_of_dense_matrices(n: int, sites: int, rank: int) -> None:
    u, v = factors(n, sites, rank)
    assert closure(u, v).item() == pytest.approx(slow_closure(u, v), rel=1e-5, abs=1e-12)
    assert n == 1 or closure(u, v).item() > 0.01


def test_a_lie_algebra_closes() -> None:
    so3 = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, (a, b) in enumerate([(1, 2), (2, 0), (0, 1)]):
        so3[i, a, b], so3[i, b, a] = -1.0, 1.0
    mixed = torch.einsum("ij,jab->iab", torch.randn(3, 3, dtype=torch.float64), so3)
    mixed = mixed + 2 * torch.eye(3)
    eye = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    assert float(closure(mixed, eye)) == pytest.approx(0.0, abs=1e-5)


def test_overlap_is_that_of_dense_matrices() -> None:
    u, v = factors()
    given = (u @ v).detach().flatten(1)
    cosines = torch.corrcoef(torch.cat([given, -given], 1))  # centred: the plain cosines
    assert overlap(u, v).item() == pytest.approx(float(cosines.square().triu(1).sum()))


def test_scale_does_not_matter_and_gradients_are_right() -> None:
    u, v = factors()
    scale = torch.tensor([0.1, 3.0, 7.0], dtype=torch.float64).reshape(3, 1, 1)
    for energy in (closure, overlap):
        torch.testing.assert_close(energy(scale * u, v), energy(u, v), rtol=1e-6, atol=1e-9)
        assert torch.autograd.gradcheck(energy, (u, v))


def test_generators_that_are_zero_or_parallel_are_finite() -> None:
    u, v = factors()
    with torch.no_grad():
        u[0], v[0], v[2] = 0, 0, v[1]
        u[2] = u[1]
    for energy in (closure, overlap):
        value = energy(u, v)
        grads = torch.autograd.grad(value, (u, v))
        assert all(bool(torch.isfinite(t).all()) for t in (value, *grads))
    assert overlap(u, v).item() == pytest.approx(1.0)
