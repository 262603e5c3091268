"""Objectives of the precisions, their optima, and counts of steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import curvature
import priors
from benchmarks.growth import Setting
from benchmarks.support import accuracy, hyper, nets
from benchmarks.support.hyper import Problem
from benchmarks.support.phases import eigendecompose
from symlearn.relaxed import relaxed_layers
from tests.conftest import need
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def network() -> nn.Sequential:
    """A small CNN in double precision."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def images() -> nets.Batches:
    """Images and labels."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 1, 5, 5, generator=generator, dtype=torch.float64)
    return nets.Batches(x, torch.randint(3, (40,), generator=generator), 16)


def made() -> Problem:
    return Problem.of(network(), images())


def precisions() -> Tensor:
    return torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)


def test_problem_is_measured_at_the_weights() -> None:
    net, problem = network(), made()
    assert problem.groups == {
        "0": ["0.weight", "0.bias"],
        "2": ["2.weight", "2.bias"],
        "5": ["5.weight", "5.bias"],
    }
    x, y = (torch.cat(parts) for parts in zip(*images(), strict=True))
    loss = nn.functional.cross_entropy(net(x), y, reduction="sum")
    for (name, p), g in zip(
        net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
    ):
        assert_near(problem.gradients[name], g, 1e-12)
        assert_near(problem.params[name], p, 0.0)
    assert_near(problem.found.log_likelihood, -float(loss.detach()), 1e-12)


def test_profile_objective_is_the_sum_of_the_groups() -> None:
    problem, t = made(), precisions()
    value = hyper.profile_objective(problem)(t)
    want = math.fsum(
        priors.profile(float(one), *pair) for one, pair in zip(t, problem.spectra(), strict=True)
    )
    assert_near(value, want, 1e-12)


def test_closed_form_reaches_the_grids_minimum_in_one_step() -> None:
    problem = made()
    optimum = hyper.profile_optimum(problem)
    step = hyper.updates(problem, "fixed_point", 1.0)
    assert_near(step(), optimum, 1e-6)
    assert hyper.steps_to(hyper.updates(problem, "fixed_point", 1.0), optimum, 0.01, 3, 5) == 1


def test_adam_on_the_profile_reaches_the_same_minimum() -> None:
    problem = made()
    step = hyper.adam(hyper.profile_objective(problem), 3, 0.3)
    count = hyper.steps_to(step, hyper.profile_optimum(problem), 0.01, 10, 500)
    assert count is not None
    assert count > 1


def test_gradient_steps_reach_the_optimum_at_fixed_weights() -> None:
    net = network()
    problem = Problem.of(net, images())
    optimum = accuracy.learn(net, problem.found).log_precisions
    assert hyper.steps_to(hyper.updates(problem, "gradient", 0.3), optimum, 0.01, 10, 500)


def test_laplace_torch_has_the_objective_of_gradient_steps() -> None:
    need("laplace")
    need("asdl")
    net = network()
    problem, t = Problem.of(net, images()), precisions()
    laplace = hyper.laplace_objective(net, images(), problem)
    assert callable(laplace)
    prior = priors.PathPrior(problem.groups, t.exp())
    ours = priors.log_evidence(problem.found.log_likelihood, problem.found, problem.params, prior)
    assert_near(-laplace(t), ours, 1e-10)
    theirs, own = hyper.adam(laplace, 3, 0.1), hyper.updates(problem, "gradient", 0.1)
    for _ in range(5):
        assert_near(theirs(), own(), 1e-10)


def test_laplace_torch_takes_one_pair_of_factors() -> None:
    need("laplace")
    need("asdl")
    setting = Setting(samples=8, channels=2, sites=16, layers=1, classes=3)
    problem = Problem.of(setting.net(), setting.batches())
    with pytest.raises(TypeError, match=r"'0\.paths.*' is not one pair of Kronecker factors"):
        hyper.laplace_objective(network(), images(), problem)


@pytest.mark.parametrize(
    ("path", "count"),
    [([5, 1, 0.05, 0.05, 0.05, 9], 3), ([0.05, 5, 0.05, 0.05, 0.05], 3), ([5, 5, 0.05], None)],
)
def test_steps_are_counted_to_the_first_of_those_that_stay(
    path: list[float], count: int | None
) -> None:
    walk = iter(path)
    target = torch.zeros(2, dtype=torch.float64)

    def step() -> Tensor:
        return torch.tensor([0.0, next(walk)], dtype=torch.float64)

    assert hyper.steps_to(step, target, 0.1, 3, len(path)) == count


def test_a_step_that_is_not_a_number_is_not_close() -> None:
    target = torch.zeros(1)
    assert hyper.steps_to(lambda: torch.tensor([math.nan]), target, 0.1, 1, 4) is None


def test_decomposition_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    found = nets.decomposed(net, images(), "exact")
    calls = []
    real = torch.linalg.eigh

    def counted(matrix: Tensor) -> object:
        calls.append(matrix.shape)
        return real(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    for block in found.values():
        _ = block.eigenvalues
    assert not calls
    for _ in range(2):
        calls.clear()
        eigendecompose(found)
        assert {shape[-1] for shape in calls} >= {9, 12, 16}


@pytest.mark.parametrize("layers", [1, 3])
def test_growth_networks_have_the_sizes_they_say(layers: int) -> None:
    setting = Setting(samples=5, channels=2, sites=16, layers=layers, classes=4)
    net, batches = setting.net(), setting.batches()
    x, y = batches[0]
    assert net(x).shape == (5, 4)
    assert x.shape == (5, 2, 4, 4)
    assert int(y.max()) < 4
    found = relaxed_layers(net)
    assert len(found) == layers
    for layer in found.values():
        assert list(layer.paths) == ["conv", "ffc"]
        assert all(path.contributes() for path in layer.named_paths().values())
    assert set(curvature.kronecker(net, batches)) == {n for n, _ in net.named_parameters()}
