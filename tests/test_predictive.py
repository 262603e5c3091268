"""Predictions with uncertainty: limits, laws, exact answers, and what the result keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import curvature
import symlearn
from symlearn import FitConfig, FitResult, GaussianPredictive, Posterior, Predictive, predictive
from symlearn.relaxed import relaxed_layers
from tests.cases import case
from tests.fit.problems import blobs, tiny_relaxed
from tests.oracles import assert_near

pytestmark = pytest.mark.core

QUICK = FitConfig(epochs=3, burn_in=0.25, progress=False, batch_size=32)


def posterior(name: str = "mlp", precision: float = 0.7) -> tuple[Posterior, Tensor]:
    """A posterior of a small network, and inputs."""
    model, data = case(name).make()
    blocks = curvature.kronecker(model, data, case(name).likelihood)
    likelihood = curvature.as_likelihood(case(name).likelihood)
    return Posterior(model, blocks, dict.fromkeys(blocks, precision), likelihood), data[0]


def labels(which: Posterior, x: Tensor, **options: Any) -> Predictive:
    found = which.predictive(x, **options)
    assert isinstance(found, Predictive)
    return found


@pytest.fixture(scope="module")
def result() -> FitResult:
    return symlearn.fit(tiny_relaxed(), blobs(), QUICK)


@pytest.mark.parametrize("name", ["mlp", "cnn", "mlp-bernoulli"])
def test_links_are_the_definitions(name: str) -> None:
    """Probit against its formula and the entropies against loops over draws."""
    which, x = posterior(name)
    found = labels(which, x, link="probit", samples=50, seed=3)
    bits = name == "mlp-bernoulli"
    assert_near(found.logits_mean, which.model(x))
    assert_near(found.logits_variance, torch.einsum("nkk->nk", found.logits_covariance))
    kappa = 1 / (1 + math.pi * found.logits_variance / 8).sqrt()
    scaled = kappa * found.logits_mean
    assert_near(found.probs, scaled.sigmoid() if bits else scaled.softmax(1))

    generator = torch.Generator().manual_seed(3)
    k = found.probs.shape[1]
    eps = torch.randn(50, k, generator=generator, dtype=torch.float64)
    sampled = labels(which, x, samples=50, seed=3)
    for n in range(len(x)):
        values, vectors = torch.linalg.eigh(found.logits_covariance[n])
        root = vectors @ torch.diag(values.sqrt()) @ vectors.T
        draws = [found.logits_mean[n] + root @ e for e in eps]
        probs = torch.stack([d.sigmoid() if bits else d.softmax(0) for d in draws])
        assert_near(sampled.probs[n], probs.mean(0))
        if bits:
            entropy = torch.distributions.Bernoulli(probs).entropy().mean(0)
            total = torch.distributions.Bernoulli(probs.mean(0)).entropy()
        else:
            entropy = torch.distributions.Categorical(probs).entropy().mean(0)
            total = torch.distributions.Categorical(probs.mean(0)).entropy()
        assert_near(found.aleatoric[n], entropy)
        assert_near(found.total[n], total)
        assert_near(found.epistemic[n], total - entropy, 1e-8)


def test_draws_have_the_covariance() -> None:
    """Monte Carlo over weights of a linear network agrees with the linearised prediction."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    blocks = curvature.kronecker(model, (x, torch.arange(6) % 3))
    delta = {"weight": 0.5, "bias": 2.0}
    which = Posterior(model, blocks, delta, curvature.Categorical())
    generator, n = torch.Generator().manual_seed(1), 4000
    total = torch.zeros(6, 3, dtype=torch.float64)
    for _ in range(n):
        w, b = (
            p.detach() + blocks[name].sample(delta[name], generator)
            for name, p in model.named_parameters()
        )
        total += (x @ w.T + b).softmax(1)
    got = labels(which, x, link="mc", samples=4000).probs
    assert float((got - total / n).abs().max()) < 0.03
    assert (
        float((model(x).detach().softmax(1) - total / n).abs().max()) > 0.06
    )  # else it says nothing
    assert float((labels(which, x, link="probit").probs - total / n).abs().max()) < 0.05


def test_certain_weights_leave_the_plain_prediction() -> None:
    which, x = posterior(precision=1e14)
    for link in predictive.LINKS:
        found = labels(which, x, link=link)
        assert_near(found.probs, which.model(x).softmax(1), 1e-5)
        assert float(found.epistemic.max()) < 1e-10


def test_uncertainty_grows_with_the_covariance() -> None:
    tight, x = posterior(precision=10)
    loose, _ = posterior(precision=0.1)
    one, two = labels(tight, x), labels(loose, x)
    assert bool((two.logits_variance > one.logits_variance).all())
    assert float(two.epistemic.sum()) > float(one.epistemic.sum()) > 0


def test_a_prediction_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    which, x = posterior()
    whole = labels(which, x, link="mc")
    monkeypatch.setattr(predictive, "_CHUNK", 1)
    again = labels(which, x, link="mc")
    alone = labels(which, x[2:3], link="mc")
    for name in ("probs", "total", "aleatoric", "epistemic"):
        assert_near(getattr(again, name), getattr(whole, name))
        assert_near(getattr(alone, name), getattr(whole, name)[2:3])
    other = labels(which, x, link="mc", seed=1)
    assert not torch.allclose(other.probs, whole.probs)


def test_gaussian_is_bayesian_linear_regression() -> None:
    x, noise = torch.randn(20, 4, dtype=torch.float64), 0.6
    model = nn.Linear(4, 2, bias=False).double()
    likelihood = curvature.Gaussian(noise)
    blocks = curvature.kronecker(model, (x, torch.randn(20, 2)), likelihood)
    found = Posterior(model, blocks, {"weight": 1.7}, likelihood).predictive(2 * x)
    assert isinstance(found, GaussianPredictive)
    inverse = torch.linalg.inv(x.T @ x / noise**2 + 1.7 * torch.eye(4, dtype=torch.float64))
    want = torch.einsum("ni,ij,nj->n", 2 * x, inverse, 2 * x).unsqueeze(1).expand(-1, 2)
    assert_near(found.epistemic, want)
    assert_near(found.variance, want + noise**2)
    assert_near(found.mean, model(2 * x))


def test_predictive_of_a_fit(result: FitResult) -> None:
    x, _ = blobs(30, seed=1)
    found = result.predictive(x)
    assert isinstance(found, Predictive)
    assert_near(found.probs.sum(1), torch.ones(30), 1e-5)
    assert_near(found.logits_mean.softmax(1), result.predict_proba(x), 1e-5)
    assert float(found.epistemic.min()) >= 0
    assert float(found.logits_variance.min()) > 0
    for kind in (x.double(), x.numpy()):
        assert_near(result.predictive(kind).probs, found.probs, 1e-6)
    blank = labels(result.posterior(), torch.randn(30, 1, 8, 8) * 5)
    assert float(blank.logits_variance.mean()) > float(found.logits_variance.mean())


def test_paths_that_are_off_contribute_nothing(result: FitResult) -> None:
    off = [
        f"{name}.paths.{key}"
        for name, layer in relaxed_layers(result.model).items()
        for key, path in layer.named_paths().items()
        if not path.enabled
    ]
    assert off
    assert result.curvature is not None
    assert not [name for name in result.curvature if name.startswith(tuple(off))]
    assert set(result.curvature) <= set(result.prior.precisions_by_parameter())


def test_a_result_from_disk_needs_the_training_data(result: FitResult, tmp_path: Path) -> None:
    x, y = blobs()
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run")
    assert again.curvature is None
    for ask in (again.predictive, lambda x: again.calibration(x, y)):
        with pytest.raises(ValueError, match="pass them: train="):
            ask(x)
    found, want = again.predictive(x, train=(x, y)), result.predictive(x, train=(x, y))
    assert isinstance(found, Predictive)
    assert isinstance(want, Predictive)
    assert_near(found.logits_covariance, want.logits_covariance, 1e-6)
    kept = labels(result.posterior(), x)
    ratio = found.logits_variance.mean() / kept.logits_variance.mean()
    assert 0.5 < float(ratio) < 2  # sketches of the same curvature


def test_other_numbers_of_samples_stand_for_the_training_data(result: FitResult) -> None:
    """Every sample twice says as much as once: the curvature is scaled to the number fitted."""
    x, y = blobs()
    exact = replace(result, config=replace(result.config, report_estimator="exact"))
    once = labels(exact.posterior((x, y)), x)
    twice = labels(exact.posterior((torch.cat([x, x]), torch.cat([y, y]))), x)
    assert_near(twice.logits_covariance, once.logits_covariance, 1e-3)


def test_tempered_fits_are_surer(result: FitResult) -> None:
    x, y = blobs()
    heavy = replace(result, config=replace(result.config, likelihood_weight=4.0))
    one, four = (labels(r.posterior((x, y)), x) for r in (result, heavy))
    assert bool((four.logits_variance < one.logits_variance).all())


def test_gaussian_fit() -> None:
    x, way = blobs()
    config = replace(QUICK, likelihood="gaussian")
    result = symlearn.fit(tiny_relaxed(1), (x, way.float()), config)
    found = result.predictive(x)
    assert isinstance(found, GaussianPredictive)
    assert found.noise == result.noise
    assert_near(found.variance - found.epistemic, torch.full((120, 1), result.noise**2), 1e-4)
    with pytest.raises(ValueError, match="not for a gaussian likelihood"):
        result.calibration(x, way)


@pytest.mark.parametrize("link", ["map", "probit", "mc"])
def test_calibration_of_a_fit(result: FitResult, link: str) -> None:
    x, y = blobs(80, seed=2)
    found = result.calibration(x.numpy(), y.numpy(), link=link, n_bins=6)
    assert found.predictor == link
    if link == "map":
        scores = result.score((x, y))
        probs = result.predict_proba(x)
        assert found.nll == pytest.approx(scores["nll"], rel=1e-5)
        assert found.accuracy == scores["accuracy"]
    else:
        probs = labels(result.posterior(), x, link=link).probs
    want = symlearn.calibration(probs, y, n_bins=6, predictor=link)
    assert found.ece == pytest.approx(want.ece, abs=1e-4)
    assert found.brier == pytest.approx(want.brier, rel=1e-4)


def test_validation_data_put_calibration_into_the_report() -> None:
    x, y = blobs()
    batches = ((x[i : i + 40], y[i : i + 40]) for i in range(0, 120, 40))
    fitted = symlearn.fit(tiny_relaxed(), (x, y), QUICK, validation=batches)
    (found,) = fitted.report.calibration
    assert found.n_data == 120
    assert found.nll == pytest.approx(float(fitted.report.meta["validation_nll"] or 0), rel=1e-5)
    assert "Calibration" in fitted.report.to_html()


def test_bad_input_is_told(result: FitResult) -> None:
    x, y = blobs(10)
    bad: list[tuple[object, str]] = [
        (x[:0], "empty"),
        (x[:, :, :4], "again with an example of this size"),
        (x[0], "again with an example of this size"),
        (x * math.nan, "NaN"),
        (np.array(["a"]), "cannot be read as a tensor"),
        (torch.tensor(1.0), "a single number"),
    ]
    for given, message in bad:
        with pytest.raises(ValueError, match=message):
            result.predictive(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"unknown link 'logit'; choose one of \['mc', 'probit'\]"):
        result.predictive(x, link="logit")
    with pytest.raises(ValueError, match=r"choose one of \['map', 'mc', 'probit'\]"):
        result.calibration(x, y, link="logit")
    with pytest.raises(ValueError, match="samples is 1"):
        result.predictive(x, samples=1)
    with pytest.raises(ValueError, match="class indices"):
        result.calibration(x, y.float())
