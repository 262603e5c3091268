"""Output covariances against full Jacobians and dense posteriors, and against exact answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import functional, functional_covariance
from symlearn import wrap
from tests.cases import CASES, Case, Data, case
from tests.curvature.test_dense import ruleless
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def dense_covariance(
    model: nn.Module, blocks: Any, x: Tensor, precision: dict[str, float]
) -> Tensor:
    """``J Sigma J^T`` [N, K, K]: a loop over samples, outputs and parameters, with inverses."""
    model.eval()
    inverse = {
        name: torch.linalg.inv(b.to_dense() + torch.diag(x.new_full((b.shape.numel(),), delta)))
        for (name, b), delta in ((pair, precision[pair[0]]) for pair in blocks.items())
    }
    params = {name: p for name, p in model.named_parameters() if name in blocks}
    covariances = []
    for one in x:
        rows = [
            torch.autograd.grad(f, list(params.values()), retain_graph=True, materialize_grads=True)
            for f in model(one.unsqueeze(0)).reshape(-1)
        ]
        total = torch.zeros(len(rows), len(rows), dtype=x.dtype)
        for index, name in enumerate(params):
            jacobian = torch.stack([row[index].reshape(-1) for row in rows])
            total += jacobian @ inverse[name] @ jacobian.T
        covariances.append(total)
    return torch.stack(covariances)


def precisions(blocks: Any) -> dict[str, float]:
    """A different one for each parameter."""
    return {name: 0.3 + 0.4 * index for index, name in enumerate(blocks)}


def fresh(which: Case, data: Data) -> Tensor:
    """Inputs that the curvature has not seen."""
    return torch.flip(data[0], (0,)) * 1.3 + 0.1


@pytest.mark.parametrize("ekfac", [False, True], ids=["plain", "ekfac"])
@pytest.mark.parametrize("which", CASES, ids=str)
def test_covariance_is_the_dense_one(which: Case, ekfac: bool) -> None:
    model, data = which.make()
    blocks = curvature.kronecker(model, data, which.likelihood, ekfac=ekfac)
    x, delta = fresh(which, data), precisions(blocks)
    outputs, got = functional_covariance(model, blocks, x, delta)
    assert_near(outputs, model(x).reshape(len(x), -1))
    assert_near(got, dense_covariance(model, blocks, x, delta), 1e-8)


def relaxed(**options: Any) -> nn.Module:
    cnn = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(),
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(12, 3),
    ).double()  # fmt: skip
    model = wrap(cnn, torch.zeros(1, 1, 4, 4, dtype=torch.float64), **options)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, dtype=torch.float64))
    return model.train()


@pytest.mark.parametrize("paths", [("conv", "ffc"), ("conv", "fc")])
def test_relaxed_networks(paths: tuple[str, ...]) -> None:
    model = relaxed(paths=paths)
    data = torch.randn(7, 1, 4, 4, dtype=torch.float64), torch.arange(7) % 3
    blocks = curvature.kronecker(model, data)
    x, delta = torch.randn(4, 1, 4, 4, dtype=torch.float64), precisions(blocks)
    _, got = functional_covariance(model, blocks, x, delta)
    assert model.training
    assert_near(got, dense_covariance(model, blocks, x, delta), 1e-8)


@pytest.mark.parametrize("fallback", ["dense", "diagonal", "fixed"])
def test_parameters_without_a_rule(fallback: str) -> None:
    model, x = ruleless(), torch.randn(6, 3, dtype=torch.float64)
    blocks = curvature.kronecker(model, (x, torch.arange(6) % 3), fallback=fallback)
    delta = precisions(blocks)
    _, got = functional_covariance(model, blocks, x * 2, delta)
    assert_near(got, dense_covariance(model, blocks, x * 2, delta), 1e-8)


@pytest.mark.parametrize("chunk", [1, 37, 400])
@pytest.mark.parametrize("name", ["cnn-grouped", "twice", "conv1d"])
def test_pieces_do_not_matter(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = case(name).make(n=9)
    blocks = curvature.kronecker(model, data, case(name).likelihood)
    want = functional_covariance(model, blocks, data[0], precisions(blocks))
    monkeypatch.setattr(functional, "_CHUNK", chunk)
    got = functional_covariance(model, blocks, data[0], precisions(blocks))
    for mine, theirs in zip(got, want, strict=True):
        assert_near(mine, theirs, 1e-12)


def test_linear_regression_is_exact() -> None:
    """Bayesian linear regression: variance ``x^T (X^T X / s^2 + d)^-1 x`` of every output."""
    x, noise, delta = torch.randn(20, 4, dtype=torch.float64), 0.7, 1.3
    model = nn.Linear(4, 2, bias=False).double()
    data = x, torch.randn(20, 2, dtype=torch.float64)
    blocks = curvature.kronecker(model, data, curvature.Gaussian(noise))
    new = torch.randn(5, 4, dtype=torch.float64)
    _, got = functional_covariance(model, blocks, new, {"weight": delta})
    inverse = torch.linalg.inv(x.T @ x / noise**2 + delta * torch.eye(4, dtype=torch.float64))
    variance = torch.einsum("ni,ij,nj->n", new, inverse, new)
    assert_near(got, variance.reshape(-1, 1, 1) * torch.eye(2), 1e-10)


@pytest.mark.parametrize("name", ["mlp", "cnn", "linear-gaussian", "factored"])
def test_more_data_and_stronger_priors_mean_less_variance(name: str) -> None:
    model, (x, y) = case(name).make(n=12)
    likelihood = case(name).likelihood
    small = curvature.kronecker(model, (x[:6], y[:6]), likelihood)
    doubled, delta = small.scaled(2), precisions(small)

    def variance(blocks: Any, scale: float) -> Tensor:
        scaled = {name: scale * value for name, value in delta.items()}
        return functional_covariance(model, blocks, x, scaled)[1].diagonal(dim1=1, dim2=2)

    first = variance(small, 1.0)
    assert bool((first > 0).all())
    assert bool((variance(doubled, 1.0) < first).all())
    assert bool((variance(small, 2.0) < first).all())
    assert_near(variance(doubled, 2.0), first / 2)


def test_frozen_parameters_count_and_stay_frozen() -> None:
    model, data = case("cnn").make()
    blocks = curvature.kronecker(model, data)
    want = functional_covariance(model, blocks, data[0], precisions(blocks))[1]
    model.requires_grad_(False)
    assert_near(functional_covariance(model, blocks, data[0], precisions(blocks))[1], want)
    assert not any(p.requires_grad for p in model.parameters())


def test_parts_add_up_and_nothing_is_left_behind() -> None:
    model, data = case("mlp").make()
    blocks = curvature.kronecker(model, data)
    delta = precisions(blocks)
    with torch.no_grad():
        whole = functional_covariance(model, blocks, data[0], delta)[1]
        parts = [functional_covariance(model, {n: blocks[n]}, data[0], delta)[1] for n in blocks]
    assert_near(sum(parts, torch.zeros(())), whole)
    assert all(not m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_float32_is_close_to_float64() -> None:
    model, data = case("cnn").make()
    blocks = curvature.kronecker(model, data)
    want = functional_covariance(model, blocks, data[0], precisions(blocks))[1]
    single, data = case("cnn").make(dtype=torch.float32)
    blocks = curvature.kronecker(single, data)
    # inputs of another precision are converted to the network's
    got = functional_covariance(single, blocks, data[0].double(), precisions(blocks))[1]
    assert got.dtype == torch.float32
    assert_near(got, want, 1e-3)


def test_bad_input_is_told() -> None:
    model, (x, y) = case("mlp").make()
    blocks = curvature.kronecker(model, (x, y))
    delta = precisions(blocks)
    with pytest.raises(ValueError, match=r"prior precision for each.*'0.bias', '2.weight'"):
        functional_covariance(model, blocks, x, {n: delta[n] for n in ("0.weight", "2.bias")})
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive and finite, got {'2.bias'"):
            functional_covariance(model, blocks, x, {**delta, "2.bias": value})
    with pytest.raises(ValueError, match=r"names and shapes: \['0.weight', '2.weight'\]"):
        other = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
        some = {n: blocks[n] for n in ("0.weight", "0.bias")}
        wrong = {**some, "2.weight": blocks["0.weight"]}
        functional_covariance(other.double(), wrong, x, delta)
    with pytest.raises(ValueError, match=r"inputs of shape \[5, 3\]"):
        functional_covariance(model, blocks, x[:, :3], delta)
    with pytest.raises(ValueError, match="empty"):
        functional_covariance(model, blocks, x[:0], delta)
    with pytest.raises(ValueError, match="NaN"):
        functional_covariance(model, blocks, torch.full_like(x, math.nan), delta)
    late = torch.cat([x, torch.full_like(x[:1], math.nan)])
    with pytest.raises(ValueError, match="NaN"):
        functional_covariance(model, blocks, late, delta)


def test_samples_must_come_first() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.flatten(0, 1)).reshape(*x.shape[:2], 2).sum(1)

    model, x = Folded().double(), torch.randn(4, 5, 3, dtype=torch.float64)
    blocks = curvature.kronecker(model, (x, torch.zeros(4).long()))
    with pytest.raises(ValueError, match="20 rows in a batch of 4 samples"):
        functional_covariance(model, blocks, x, precisions(blocks))


class Silent(torch.autograd.Function):
    """The identity; where all gradients are zero it sends none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor | None:
        return g if bool(g.any()) else None


class Branches(nn.Module):
    """A trunk, two heads that may send no gradient, and a layer whose output is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.idle = nn.Linear(3, 4), nn.Linear(3, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        hidden = self.trunk(x).tanh()
        return torch.cat([Silent.apply(head(hidden)) for head in self.heads], dim=1)


def test_calls_without_a_gradient_contribute_nothing() -> None:
    model, x = Branches().double(), torch.randn(5, 3, dtype=torch.float64)
    blocks = curvature.kronecker(model, (x, torch.arange(5) % 4))
    delta = precisions(blocks)
    assert "idle.weight" in blocks
    _, got = functional_covariance(model, blocks, x, delta)
    assert_near(got, dense_covariance(model, blocks, x, delta), 1e-8)


def test_the_oracle_tells_a_wrong_covariance() -> None:
    """The comparison fails for a scaled answer and for NaN."""
    model, data = case("mlp").make()
    blocks = curvature.kronecker(model, data)
    delta = precisions(blocks)
    got = functional_covariance(model, blocks, data[0], delta)[1]
    want = dense_covariance(model, blocks, data[0], delta)
    for wrong in (got * (1 + 1e-6), got.mT * math.nan):
        with pytest.raises(AssertionError):
            assert_near(wrong, want, 1e-8)
