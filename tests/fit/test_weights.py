"""The MAP step's fixed point is the MAP, and averages average."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import curvature
from symlearn.fit import NonFiniteLossError, ProximalAdam, WeightAverage
from symlearn.fit.weights import train_epoch

DELTAS = [1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6]


def problem() -> tuple[nn.Linear, Tensor, Tensor]:
    """A convex one: logistic regression, not separable, 60 samples."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g, dtype=torch.float64)
    y = (x[:, 0] + 1.5 * torch.randn(60, generator=g, dtype=torch.float64) > 0).double()
    net = nn.Linear(4, 1, dtype=torch.float64)
    for p in net.parameters():
        nn.init.normal_(p, generator=g)
    return net, x, y


def nll(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y, reduction="sum")


def stationarity(net: nn.Module, x: Tensor, y: Tensor, delta: float) -> float:
    """Largest relative size of ``grad NLL + delta theta``; NaN if anything is."""
    worst = torch.zeros((), dtype=torch.float64)
    grads = torch.autograd.grad(nll(net, x, y), list(net.parameters()))
    for p, g in zip(net.parameters(), grads, strict=True):
        scale = g.norm() + delta * p.detach().norm() + 1e-3
        worst = torch.maximum(worst, (g + delta * p.detach()).norm() / scale)
    return float(worst)


def train(net: nn.Module, x: Tensor, y: Tensor, step: torch.optim.Optimizer) -> None:
    """Full-batch steps whose size falls to zero."""
    start = [group["lr"] for group in step.param_groups]
    for t in range(4000):
        for group, lr in zip(step.param_groups, start, strict=True):
            group["lr"] = lr * (1 - t / 4000) ** 2
        step.zero_grad()
        (nll(net, x, y) / len(x)).backward()
        step.step()


@pytest.mark.core
@pytest.mark.parametrize("delta", DELTAS)
def test_fixed_point_is_the_map(delta: float) -> None:
    net, x, y = problem()
    step = ProximalAdam(dict(net.named_parameters()), n_data=len(x), lr=0.02)
    step.set_precisions({n: delta for n, _ in net.named_parameters()})
    train(net, x, y, step)
    assert stationarity(net, x, y, delta) <= 1e-5


def test_decoupled_decay_has_another_fixed_point() -> None:
    """AdamW-style decay fails the same test: this is why the step is proximal."""
    net, x, y = problem()
    delta = 10.0
    step = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=delta / len(x))
    train(net, x, y, step)
    assert stationarity(net, x, y, delta) > 0.1


def test_the_check_fails_off_the_map_and_on_nan() -> None:
    net, x, y = problem()
    assert not stationarity(net, x, y, 1.0) <= 1e-5
    nn.init.constant_(net.weight, float("nan"))
    assert not stationarity(net, x, y, 1.0) <= 1e-5


def test_parameters_without_prior_follow_the_likelihood_alone() -> None:
    net, x, y = problem()
    step = ProximalAdam(dict(net.named_parameters()), n_data=len(x), lr=0.02)
    step.set_precisions({"weight": 5.0})
    train(net, x, y, step)
    grad = torch.autograd.grad(nll(net, x, y), net.bias)[0]
    assert grad.abs().max() <= 1e-3


@pytest.mark.parametrize("delta", [1e6, 1e12])
def test_stable_for_any_precision(delta: float) -> None:
    net, x, y = problem()
    step = ProximalAdam(dict(net.named_parameters()), n_data=len(x), lr=1.0)
    step.set_precisions({n: delta for n, _ in net.named_parameters()})
    train(net, x, y, step)
    assert all(p.abs().max() <= 1e-3 for p in net.parameters())


def test_restart_forgets_momentum() -> None:
    net, x, y = problem()
    step = ProximalAdam(dict(net.named_parameters()), n_data=len(x))
    nll(net, x, y).backward()
    step.step()
    step.restart(net.weight)
    assert not step.state[net.weight]["m"].any()
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)
    step.step()
    assert torch.equal(net.weight.detach(), before)


def test_average_is_corrected_for_its_start_and_restored() -> None:
    net, _, _ = problem()
    average = WeightAverage(net, 0.97)
    start = average.values["weight"].clone()
    for _ in range(400):
        nn.init.constant_(net.weight, 2.0)
        average.update()
    assert torch.allclose(average.values["weight"], torch.full_like(start, 2.0), atol=1e-3)
    nn.init.constant_(net.weight, -7.0)
    with average.applied():
        assert torch.allclose(net.weight, torch.full_like(start, 2.0), atol=1e-3)
    assert torch.equal(net.weight.detach(), torch.full_like(start, -7.0))
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        raise RuntimeError("stop")
    assert torch.equal(net.weight.detach(), torch.full_like(start, -7.0))


def test_zero_decay_keeps_the_present() -> None:
    net, _, _ = problem()
    average = WeightAverage(net, 0.0)
    nn.init.constant_(net.weight, 3.0)
    average.update()
    assert torch.equal(average.values["weight"], net.weight.detach())


def test_non_finite_loss_names_the_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(net[0].bias, float("inf"))
    step = ProximalAdam(dict(net.named_parameters()), n_data=4)
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(NonFiniteLossError, match=r"first in layer '0'"):
        train_epoch(net, iter(data), curvature.Categorical(), step, WeightAverage(net, 0.9))
