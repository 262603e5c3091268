"""Symmetries of linear regression: Theorem 1, Corollary 1, and data with a known symmetry."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from symlearn.generators import regression_symmetry

pytestmark = pytest.mark.core
OPTIONS: dict[str, Any] = {"dtype": torch.float64}


def problem(
    n: int = 400, d: int = 5, c: int = 3, rank: int = 2, noise: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Correlated inputs, and labels that are linear in ``rank`` directions of them."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, **OPTIONS}
    mixed = torch.randn(d, d, **options)
    a = torch.randn(c, rank, **options) @ torch.randn(rank, d, **options)
    x = torch.randn(n, d, **options) @ mixed
    return x, x @ a.T + noise * torch.randn(n, c, **options)


def slow_algebra(x: Tensor, y: Tensor, invariant: bool) -> Tensor:
    """All (L, M) with both conditions: the null space of the linear system, as [k, d d + c c]."""
    (n, d), c = x.shape, y.shape[1]
    h, cross = x.T @ x / n, y.T @ x / n
    columns = []
    for i in range(d * d):
        moved = torch.eye(d * d, **OPTIONS)[i].reshape(d, d)
        columns.append(
            torch.cat([(moved @ h + h @ moved.T).flatten(), (cross @ moved.T).flatten()])
        )
    for i in range(0 if invariant else c * c):
        m = torch.eye(c * c, **OPTIONS)[i].reshape(c, c)
        columns.append(torch.cat([torch.zeros(d * d, **OPTIONS), (m @ cross).flatten()]))
    system = torch.stack(columns, 1)
    _, s, v = torch.linalg.svd(system)
    s = torch.cat([s, torch.zeros(len(v) - len(s), **OPTIONS)])
    return v[s < 1e-10 * s.max()]


@pytest.mark.parametrize(
    ("d", "c", "rank"), [(5, 3, 2), (4, 1, 1), (6, 4, 3), (3, 3, 3), (5, 2, 2)]
)
@pytest.mark.parametrize("labels", ["invariant", "equivariant"])
def test_the_algebra_is_the_null_space_of_both_conditions(
    labels: str, d: int, c: int, rank: int
) -> None:
    x, y = problem(d=d, c=c, rank=rank)
    found = regression_symmetry(x, y, labels)
    assert found.rank == rank
    h, cross = found.second_moment, found.cross_moment
    for one, m in zip(found.generators, found.label_generators, strict=True):
        torch.testing.assert_close(one @ h, -h @ one.T, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(m @ cross, -cross @ one.T, rtol=1e-9, atol=1e-9)
        assert max(found.violation(one, m)) < 1e-9
    invariant = labels == "invariant"
    slow = slow_algebra(x, y, invariant)
    # M is not determined on labels without signal: compare the L alone
    kept = slow[:, : d * d]
    assert int(torch.linalg.matrix_rank(kept, rtol=1e-8)) == len(found.generators)
    both = torch.cat([kept, found.generators.flatten(1)])
    assert int(torch.linalg.matrix_rank(both, rtol=1e-8)) == len(found.generators)
    pairs = (d - rank) * (d - rank - 1) // 2 + (0 if invariant else rank * (rank - 1) // 2)
    assert len(found.generators) == pairs


def test_the_group_leaves_covariance_and_prediction_alone() -> None:
    """Theorem 1: with ``u = exp(L)``, ``u_c = exp(M)`` the fitted map is equivariant."""
    x, y = problem(d=6, c=3, rank=3)
    found = regression_symmetry(x, y, "equivariant")
    a = torch.linalg.lstsq(x, y).solution.T
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(len(found.generators), generator=generator, **OPTIONS)
    u = torch.linalg.matrix_exp(torch.einsum("k,kij->ij", mix, found.generators))
    u_c = torch.linalg.matrix_exp(torch.einsum("k,kij->ij", mix, found.label_generators))
    assert float((u - torch.eye(6)).abs().max()) > 0.3
    h = found.second_moment
    torch.testing.assert_close(u @ h @ u.T, h)
    torch.testing.assert_close(u_c @ a @ x.T, a @ u @ x.T)


def test_corollary_1_is_the_algebra_of_the_covariance() -> None:
    """Labels that say nothing leave ``H^1/2 so(d) H^-1/2`` whole."""
    x, _ = problem()
    found = regression_symmetry(x, torch.zeros(len(x), 1, **OPTIONS))
    assert found.rank == 0
    assert len(found.generators) == 10
    values, vectors = torch.linalg.eigh(found.second_moment)
    root = (vectors * values.sqrt()) @ vectors.T
    bases = []
    for a, b in itertools.combinations(range(5), 2):
        turn = torch.zeros(5, 5, **OPTIONS)
        turn[a, b], turn[b, a] = 1.0, -1.0
        bases.append(root @ turn @ torch.linalg.inv(root))
    both = torch.cat([torch.stack(bases).flatten(1), found.generators.flatten(1)])
    assert int(torch.linalg.matrix_rank(both, rtol=1e-8)) == 10


def rotated(n: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (a, b, c) with a symmetric second moment in (a, b), and a label of c alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, **OPTIONS) * torch.tensor([1.0, 1.0, 2.0])
    return x, x[:, 2:] + noise * torch.randn(n, 1, generator=generator, **OPTIONS)


TURN = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], **OPTIONS)


def test_a_known_rotation_is_found_in_noisy_samples() -> None:
    x, y = rotated(4000, 0.5, 0)
    found = regression_symmetry(x, y)
    assert found.rank == 1
    (only,) = found.generators
    cosine = (only * TURN).sum() / only.norm() / TURN.norm()
    assert abs(float(cosine)) > 0.99
    assert max(found.violation(TURN)) < 0.05
    other = TURN.roll(1, 0).roll(1, 1)  # turns b into c, which the label sees
    assert max(found.violation(other)) > 0.5


def test_the_error_falls_with_the_root_of_the_number_of_samples() -> None:
    errors = []
    for n in (500, 8000):
        per_seed = []
        for seed in range(20):
            x, y = rotated(n, 0.5, seed)
            (only,) = regression_symmetry(x, y).generators
            only = only / only.norm()
            aligned = only * (only * TURN).sum().sign()
            per_seed.append(float((aligned - TURN / TURN.norm()).norm()))
        errors.append(sum(per_seed) / len(per_seed))
    assert 2.8 < errors[0] / errors[1] < 5.6  # 4 expected
    assert errors[1] < 0.05


def test_noise_does_not_count_as_signal() -> None:
    """Three labels, one direction of signal: without a threshold the rank would be three."""
    for seed in range(10):
        x, y = problem(n=300, d=5, c=3, rank=1, noise=0.5, seed=seed)
        found = regression_symmetry(x, y)
        assert found.rank == 1, seed
        assert len(found.generators) == 6
        assert float(found.singular_values[1]) < found.threshold < float(found.singular_values[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: regression_symmetry(torch.ones(3), torch.ones(3)), ValueError, r"\[N, d\]"),
        (lambda: regression_symmetry(torch.randn(4, 2), torch.ones(3)), ValueError, r"\[N, d\]"),
        (lambda: regression_symmetry(torch.randn(3, 5), torch.ones(3)), ValueError, "more samples"),
        (lambda: regression_symmetry(torch.ones(9, 2), torch.ones(9)), ValueError, "singular"),
        (
            lambda: regression_symmetry(torch.randn(9, 2), torch.ones(9), "spam"),
            ValueError,
            "'invariant'",
        ),
        (lambda: regression_symmetry(torch.randn(9, 2) / 0, torch.ones(9)), ValueError, "infinite"),
        (lambda: regression_symmetry([[1.0]], torch.ones(1)), TypeError, "tensors"),  # type: ignore[arg-type]
        (
            lambda: regression_symmetry(*problem()).violation(torch.eye(4)),
            ValueError,
            "from 5 to 3 numbers",
        ),
    ],
)
def test_bad_input(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
