"""Eigenvalue correction: the exact diagonal in the factors' eigenbasis."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import KroneckerBlocks, ekfac
from tests.cases import CASES, Case, case
from tests.oracles import assert_near, per_parameter

pytestmark = pytest.mark.core

ALL = pytest.mark.parametrize("which", CASES, ids=str)


@ALL
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_eigenvalues_are_the_exact_diagonal(which: Case, sharing: str) -> None:
    model, data = which.make()
    found = curvature.kronecker(
        model, data, which.likelihood, ekfac=True, sharing=sharing, batch_size=2
    )
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    for name, block in found.items():
        eye = torch.eye(block.shape.numel(), dtype=torch.float64)
        basis = torch.stack([block.unrotate(e).reshape(-1) for e in eye], dim=1)
        assert_near(block.eigenvalues, (basis.T @ exact[name] @ basis).diagonal())
        assert_near(block.eigenvalues.sum(), exact[name].trace())


@ALL
def test_plain_trace_is_not_exact_where_positions_or_samples_differ(which: Case) -> None:
    model, data = which.make()
    found = curvature.kronecker(model, data, which.likelihood)
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    errors = [abs(float(b.eigenvalues.sum() / exact[n].trace()) - 1) for n, b in found.items()]
    assert (max(errors) > 1e-3) == (which.name != "linear-gaussian")


@ALL
def test_correction_is_the_best_in_its_eigenbasis(which: Case) -> None:
    model, data = which.make(n=30)
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    plain, better = (
        curvature.kronecker(model, data, which.likelihood, ekfac=flag) for flag in (False, True)
    )
    for key, matrix in exact.items():
        errors = [float((found[key].to_dense() - matrix).norm()) for found in (plain, better)]
        assert errors[1] <= errors[0] + 1e-12 * float(matrix.norm())
        # the diagonal of a matrix has the larger determinant (Hadamard)
        want = torch.linalg.slogdet(
            matrix + 0.1 * torch.eye(len(matrix), dtype=matrix.dtype)
        ).logabsdet
        assert float(better[key].logdet(0.1)) >= float(want) - 1e-9


@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0])
def test_log_determinant_can_be_closer_to_the_exact_one(delta: float) -> None:
    which = case("shared-linear")
    model, data = which.make(n=30)
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    errors = []
    for flag in (False, True):
        found = curvature.kronecker(model, data, which.likelihood, ekfac=flag)
        wants = {
            n: torch.linalg.slogdet(m + delta * torch.eye(len(m), dtype=m.dtype))[1]
            for n, m in exact.items()
        }
        errors.append(sum(abs(float(b.logdet(delta) - wants[n])) for n, b in found.items()))
    assert errors[1] < errors[0]


@ALL
def test_pieces_give_the_same(which: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = which.make()
    whole = curvature.kronecker(model, data, which.likelihood, ekfac=True)
    monkeypatch.setattr(ekfac, "_CHUNK", 1)
    pieces = curvature.kronecker(model, data, which.likelihood, ekfac=True)
    for name, block in pieces.items():
        assert_near(block.eigenvalues, whole[name].eigenvalues, 1e-12)


@pytest.mark.parametrize("estimator", ["sketch", "mc"])
def test_second_pass_repeats_the_draws(estimator: str) -> None:
    model, data = case("mlp").make(n=1)
    for seed in range(5):
        plain, found = (
            curvature.kronecker(model, data, estimator=estimator, seed=seed, ekfac=flag)
            for flag in (False, True)
        )
        for name, block in found.items():  # with one sample the factors are exact already
            assert_near(block.eigenvalues, plain[name].eigenvalues)


def test_factors_stay_and_correction_does_not_reach_fallbacks() -> None:
    model, data = case("mlp").make()
    head = nn.Sequential(model, nn.BatchNorm1d(3), nn.PReLU(3)).double()
    plain, found = (
        curvature.kronecker(head, data, ekfac=flag, fallback="diagonal") for flag in (False, True)
    )
    for name, block in found.items():
        if isinstance(block, KroneckerBlocks):
            assert_near(block.inputs.matrix, plain[name].inputs.matrix)
            assert block.corrected is not None
            assert block.scaled(2.0).corrected is not None
        else:
            assert_near(block.eigenvalues, plain[name].eigenvalues)


class Branches(nn.Module):
    """One branch is called and thrown away, one is called on two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x[:, 0])
        return self.used(x).tanh().mean(1) + self.used(x[:, 0])


@pytest.mark.parametrize("flag", [False, True])
def test_calls_without_influence_have_no_curvature(flag: bool) -> None:
    model = Branches().double()
    data = torch.randn(5, 4, 3, dtype=torch.float64), torch.zeros(5).long()
    found = curvature.kronecker(model, data, ekfac=flag)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for kind in ("weight", "bias"):
        assert float(found[f"dead.{kind}"].eigenvalues.abs().max()) == 0
        if flag:
            trace = found[f"used.{kind}"].eigenvalues.sum()
            assert_near(trace, exact[f"used.{kind}"].trace())
