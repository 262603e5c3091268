"""Bayesian linear regression, where the Laplace evidence is the marginal likelihood itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

import curvature
from curvature import Gaussian
from priors import PathPrior, effective_parameters, log_evidence, update_noise
from tests.oracles import assert_near

pytestmark = pytest.mark.core


@dataclass
class Regression:
    """``y = X_1 w_1 + X_2 w_2 + noise`` with a Gaussian prior on each w; groups may be one.

    Columns of different groups are orthogonal, so that the curvature is block-diagonal, as the
    Kronecker factors assume.
    """

    parts: list[Tensor]
    y: Tensor

    @staticmethod
    def make(sizes: tuple[int, ...], outputs: int = 1, n: int = 40) -> Regression:
        generator = torch.Generator().manual_seed(2)
        columns = torch.randn(n, sum(sizes), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(columns).Q
        parts, y, start = [], torch.zeros(n, outputs, dtype=torch.float64), 0
        for i, size in enumerate(sizes):
            mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
            x = 5 * basis[:, start : start + size] @ mix
            w = torch.randn(size, outputs, generator=generator, dtype=torch.float64) / (i + 1)
            parts.append(x)
            y += x @ w
            start += size
        y += 0.5 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
        return Regression(parts, y)

    def closed_form(self, deltas: list[float], noise: float) -> float:
        """Log of the multivariate normal density of y with all weights integrated out."""
        covariance = noise**2 * torch.eye(len(self.y), dtype=torch.float64)
        for x, delta in zip(self.parts, deltas, strict=True):
            covariance = covariance + x @ x.T / delta
        normal = torch.distributions.MultivariateNormal(
            torch.zeros(len(self.y)).double(), covariance
        )
        return float(normal.log_prob(self.y.T).sum())

    def model(self, deltas: list[float], noise: float) -> nn.Module:
        """A network at the weights of largest posterior density."""
        x = torch.cat(self.parts, dim=1)
        delta = torch.cat(
            [torch.full((p.shape[1],), d) for p, d in zip(self.parts, deltas, strict=True)]
        ).double()
        w = torch.linalg.solve(x.T @ x / noise**2 + torch.diag(delta), x.T @ self.y / noise**2)
        net = Sum([p.shape[1] for p in self.parts], self.y.shape[1]).double()
        with torch.no_grad():
            start = 0
            for layer in net.layers:
                layer.weight.copy_(w[start : start + layer.in_features].T)
                start += layer.in_features
        return net

    def data(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.parts, dim=1), self.y


class Sum(nn.Module):
    """One linear layer per group of columns; the outputs are added."""

    def __init__(self, sizes: list[int], outputs: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(nn.Linear(size, outputs, bias=False) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.layers, x.split(self.sizes, dim=1), strict=True)
        return torch.stack([layer(part) for layer, part in pairs]).sum(0)


def measured(
    task: Regression, deltas: list[float], noise: float
) -> tuple[curvature.KroneckerCurvature, dict[str, Tensor], PathPrior, float]:
    """Curvature, weights and prior at the mode, and the sum of squared residuals."""
    net = task.model(deltas, noise)
    found = curvature.kronecker(net, task.data(), Gaussian(noise))
    params = {name: p.detach() for name, p in net.named_parameters()}
    prior = PathPrior({name: [name] for name in found}, deltas)
    residual = float((net(task.data()[0]).detach() - task.y).square().sum())
    return found, params, prior, residual


TASKS = {"one group": ((4,), 1), "two groups": ((3, 5), 1), "two outputs": ((3, 2), 2)}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Regression:
    return Regression.make(*TASKS[request.param])


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_evidence_is_the_marginal_likelihood(task: Regression, noise: float) -> None:
    for scale in (0.01, 1.0, 100.0):
        deltas = [scale * (i + 1) for i in range(len(task.parts))]
        found, params, prior, _ = measured(task, deltas, noise)
        got = log_evidence(found.log_likelihood, found, params, prior)
        assert_near(got, task.closed_form(deltas, noise), 1e-8)


def test_effective_parameters_are_mackays_formula(task: Regression) -> None:
    deltas = [0.5 * (i + 1) for i in range(len(task.parts))]
    found, _, prior, _ = measured(task, deltas, 0.7)
    outputs = task.y.shape[1]
    for name, x, delta in zip(found, task.parts, deltas, strict=True):
        size = x.shape[1]
        posterior = torch.linalg.inv(x.T @ x / 0.49 + delta * torch.eye(size, dtype=x.dtype))
        want = outputs * (size - delta * float(posterior.trace()))
        gamma = effective_parameters(found, prior, name)
        assert_near(gamma, want, 1e-10)
        assert gamma <= size * outputs


def test_learned_precisions_and_noise_are_the_maximisers(task: Regression) -> None:
    """Type-II maximum likelihood by alternating weights, precisions and noise."""
    deltas, noise = [1.0] * len(task.parts), 1.0
    for _ in range(200):
        found, params, prior, residual = measured(task, deltas, noise)
        gamma = math.fsum(effective_parameters(found, prior, group) for group in prior.groups)
        prior.update(found, params)
        deltas = prior.precision.tolist()
        noise = update_noise(residual, task.y.numel(), gamma, noise)
    best = minimize(
        lambda t: -task.closed_form([math.exp(v) for v in t[:-1]], math.exp(t[-1])),
        [0.0] * (len(deltas) + 1),
        method="BFGS",
        options={"gtol": 1e-7},
    )
    logs = [math.log(v) for v in (*deltas, noise)]
    assert_near(torch.tensor(logs).double(), torch.tensor(best.x), 1e-4)
    assert task.closed_form(deltas, noise) >= -best.fun - 1e-8


def test_one_update_from_gradients_elsewhere_finds_the_maximiser() -> None:
    """The expansion of a quadratic is exact, so the weights need not be at a mode."""
    task = Regression.make((3, 5))
    for deltas in ([1.0, 1.0], [30.0, 0.01]):
        net = task.model(deltas, 0.5)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        x, y = task.data()
        found = curvature.kronecker(net, (x, y), Gaussian(0.5))
        loss = -Gaussian(0.5).log_prob(net(x), y)
        grads = dict(zip(found, torch.autograd.grad(loss, list(net.parameters())), strict=True))
        params = {name: p.detach() for name, p in net.named_parameters()}
        prior = PathPrior({name: [name] for name in found}, deltas)
        prior.update(found, params, grads)
        best = minimize(
            lambda t: -task.closed_form([math.exp(v) for v in t], 0.5),
            [0.0, 0.0],
            method="BFGS",
            options={"gtol": 1e-7},
        )
        assert_near(prior.log_precision, torch.tensor(best.x), 1e-4)


def test_relevance_of_an_idle_group() -> None:
    """Columns that do not enter y are absent; columns that do are not."""
    generator = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(60, 8, generator=generator, dtype=torch.float64)).Q
    used, idle = 5 * basis[:, :4], 5 * basis[:, 4:]
    y = used.sum(1, keepdim=True)
    residual = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    y = y + 0.5 * (residual - basis @ (basis.T @ residual))
    task = Regression([used, idle], y)
    net = Sum([4, 4], 1).double()
    nn.init.zeros_(net.layers[1].weight)
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.ones(1, 4))
    x, y = task.data()
    found = curvature.kronecker(net, (x, y), Gaussian(0.5))
    loss = -Gaussian(0.5).log_prob(net(x), y)
    grads = dict(zip(found, torch.autograd.grad(loss, list(net.parameters())), strict=True))
    params = {name: p.detach() for name, p in net.named_parameters()}
    prior = PathPrior({name: [name] for name in found})
    tests = prior.update(found, params, grads)
    assert [test.absent for test in tests.values()] == [False, True]
    assert tests["layers.1.weight"].ratio < 1e-6 < 1 < tests["layers.0.weight"].ratio
    assert tests["layers.1.weight"].informative
