"""Projectors: adjoint, orthonormality at the stated order, and what they never build."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from symlearn.certify import projectors
from symlearn.certify.projectors import DEVIATION, PROJECTORS, Kronecker, Projector, Space
from tests.oracles import assert_near

pytestmark = pytest.mark.core

SHAPES = [(9, 100), (20, 99), (12, 12), (17, 29), (1, 1), (2, 3)]
# a Kronecker sum spans 2 sqrt(D) - 1 dimensions
CASES = [
    (name, dim, size)
    for name in PROJECTORS
    for dim, size in SHAPES
    if name != "kronecker-sum" or dim < 2 * math.isqrt(size)
]


def made(name: str, dim: int, size: int, seed: int = 0) -> Projector:
    film = tuple(range(size // 2, size))
    return PROJECTORS[name](Space(dim, size, film, seed), torch.float64)


def matrix(projector: Projector) -> Tensor:
    """P [D, d], column by column."""
    unit = torch.eye(projector.space.dim, dtype=torch.float64)
    return torch.stack([projector @ column for column in unit], 1)


@pytest.mark.parametrize(("name", "dim", "size"), CASES)
def test_adjoint_and_linearity(name: str, dim: int, size: int) -> None:
    projector = made(name, dim, size)
    g = torch.Generator().manual_seed(1)
    w, v = (torch.randn(n, generator=g, dtype=torch.float64) for n in (dim, size))
    assert_near((projector @ w) @ v, w @ projector.adjoint(v), tol=1e-10)
    p = matrix(projector)
    assert_near(projector @ w, p @ w)
    assert_near(projector.adjoint(v), p.T @ v)
    # every coefficient does something
    assert float(p.square().sum(0).min()) > 0


def test_kronecker_is_the_product_of_its_definition() -> None:
    projector = made("kronecker", 9, 100)
    assert isinstance(projector, Kronecker)
    outer, inner = (
        projector.space.normal(what, 10, 3).double() / math.sqrt(10) for what in ("outer", "inner")
    )
    assert_near(matrix(projector), torch.kron(outer, inner))


def test_kronecker_padding_is_a_dense_block_on_the_diagonal() -> None:
    p = matrix(made("kronecker", 11, 105))  # 9 of 100, and 2 of 5
    assert float(p[:100, 9:].abs().max()) == 0
    assert float(p[100:, :9].abs().max()) == 0
    assert int(torch.linalg.matrix_rank(p)) == 11
    p = matrix(made("kronecker", 11, 100))  # 100 has no rows left: 9 of 81, and 2 of 19
    assert float(p[81:, 9:].abs().min()) > 0


def test_kronecker_sum_is_the_sum_of_its_definition() -> None:
    projector = made("kronecker-sum", 5, 16)
    inner, outer = (
        projector.space.normal(what, 4, 5).double() for what in ("sum inner", "sum outer")
    )
    ones = torch.ones(4, 1, dtype=torch.float64)
    want = (torch.kron(ones, inner) + torch.kron(outer, ones)) / math.sqrt(32)
    assert_near(matrix(projector), want)


def test_film_moves_nothing_else() -> None:
    p = matrix(made("film", 6, 30))
    assert float(p[:15].abs().max()) == 0
    assert float(p[15:].abs().min()) > 0
    parts = [matrix(made(name, 6, 30)) for name in ("film", "kronecker")]
    assert_near(matrix(made("film+kronecker", 6, 30)), (parts[0] + parts[1]) / math.sqrt(2))


def deviation(name: str, size: int) -> float:
    """Root mean square of ``P^T P - I`` over several seeds."""
    squares = []
    for seed in range(12):
        p = matrix(made(name, 9, size, seed))
        squares.append((p.T @ p - torch.eye(9, dtype=torch.float64)).square().mean())
    return float(torch.stack(squares).mean().sqrt())


@pytest.mark.parametrize("name", DEVIATION)
def test_orthonormal_at_the_stated_order(name: str) -> None:
    small, large = 144, 144 * 64
    first, second = deviation(name, small), deviation(name, large)
    order = math.log(first / second) / math.log(large / small)
    assert second < 0.3
    assert abs(order - DEVIATION[name]) < 0.1, f"order {order:.2f}"


def test_seeds_and_dimensions() -> None:
    for name in PROJECTORS:
        w = torch.ones(4, dtype=torch.float64)
        first, again, other = (made(name, 4, 40, seed) @ w for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)


def test_dense_in_blocks_is_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projectors, "_BLOCK", 40)
    projector = made("dense", 4, 35)  # four blocks of at most ten rows
    assert projector._held is None  # type: ignore[attr-defined]
    p = matrix(projector)
    assert p.shape == (35, 4)
    assert_near(projector.adjoint(torch.ones(35).double()), p.sum(0))
    assert abs(float(p.std()) * math.sqrt(35) - 1) < 0.2


def test_a_kronecker_product_is_never_built() -> None:
    projector = PROJECTORS["kronecker"](Space(10_000, 10_000_000, (), 0))
    held = sum(v.numel() for v in vars(projector).values() if isinstance(v, Tensor))
    assert held < 1_000_000  # 2 sqrt(d D) = 632,000, and the padding
    assert (projector @ torch.ones(10_000)).shape == (10_000_000,)


@pytest.mark.parametrize(
    ("name", "dim", "size", "said"),
    [
        ("kronecker", 5, 4, "does not fit 4"),
        ("kronecker-sum", 30, 100, "spans at most 19"),
        ("dense", 0, 4, "dimension of the subspace is 0"),
    ],
)
def test_what_does_not_fit(name: str, dim: int, size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(name, dim, size)


def test_wrong_shapes_and_no_head() -> None:
    projector = made("kronecker", 4, 40)
    with pytest.raises(ValueError, match=r"\[5\]; it takes \[4\]"):
        projector @ torch.ones(5)
    with pytest.raises(ValueError, match=r"\[4\]; it takes \[40\]"):
        projector.adjoint(torch.ones(4))
    for name in ("film", "film+kronecker"):
        with pytest.raises(ValueError, match="neither normalisation layers nor a head"):
            PROJECTORS[name](Space(4, 40))
