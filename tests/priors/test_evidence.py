"""The evidence against assembled matrices, its derivative, and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import curvature
import priors
from priors import PathPrior, effective_parameters, log_evidence, update_noise
from tests.cases import CASES, Case, case
from tests.oracles import assert_near, brute_force_evidence
from tests.priors.blocks import problem

pytestmark = pytest.mark.core

ALL = pytest.mark.parametrize("which", CASES, ids=str)


def setting(which: Case, **options: bool) -> tuple[curvature.KroneckerCurvature, dict[str, Tensor]]:
    model, data = which.make()
    found = curvature.kronecker(model, data, which.likelihood, **options)
    return found, {name: p.detach() for name, p in model.named_parameters()}


def grouped(names: list[str]) -> PathPrior:
    """The first parameter alone, the others tied."""
    groups = {"first": names[:1], "rest": names[1:]} if names[1:] else {"first": names}
    return PathPrior(groups, torch.linspace(0.7, 4.0, len(groups)))


@ALL
@pytest.mark.parametrize("ekfac", [False, True])
def test_evidence_is_the_assembled_matrixs(which: Case, ekfac: bool) -> None:
    found, params = setting(which, ekfac=ekfac)
    prior = grouped(list(found))
    matrices = {name: block.to_dense() for name, block in found.items()}
    by_name = prior.precisions_by_parameter()
    want = brute_force_evidence(found.log_likelihood, matrices, params, by_name)
    assert_near(log_evidence(found.log_likelihood, found, params, prior), want, 1e-9)


def test_parameters_in_no_group_contribute_nothing() -> None:
    found, params = setting(case("mlp"))
    some = PathPrior({"some": ["0.weight", "2.bias"]}, 2.0)
    want = brute_force_evidence(
        found.log_likelihood,
        {name: found[name].to_dense() for name in ("0.weight", "2.bias")},
        params,
        {"0.weight": 2.0, "2.bias": 2.0},
    )
    assert_near(log_evidence(found.log_likelihood, found, params, some), want, 1e-9)


def test_derivative_is_mackays() -> None:
    """``d log p(D) / d log delta = 1/2 (gamma - delta ||theta||^2)`` at fixed weights."""
    spectra, params, groups = problem()
    prior = PathPrior(groups, [0.7, 3.0])
    for i, (name, members) in enumerate(groups.items()):
        values = []
        for h in (1e-4, -1e-4):
            shifted = PathPrior(groups, [0.7, 3.0])
            shifted.log_precision[i] += h
            values.append(log_evidence(0.0, spectra, params, shifted))
        norm = sum(float(params[m].square().sum()) for m in members)
        gamma = effective_parameters(spectra, prior, name)
        want = 0.5 * (gamma - prior.group_precision(name) * norm)
        assert_near((values[0] - values[1]) / 2e-4, want, 1e-6)


@ALL
def test_duplicates_at_half_the_weight_change_nothing(which: Case) -> None:
    model, (x, y) = which.make()
    params = {name: p.detach() for name, p in model.named_parameters()}
    once = curvature.kronecker(model, (x, y), which.likelihood)
    twice = torch.cat([x, x]), torch.cat([y, y])
    half = curvature.kronecker(model, twice, which.likelihood).scaled(0.5)
    found = []
    for each in (once, half):
        prior = grouped(list(each))
        values = [log_evidence(each.log_likelihood, each, params, prior)]
        prior.update(each, params)
        values += [
            *prior.precision.tolist(),
            log_evidence(each.log_likelihood, each, params, prior),
        ]
        values += [effective_parameters(each, prior, group) for group in prior.groups]
        found.append(torch.tensor(values, dtype=torch.float64))
    assert_near(found[1], found[0], 1e-9)


@ALL
def test_effective_parameters_are_a_trace_and_at_most_their_number(which: Case) -> None:
    found, _ = setting(which)
    prior = grouped(list(found))
    for group, members in prior.groups.items():
        delta, want, number = prior.group_precision(group), 0.0, 0
        for name in members:
            h = found[name].to_dense()
            eye = torch.eye(len(h), dtype=h.dtype)
            want += float(torch.linalg.solve(h + delta * eye, h).trace())
            number += len(h)
        gamma = effective_parameters(found, prior, group)
        assert_near(gamma, want, 1e-9)
        assert 0 < gamma <= number
        for extreme, limit in ((1e-8, number), (1e12, 0)):
            prior.set_precision(group, extreme)
            assert 0 <= effective_parameters(found, prior, group) <= number
            assert limit or effective_parameters(found, prior, group) < 1e-6


def test_update_raises_the_evidence_of_the_quadratic_model() -> None:
    found, params = setting(case("mlp"))
    prior = PathPrior({name: [name] for name in found}, 1.0)
    tests = prior.update(found, params)
    for name, test in tests.items():
        lam = found[name].eigenvalues
        # the weights taken as a mode at delta = 1: b = (lambda + 1) theta
        b_sq = ((lam + 1) * found[name].rotate(params[name])).square()
        lam, b_sq = lam[lam > 0], b_sq[lam > 0]
        assert -test.gain <= priors.profile(0.0, lam, b_sq) + 1e-12


def test_missing_curvature_is_named() -> None:
    found, params = setting(case("mlp"))
    prior = PathPrior({"a": ["0.weight", "gone"], "b": ["2.weight", "lost"]})
    with pytest.raises(KeyError, match=r"does not cover \['gone', 'lost'\]"):
        log_evidence(0.0, found, params, prior)
    with pytest.raises(KeyError, match=r"does not cover \['gone'\]"):
        effective_parameters(found, prior, "a")
    with pytest.raises(KeyError, match="no prior group 'z'"):
        effective_parameters(found, prior, "z")


def test_noise_fixed_point() -> None:
    """``sigma^2 = ||y - f||^2 / (N K - gamma)``, and steps in between on the log scale."""
    assert update_noise(8.0, 10, 2.0, 5.0) == pytest.approx(1.0)
    assert update_noise(8.0, 10, 2.0, 4.0, step=0.5) == pytest.approx(2.0)
    assert update_noise(8.0, 10, 2.0, 1.0, step=0.3) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((8.0, 10, 10.0, 1.0), "10.0 effective parameters for 10 targets"),
        ((8.0, 10, 11.0, 1.0), "the noise is not determined"),
        ((8.0, 10, math.nan, 1.0), "the noise is not determined"),
        ((0.0, 10, 2.0, 1.0), "sum of squared residuals is 0.0"),
        ((math.nan, 10, 2.0, 1.0), "sum of squared residuals is nan"),
        ((math.inf, 10, 2.0, 1.0), "sum of squared residuals is inf"),
        ((8.0, 10, 2.0, 0.0), "noise is 0.0"),
        ((8.0, 10, 2.0, math.nan), "noise is nan"),
        ((8.0, 10, 2.0, 1.0, 0.0), "step 0.0"),
    ],
)
def test_noise_that_is_not_determined(args: tuple[float, int, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update_noise(*args)
