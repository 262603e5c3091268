"""Estimators: unbiased, or equal to per-sample gradients where factors are exact."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest
import torch

import curvature
from curvature import ESTIMATORS, Categorical, estimators
from tests.cases import Case, case
from tests.oracles import assert_near, per_parameter, sample_gradients

pytestmark = pytest.mark.core

DRAWN = ("sketch", "truncated", "mc")


@pytest.mark.parametrize("estimator", DRAWN)
@pytest.mark.parametrize(
    "which", [case(n) for n in ("mlp", "mlp-bernoulli", "shared-linear", "factored")], ids=str
)
def test_drawn_trace_is_unbiased_per_parameter(which: Case, estimator: str) -> None:
    model, data = which.make()
    exact = curvature.kronecker(model, data, which.likelihood)
    drawn = [
        curvature.kronecker(model, data, which.likelihood, estimator, seed=seed, draws=2, columns=1)
        for seed in range(150)
    ]
    for name, block in exact.items():
        traces = [float(d[name].eigenvalues.sum()) for d in drawn]
        want = float(block.eigenvalues.sum())
        error = 4 * stdev(traces) / len(traces) ** 0.5  # zero where signs cannot change a trace
        assert abs(fmean(traces) - want) <= error + 1e-12 * want, name


@pytest.mark.parametrize("estimator", ["sketch", "mc"])
@pytest.mark.parametrize("which", [case("mlp"), case("linear-gaussian")], ids=str)
def test_many_draws_approach_the_exact_matrices(which: Case, estimator: str) -> None:
    model, data = which.make()
    exact = curvature.kronecker(model, data, which.likelihood)
    errors = []
    for draws in (10, 1000):
        found = curvature.kronecker(model, data, which.likelihood, estimator, draws=draws)
        errors.append(
            max(
                float((found[n].to_dense() - h.to_dense()).norm() / h.to_dense().norm())
                for n, h in exact.items()
            )
        )
    assert errors[1] < 0.15
    assert errors[1] < errors[0] / 3  # a hundred times the draws, a tenth of the error


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", ["categorical", "gaussian", "bernoulli"])
def test_vectors_are_output_shaped(estimator: str, name: str) -> None:
    f = torch.randn(5, 3, dtype=torch.float64)
    y = torch.zeros(5).long() if name == "categorical" else torch.zeros(5, 3)
    likelihood = curvature.as_likelihood(name)
    sampling = estimators.sampling_of(estimator, columns=1, draws=4, seed=0)
    vectors = list(ESTIMATORS[estimator](likelihood, f, y, sampling))
    rank = likelihood.sqrt_hessian(f).masses.shape[1]
    assert len(vectors) == {"exact": rank, "empirical": 1, "truncated": 5}.get(estimator, 4)
    assert all(v.shape == f.shape and v.dtype == f.dtype for v in vectors)


def test_seed_decides_the_draws() -> None:
    model, data = case("mlp").make()
    for estimator in ("sketch", "mc"):
        a, b, c = (
            curvature.kronecker(model, data, estimator=estimator, seed=seed)["0.weight"].to_dense()
            for seed in (0, 0, 1)
        )
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_global_random_state_is_not_touched() -> None:
    model, data = case("mlp").make()
    before = torch.random.get_rng_state()
    for estimator in ESTIMATORS:
        curvature.kronecker(model, data, estimator=estimator)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("columns", [0, 1, 2, 5])
def test_truncated_sends_the_largest_columns_and_one_sketch(columns: int) -> None:
    likelihood, f = Categorical(), torch.randn(5, 6, dtype=torch.float64)
    sampling = estimators.sampling_of("truncated", columns, 1, seed=0)
    vectors = list(ESTIMATORS["truncated"](likelihood, f, f, sampling))
    root = likelihood.sqrt_hessian(f)
    assert len(vectors) == min(columns + 1, 5)
    for v, column in zip(vectors[:columns], root.columns(), strict=False):
        assert_near(v, column)


@pytest.mark.parametrize("which", [case("mlp"), case("linear-gaussian")], ids=str)
def test_truncated_with_all_columns_is_exact(which: Case) -> None:
    model, data = which.make()
    exact = curvature.kronecker(model, data, which.likelihood)
    full = curvature.kronecker(model, data, which.likelihood, "truncated", columns=50)
    for name, block in exact.items():
        assert_near(full[name].to_dense(), block.to_dense(), 1e-14)
    assert full.residual_mass == exact.residual_mass == 0


def test_residual_mass_is_the_share_of_the_trace_that_is_sampled() -> None:
    which = case("mlp")
    model, (x, y) = which.make()
    with torch.no_grad():
        p = model(x).softmax(1)
    trace = float((p * (1 - p)).sum())
    # the first column of a pivoted Cholesky factor is the largest class's
    top = p.max(1, keepdim=True).values
    rest = p.sort(1, descending=True).values[:, 1:]
    first = float((top[:, 0] * (1 - top[:, 0]) + (top / (1 - top) * rest.square()).sum(1)).sum())
    one = curvature.kronecker(model, (x, y), estimator="truncated", columns=1, batch_size=3)
    assert one.output_trace == pytest.approx(trace, rel=1e-12)
    assert one.residual_mass == pytest.approx(1 - first / trace, rel=1e-12)
    assert curvature.kronecker(model, (x, y), estimator="sketch").residual_mass == 1
    assert curvature.kronecker(model, (x, y), estimator="mc").residual_mass == 1
    both = one.scaled(3.0) + curvature.kronecker(model, (x, y))
    assert both.output_trace == pytest.approx(4 * trace, rel=1e-12)
    assert both.residual_mass == pytest.approx(0.75 * (1 - first / trace), rel=1e-12)


@pytest.mark.parametrize("name", ["mlp", "mlp-bernoulli", "linear-gaussian"])
def test_empirical_is_the_outer_product_of_one_samples_gradient(name: str) -> None:
    which = case(name)
    model, data = which.make(n=1)
    found = curvature.kronecker(model, data, which.likelihood, "empirical")
    for key, rows in sample_gradients(model, data, which.likelihood).items():
        assert_near(found[key].to_dense(), rows.T @ rows)


def test_empirical_of_a_bias_is_the_sum_over_samples() -> None:
    which = case("mlp")
    model, data = which.make(n=6)
    found = curvature.kronecker(model, data, which.likelihood, "empirical")
    for key, rows in sample_gradients(model, data, which.likelihood).items():
        if key.endswith("bias"):
            assert_near(found[key].to_dense(), rows.T @ rows)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fallbacks_use_the_same_estimator(estimator: str) -> None:
    model, data = case("mlp").make(n=4)
    for p in model[0].parameters():
        p.requires_grad_(False)

    class Head(torch.nn.Linear):
        """No rule is registered for this subclass."""

    head = Head(5, 3).double()
    head.load_state_dict(model[2].state_dict())
    other = torch.nn.Sequential(model[0], model[1], head)
    found = curvature.kronecker(other, data, estimator=estimator, fallback="dense", seed=3)
    plain = curvature.kronecker(model, data, estimator=estimator, seed=3)
    assert_near(found["2.bias"].to_dense(), plain["2.bias"].to_dense())
    if estimator == "exact":
        exact = per_parameter(model, curvature.dense_ggn(model, data))
        assert_near(found["2.weight"].to_dense(), exact["2.weight"])


def test_unknown_estimator() -> None:
    model, data = case("mlp").make()
    with pytest.raises(ValueError, match=r"unknown estimator 'hutchinson'.*'empirical', 'exact'"):
        curvature.kronecker(model, data, estimator="hutchinson")
    with pytest.raises(ValueError, match="draws is 0"):
        curvature.kronecker(model, data, estimator="mc", draws=0)
    with pytest.raises(ValueError, match="columns is -1"):
        curvature.kronecker(model, data, estimator="truncated", columns=-1)
