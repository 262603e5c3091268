"""A fitted network as a laplace-torch object: same precisions, evidence and noise."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
import priors
import symlearn
from symlearn.fit.evidence import active_groups
from symlearn.fit.result import FitResult
from tests.conftest import need
from tests.fit.problems import blobs
from tests.oracles import assert_near

laplace = need("laplace")


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, outputs),
    )
    return net.double()


def fit(likelihood: str) -> tuple[FitResult, tuple[Tensor, Tensor]]:
    x, y = blobs(80, place=True)
    data = x.double(), y if likelihood == "categorical" else (y - 1.5).double()
    model = symlearn.wrap(network(4 if y is data[1] else 1), data[0][:2], paths=("conv", "ffc"))
    with torch.no_grad():  # both paths take part
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    config = symlearn.FitConfig(
        epochs=2, grow=False, likelihood=likelihood, likelihood_weight=0.8, progress=False
    )
    result = symlearn.fit(model, data, config)
    for i, group in enumerate(result.prior.groups):
        result.prior.set_precision(group, 0.3 * (i + 1))
    if likelihood == "gaussian":
        result = replace(result, likelihood=curvature.Gaussian(0.6))
    return result, data


@pytest.fixture(scope="module", params=["categorical", "gaussian"])
def fitted(request: pytest.FixtureRequest) -> tuple[FitResult, tuple[Tensor, Tensor]]:
    return fit(request.param)


def evidence(result: FitResult, data: tuple[Tensor, Tensor]) -> float:
    """The native engine's, from an exact pass over all data at the learned precisions."""
    found = curvature.kronecker(result.model, data, result.likelihood)
    found = found.scaled(result.config.likelihood_weight)
    names = active_groups(result.prior, found)
    part = priors.PathPrior(
        {name: result.prior.groups[name] for name in names},
        [result.prior.group_precision(name) for name in names],
    )
    params = dict(result.model.named_parameters())
    return priors.log_evidence(found.log_likelihood, found, params, part)


def test_evidence_noise_and_precisions_are_the_fits(fitted: Any) -> None:
    result, data = fitted
    la = result.to_laplace(data)
    assert isinstance(la, laplace.KronLaplace)
    # laplace-torch counts a tempered likelihood's normaliser in full
    spare = (result.config.likelihood_weight - 1) * normaliser(result, data)
    assert_near(la.log_marginal_likelihood() + spare, evidence(result, data), 1e-9)
    assert float(la.sigma_noise) == pytest.approx(result.noise, rel=1e-9)
    known = result.prior.precisions_by_parameter()
    kept = {n: d for (n, p), d in trainable(la).items() if p.requires_grad}
    assert kept
    for name, delta in kept.items():
        assert delta == pytest.approx(known[name], rel=1e-9)
    assert len(set(kept.values())) > 2


def normaliser(result: FitResult, data: tuple[Tensor, Tensor]) -> float:
    if result.likelihood.name == "categorical":
        return 0.0
    zero = torch.zeros(len(data[1]), 1, dtype=torch.float64)
    return float(result.likelihood.log_prob(zero, zero))


def trainable(la: Any) -> dict[tuple[str, nn.Parameter], float]:
    named = [(n, p) for n, p in la.model.named_parameters() if p.requires_grad]
    return dict(zip(named, la.prior_precision.tolist(), strict=True))


def test_the_result_is_left_as_it_was(fitted: Any) -> None:
    result, data = fitted
    before = copy.deepcopy(result.model.state_dict())
    flags = [p.requires_grad for p in result.model.parameters()]
    la = result.to_laplace(data)
    la(data[0][:3], pred_type="nn", link_approx="mc", n_samples=3)
    assert la.model is not result.model
    assert flags == [p.requires_grad for p in result.model.parameters()]
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, before[name])
    frozen = {n for n, p in la.model.named_parameters() if not p.requires_grad}
    assert {"1.weight", "1.bias"} <= frozen  # of the normalisation, which has no prior


def test_any_form_of_data(fitted: Any) -> None:
    result, data = fitted
    want = result.to_laplace(data).log_marginal_likelihood()
    dataset = TensorDataset(*data)
    for form in (dataset, DataLoader(dataset, batch_size=13)):
        assert_near(result.to_laplace(form).log_marginal_likelihood(), want, 1e-10)


def test_options_reach_the_pass(fitted: Any) -> None:
    result, data = fitted
    exact = result.to_laplace(data).log_marginal_likelihood()
    sketch = result.to_laplace(data, estimator="sketch").log_marginal_likelihood()
    reduced = result.to_laplace(data, sharing="reduce").log_marginal_likelihood()
    if result.likelihood.name == "categorical":  # with one output there is nothing to sketch
        assert not torch.equal(exact, sketch)
    assert not torch.equal(exact, reduced)
    with pytest.raises(TypeError, match="unknown options"):
        result.to_laplace(data, batches=3)


def test_predictives(fitted: Any) -> None:
    result, (x, y) = fitted
    la = result.to_laplace((x, y))
    out = la(x[:5])
    if result.likelihood.name == "categorical":
        assert_near(out.sum(1), torch.ones(5, dtype=torch.float64))
    else:
        assert_near(out[0], result.predict_proba(x[:5]))
        assert bool((out[1] > 0).all())


def test_a_path_that_is_off_takes_no_part(fitted: Any) -> None:
    result, data = fitted
    model = copy.deepcopy(result.model)
    model.get_submodule("0").path("ffc").switch_off()
    off = replace(result, model=model)
    la = off.to_laplace(data)
    assert not any("ffc" in name for name, _ in trainable(la))
    spare = (off.config.likelihood_weight - 1) * normaliser(off, data)
    assert_near(la.log_marginal_likelihood() + spare, evidence(off, data), 1e-9)


def test_a_likelihood_that_laplace_does_not_have(fitted: Any) -> None:
    result, data = fitted
    other = replace(result, likelihood=curvature.Bernoulli())
    with pytest.raises(ValueError, match="bernoulli"):
        other.to_laplace(data)
