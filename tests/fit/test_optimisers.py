"""The fixed points of the optimisers are the MAP."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from symlearn.fit.optimisers import OPTIMISERS, SGD, Adam, ProximalAdam

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


@pytest.mark.parametrize(("name", "lr"), [("proximal", 0.02), ("adam", 0.02), ("sgd", 0.1)])
@pytest.mark.parametrize("delta", [1e-2, 1.0, 1e2])
def test_every_optimiser_has_the_map_as_its_fixed_point(name: str, lr: float, delta: float) -> None:
    net, x, y = problem()
    step = OPTIMISERS[name](dict(net.named_parameters()), 2 * len(x), lr)
    step.set_n_data(len(x))
    step.set_precisions({n: delta for n, _ in net.named_parameters()})
    train(net, x, y, step)
    assert stationarity(net, x, y, delta) <= 1e-4


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adam, lambda p, decay: torch.optim.Adam(p, lr=0.01, weight_decay=decay)),
        (SGD, lambda p, decay: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=decay)),
    ],
    ids=["adam", "sgd"],
)
def test_same_steps_as_torch(ours: type, theirs: object) -> None:
    (net, x, y), (other, _, _) = problem(), problem()
    step = ours(dict(net.named_parameters()), len(x), 0.01)
    step.set_precisions({n: 3.0 for n, _ in net.named_parameters()})
    reference = theirs(other.parameters(), 3.0 / len(x))  # type: ignore[operator]
    for model, optimiser in ((net, step), (other, reference)):
        for _ in range(20):
            optimiser.zero_grad()
            (nll(model, x, y) / len(x)).backward()
            optimiser.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-12)


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


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_restart_forgets_momentum(name: str) -> None:
    net, x, y = problem()
    step = OPTIMISERS[name](dict(net.named_parameters()), len(x), 0.01)
    nll(net, x, y).backward()
    step.step()
    step.restart(net.weight)
    assert not step.state[net.weight]["m"].any()
    before = net.weight.detach().clone()
    net.weight.grad = torch.zeros_like(net.weight)
    step.step()
    assert torch.equal(net.weight.detach(), before)
