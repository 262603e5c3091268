"""Estimators: unbiased, or equal to per-sample gradients where factors are exact."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest
import torch

import curvature
from curvature import ESTIMATORS, Gaussian, estimators
from tests.cases import Case, case
from tests.oracles import assert_near, per_parameter, sample_gradients

pytestmark = pytest.mark.core

DRAWN = ("sketch", "mc")


@pytest.mark.parametrize("estimator", DRAWN)
@pytest.mark.parametrize(
    "which", [case(n) for n in ("mlp", "mlp-bernoulli", "shared-linear", "factored")], ids=str
)
def test_drawn_trace_is_unbiased_per_parameter(which: Case, estimator: str) -> None:
    model, data = which.make()
    exact = curvature.kronecker(model, data, which.likelihood)
    drawn = [
        curvature.kronecker(model, data, which.likelihood, estimator, seed=seed, draws=2)
        for seed in range(150)
    ]
    for name, block in exact.items():
        traces = [float(d[name].eigenvalues.sum()) for d in drawn]
        want = float(block.eigenvalues.sum())
        error = 4 * stdev(traces) / len(traces) ** 0.5  # zero where signs cannot change a trace
        assert abs(fmean(traces) - want) <= error + 1e-12 * want, name


@pytest.mark.parametrize("estimator", DRAWN)
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
    vectors = list(ESTIMATORS[estimator](likelihood, f, y, torch.Generator(), 4))
    assert len(vectors) == {"exact": 3, "empirical": 1}.get(estimator, 4)
    assert all(v.shape == f.shape and v.dtype == f.dtype for v in vectors)


def test_seed_decides_the_draws() -> None:
    model, data = case("mlp").make()
    for estimator in DRAWN:
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


def test_sketch_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "_CHUNK", 1)
    f = torch.randn(5, 3, dtype=torch.float64)
    (v,) = ESTIMATORS["sketch"](Gaussian(0.5), f, f, torch.Generator(), 1)
    assert_near(v.abs(), torch.full_like(f, 2.0))  # S is I / sigma, so S r is a sign each
    assert 0 < int((v > 0).sum()) < v.numel()


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
