"""PathPrior: densities, vectors, state, and how updates move precisions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import priors
from priors import PathPrior, profile
from tests.oracles import assert_near
from tests.priors.blocks import problem, spectrum

pytestmark = pytest.mark.core

GROUPS = {"conv": ["w"], "head": ["v", "b"]}


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (2, 3), "free": (5,), "v": (4,), "b": ()}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def test_log_prob_is_the_gaussians() -> None:
    params, prior = weights(), PathPrior(GROUPS, [0.3, 7.0])
    want = sum(
        torch.distributions.Normal(0.0, variance**0.5).log_prob(params[name]).sum()
        for members, variance in zip(GROUPS.values(), prior.variance, strict=True)
        for name in members
    )
    assert_near(prior.log_prob(params), want, 1e-12)


def test_log_prob_has_gradients() -> None:
    params = {name: p.requires_grad_(True) for name, p in weights().items()}
    prior = PathPrior(GROUPS, [0.3, 7.0])
    grads = torch.autograd.grad(prior.log_prob(params), [params["w"], params["v"], params["b"]])
    for g, delta, name in zip(grads, (0.3, 7.0, 7.0), ("w", "v", "b"), strict=True):
        assert_near(g, -delta * params[name], 1e-12)


def test_log_prob_names_what_is_missing() -> None:
    params = weights()
    del params["w"], params["b"]
    with pytest.raises(KeyError, match=r"lack \['w', 'b'\], which are in prior groups"):
        PathPrior(GROUPS).log_prob(params)


def test_precision_vector_follows_the_parameters() -> None:
    params, prior = weights(), PathPrior(GROUPS, [0.3, 7.0])
    vector = prior.precision_vector(params)
    assert_near(vector, torch.tensor([0.3] * 6 + [0.0] * 5 + [7.0] * 5, dtype=torch.float64), 1e-12)
    assert vector.dtype == params["w"].dtype
    assert prior.precision_vector({"v": torch.zeros(2)}).dtype == torch.float32
    assert len(prior.precision_vector({})) == 0
    flat = torch.cat([p.reshape(-1) for p in params.values()])
    grouped = vector > 0
    normal = torch.distributions.Normal(0.0, vector[grouped].rsqrt())
    assert_near(prior.log_prob(params), normal.log_prob(flat[grouped]).sum(), 1e-12)


def test_views_of_the_log_precision() -> None:
    prior = PathPrior(GROUPS, torch.tensor([0.5, 4.0]))
    assert_near(prior.precision, torch.tensor([0.5, 4.0], dtype=torch.float64), 1e-12)
    assert_near(prior.variance, 1 / prior.precision, 1e-12)
    assert_near(prior.log_precision, prior.precision.log(), 1e-12)
    assert prior.group_precision("head") == pytest.approx(4.0)
    assert prior.precisions_by_parameter() == pytest.approx({"w": 0.5, "v": 4.0, "b": 4.0})
    prior.set_precision("conv", 9.0)
    assert prior.group_precision("conv") == pytest.approx(9.0)
    assert prior.group_precision("head") == pytest.approx(4.0)
    with pytest.raises(KeyError, match=r"no prior group 'tail'; the groups are \['conv', 'head'\]"):
        prior.index("tail")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "groups: 0"),
        ({"a": []}, r"empty: \['a'\]"),
        (
            {"a": ["w"], "b": ["v", "w"], "c": []},
            r"empty: \['c'\], parameters named twice: \['w'\]",
        ),
        ({"a": ["w", "w"]}, r"named twice: \['w'\]"),
    ],
)
def test_groups_are_disjoint_and_not_empty(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathPrior(groups)


def test_a_group_is_not_a_string() -> None:
    with pytest.raises(TypeError, match=r"groups \['a'\] are strings"):
        PathPrior({"a": "weight"})


@pytest.mark.parametrize("precision", [0.0, -1.0, math.nan, math.inf, 1e13, [1.0, 1e-9]])
def test_precisions_are_within_bounds(precision: Any) -> None:
    with pytest.raises(ValueError, match="must lie within bounds"):
        PathPrior(GROUPS, precision)


@pytest.mark.parametrize("precision", [[1.0, 1.0, 1.0], torch.ones(2, 1), torch.ones(0)])
def test_one_precision_per_group(precision: Any) -> None:
    with pytest.raises(ValueError, match="one for each of the 2 groups"):
        PathPrior(GROUPS, precision)


@pytest.mark.parametrize("bounds", [(0.0, 2.0), (2.0, 0.5), (0.5, math.inf)])
def test_bounds_are_positive_and_increase(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="within bounds"):
        PathPrior(GROUPS, 1.0, bounds)


@pytest.mark.parametrize("bound", [1e-8, 1e12, 0.1, 3.3])
def test_a_precision_at_its_bound_survives_its_logarithm(bound: float) -> None:
    bounds = (min(bound, 1.0), max(bound, 1.0))
    prior = PathPrior(GROUPS, bound, bounds)
    again = PathPrior(GROUPS, prior.precision, bounds)
    assert_near(again.precision, torch.full((2,), bound, dtype=torch.float64), 1e-12)
    for ulp in (1 - 1e-12, 1 + 1e-12):
        kept = PathPrior(GROUPS, bound * ulp, bounds).log_precision
        low, high = (math.log(value) for value in bounds)
        assert bool(((kept >= low - 1e-13) & (kept <= high + 1e-13)).all())


def test_set_precision_is_clipped_and_checked() -> None:
    prior = PathPrior(GROUPS, 1.0, (0.1, 10.0))
    for given, kept in ((1e-5, 0.1), (1e5, 10.0), (math.inf, 10.0), (2.0, 2.0)):
        prior.set_precision("conv", given)
        assert prior.group_precision("conv") == pytest.approx(kept)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be positive"):
            prior.set_precision("conv", bad)
    assert prior.group_precision("conv") == pytest.approx(2.0)


def gathered(group: list[str], gradients: bool, delta: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues and ``b^2`` of a group, ``b = lambda theta - g``, by the definition."""
    curvature, params, _ = problem()
    lam = torch.cat([curvature[n].eigenvalues for n in group])
    theta = torch.cat([curvature[n].rotate(params[n]) for n in group])
    g = torch.cat([curvature[n].rotate(grads()[n]) for n in group])
    return lam, (lam * theta - (g if gradients else -delta * theta)).square()


def grads() -> dict[str, Tensor]:
    curvature, params, _ = problem()
    generator = torch.Generator().manual_seed(5)
    return {
        n: 2.0 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for n, p in params.items()
    }


@pytest.mark.parametrize("gradients", [False, True])
def test_fixed_point_lands_on_the_global_minimum(gradients: bool) -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, [0.7, 3.0])
    before = prior.precision.tolist()
    tests = prior.update(curvature, params, grads() if gradients else None)
    for i, (name, members) in enumerate(groups.items()):
        lam, b_sq = gathered(members, gradients, before[i])
        lam, b_sq = lam[lam > 0], b_sq[lam > 0]
        t = float(prior.log_precision[i])
        assert tests[name].log_precision == pytest.approx(t)
        grid = torch.linspace(math.log(1e-8), math.log(1e12), 5001).tolist()
        assert profile(t, lam, b_sq) <= min(profile(s, lam, b_sq) for s in grid) + 1e-9
        h = 1e-4
        slope = (profile(t + h, lam, b_sq) - profile(t - h, lam, b_sq)) / (2 * h)
        assert abs(slope) < 1e-6
        # MacKay's fixed point: delta ||theta*||^2 = gamma at the weights that go with delta
        delta = math.exp(t)
        gamma = float((lam / (lam + delta)).sum())
        assert delta * float((b_sq / (lam + delta) ** 2).sum()) == pytest.approx(gamma, rel=1e-8)


def test_step_and_largest_change() -> None:
    curvature, params, groups = problem()

    def moved(**options: float) -> Tensor:
        prior = PathPrior(groups, 1.0)
        prior.update(curvature, params, grads(), **options)
        return prior.log_precision

    full = moved()
    assert bool((full.abs() > 0.1).all())
    assert_near(moved(step=0.25), 0.25 * full, 1e-12)
    assert_near(moved(max_change=0.05), 0.05 * full.sign(), 1e-12)
    for bad in ({"step": 0.0}, {"step": math.nan}, {"max_change": -1.0}, {"max_change": math.nan}):
        with pytest.raises(ValueError, match="both must be positive"):
            moved(**bad)


def negative_evidence(prior: PathPrior) -> float:
    curvature, params, _ = problem()
    return -priors.log_evidence(0.0, curvature, params, prior)


def test_gradient_moves_downhill() -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, 1.0)
    values = [negative_evidence(prior)]
    for _ in range(200):
        prior.update(curvature, params, method="gradient", step=0.05)
        values.append(negative_evidence(prior))
    assert values[1] < values[0]
    assert all(b <= a + 1e-9 for a, b in zip(values[:20], values[1:20], strict=False))
    assert values[-1] < values[0] - 0.1
    for name, members in groups.items():  # it ends where MacKay's equation holds at fixed weights
        delta = prior.group_precision(name)
        norm = sum(float(params[m].square().sum()) for m in members)
        gamma = priors.effective_parameters(curvature, prior, name)
        assert delta * norm == pytest.approx(gamma, rel=0.02)


def test_first_gradient_step_is_adams() -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, 1.0)
    gammas = {g: priors.effective_parameters(curvature, prior, g) for g in groups}
    prior.update(curvature, params, method="gradient", step=0.1)
    for i, (name, members) in enumerate(groups.items()):
        slope = sum(float(params[m].square().sum()) for m in members) - gammas[name]
        assert float(prior.log_precision[i]) == pytest.approx(-0.1 * math.copysign(1, slope))


@pytest.mark.parametrize("method", priors.METHODS)
def test_groups_that_are_not_asked_for_are_held(method: str) -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, 1.0)
    prior.update(curvature, params, method=method, step=0.1)  # gives every group a momentum
    held = float(prior.log_precision[0])
    state = prior.state_dict()
    tests = prior.update(curvature, params, groups=["c"], method=method, step=0.1)
    assert list(tests) == ["c"]
    assert float(prior.log_precision[0]) == held
    for key, value in prior.state_dict().items():
        assert value[0] == state[key][0]
    assert prior.log_precision[1] != state["log_precision"][1]


@pytest.mark.parametrize("method", priors.METHODS)
def test_a_group_without_curvature_is_held(method: str) -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, 1.0)
    prior.update(curvature, params, method=method, step=0.1)
    held = prior.log_precision.clone()
    curvature["c"] = spectrum(0.0, 0.0, 0.0, 0.0)
    tests = prior.update(curvature, params, method=method, step=0.1)
    assert not tests["c"].informative
    assert prior.log_precision[1] == held[1]
    assert prior.log_precision[0] != held[0]


def test_absence_goes_to_the_upper_bound() -> None:
    prior = PathPrior({"w": ["w"]}, 1.0, (1e-3, 50.0))
    tests = prior.update({"w": spectrum(2.0, 3.0)}, {"w": torch.full((2,), 1e-3).double()})
    assert tests["w"].absent
    assert prior.group_precision("w") == pytest.approx(50.0)
    prior.update({"w": spectrum(1e4, 1e4)}, {"w": torch.full((2,), 1e4).double()})
    assert prior.group_precision("w") == pytest.approx(1e-3)


@pytest.mark.parametrize("method", priors.METHODS)
def test_no_step_leaves_the_bounds(method: str) -> None:
    curvature, params, groups = problem()
    for start, bounds in ((0.1, (0.1, 0.2)), (0.2, (0.1, 0.2)), (900.0, (800.0, 900.0))):
        prior = PathPrior(groups, start, bounds)
        for _ in range(3):
            prior.update(curvature, params, grads(), method=method, step=3.0)
            low, high = (math.log(bound) for bound in bounds)
            assert bool(((prior.log_precision >= low) & (prior.log_precision <= high)).all())


def test_update_refuses_what_it_cannot_know() -> None:
    curvature, params, groups = problem()
    prior = PathPrior(groups, 1.0)
    with pytest.raises(ValueError, match=r"unknown method 'newton'; choose one of \['fixed_point'"):
        prior.update(curvature, params, method="newton")
    with pytest.raises(KeyError, match="no prior group 'd'"):
        prior.update(curvature, params, groups=["d"])
    del curvature["a"]
    for method in (prior.update, lambda c, p: prior.relevance("ab", c, p)):
        with pytest.raises(KeyError, match=r"does not cover \['a'\]"):
            method(curvature, params)
    assert prior.update(curvature, params, groups=["c"])["c"].informative


@pytest.mark.parametrize("where", ["curvature", "params", "gradients"])
@pytest.mark.parametrize("method", priors.METHODS)
def test_nan_is_refused_and_nothing_moves(where: str, method: str) -> None:
    curvature, params, groups = problem()
    gradients = grads()
    if where == "curvature":
        curvature["b"] = spectrum(1.0, math.nan)
    else:
        {"params": params, "gradients": gradients}[where]["b"][0] = math.nan
    prior = PathPrior(groups, 1.0)
    with pytest.raises(ValueError, match="NaN or infinite values"):
        prior.update(curvature, params, gradients, method=method)
    assert prior.log_precision.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("method", priors.METHODS)
def test_state_round_trip_continues_to_the_same_numbers(method: str) -> None:
    curvature, params, groups = problem()
    first = PathPrior(groups, 1.0)
    first.update(curvature, params, method=method, step=0.1)
    state = first.state_dict()
    second = PathPrior(groups, 5.0)
    second.load_state_dict(state)
    for value in state.values():
        value.fill_(77.0)  # the state is a copy, and was copied
    for _ in range(3):
        for prior in (first, second):
            prior.update(curvature, params, method=method, step=0.1)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("m"), "the state holds"),
        (lambda s: s.update(extra=torch.zeros(2)), "the state holds"),
        (lambda s: s.update(log_precision=torch.zeros(3)), "this prior has 2 groups"),
        (lambda s: s.update(t=torch.zeros(())), "this prior has 2 groups"),
        (lambda s: s.update(v=torch.tensor([0.0, math.nan])), "NaN or infinite"),
        (lambda s: s.update(log_precision=torch.tensor([0.0, math.inf])), "NaN or infinite"),
    ],
)
def test_foreign_states_are_refused(change: Any, message: str) -> None:
    prior = PathPrior(GROUPS, 3.0)
    state = PathPrior(GROUPS).state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        prior.load_state_dict(state)
    assert prior.group_precision("conv") == pytest.approx(3.0)
