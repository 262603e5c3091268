"""Single precision is enough for the evidence, and no prior precision is too small or large."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import curvature
import priors
import symlearn
from curvature import DenseBlock, DiagonalBlock, Factor, KroneckerBlocks, Layout
from symlearn.fit.evidence import total_gradients
from symlearn.fit.optimisers import OPTIMISERS
from symlearn.wrap import prior_groups
from tests.nets import NETS, make

pytestmark = pytest.mark.core
KINDS = tuple(symlearn.models.PAPER_KINDS) + tuple(symlearn.models.GROUP_KINDS)
QUICK = ("conv", "sfc+sconv")
DELTAS = (1e-8, 1e-3, 1.0, 1e6, 1e12)


def evidence(net: nn.Module, x: Tensor, y: Tensor, delta: float = 1.0) -> float:
    """Log evidence of a network at its weights, all precisions being equal."""
    found = curvature.kronecker(net, (x, y), "categorical", "sketch")
    prior = priors.PathPrior(prior_groups(net), delta, (1e-8, 1e12))
    return priors.log_evidence(found.log_likelihood, found, dict(net.named_parameters()), prior)


def check_single(net: nn.Module, x: Tensor) -> None:
    """Check the evidence of a network in single against that in double precision.

    Raises:
        AssertionError: If they differ by more than 1e-3 of it.
    """
    y = torch.arange(len(x)) % 2
    double = evidence(copy.deepcopy(net).double(), x.double(), y)
    single = evidence(copy.deepcopy(net).float(), x.float(), y)
    assert abs(single - double) <= 1e-3 * abs(double), (single, double)


@pytest.mark.parametrize("name", NETS)
def test_single_precision_is_enough(name: str) -> None:
    net, x = make(name)
    check_single(symlearn.wrap(net, x, init="fresh"), x)


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_single_precision_is_enough_for_the_papers_networks(kind: str) -> None:
    net = symlearn.models.paper_cnn(kind, 1, 1, 3, 32)
    x = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    check_single(net, x)


def test_a_wrong_evidence_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x)
    for wrong in (1.002, math.nan):
        values = iter((100.0, 100.0 * wrong))
        monkeypatch.setattr("tests.test_numerics.evidence", lambda *_, v=values: next(v))
        with pytest.raises(AssertionError):
            check_single(relaxed, x)


def factor(dim: int, largest: float, rank: int) -> Tensor:
    """A matrix [1, dim, dim] with eigenvalues from 1e-12 to 1 times the largest, or zero."""
    generator = torch.Generator().manual_seed(dim)
    square = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    values = largest * torch.logspace(-12, 0, dim, dtype=torch.float64)
    values[: dim - rank] = 0
    return ((basis * values) @ basis.T).unsqueeze(0)


def kron(dtype: torch.dtype) -> KroneckerBlocks:
    """Two factors that are far from having an inverse."""
    layout = Layout(torch.Size([3, 4]), lambda w: w.unsqueeze(0), lambda b: b.squeeze(0))
    a, g = factor(4, 1e9, 3).to(dtype), factor(3, 1e-3, 2).to(dtype)
    return KroneckerBlocks(Factor(a, 3), Factor(g, 2), 10.0, layout)


BLOCKS: dict[str, Callable[[torch.dtype], curvature.Block]] = {
    "kronecker": kron,
    "dense": lambda dtype: DenseBlock(factor(12, 1e9, 7)[0].to(dtype), torch.Size([3, 4])),
    "diagonal": lambda dtype: DiagonalBlock(torch.logspace(-30, 12, 12, dtype=dtype)),
    "zero": lambda dtype: DenseBlock(torch.zeros(12, 12, dtype=dtype), torch.Size([3, 4])),
}


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("name", BLOCKS)
def test_ill_conditioned_curvature(name: str, delta: float) -> None:
    """Everything is finite, and the inverse is one but for rounding of the largest numbers."""
    w = torch.linspace(-1, 1, 12, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        block = BLOCKS[name](dtype)
        v = w.reshape(block.shape).to(dtype)
        generator = torch.Generator().manual_seed(0)
        found = (block.logdet(delta), block.effective_dim(delta), block.solve(v, delta),
                 block.sample(delta, generator))  # fmt: skip
        assert all(bool(torch.isfinite(part).all()) for part in found), found
        assert 0 <= float(found[1]) <= 12
        # eigenvalues of a decomposition err by rounding times the largest
        lam = block.eigenvalues.double()
        assert bool((lam >= 0).all())
        assert abs(float(found[0]) - float(torch.log(lam + delta).sum())) <= 1e-4 * 12
        again = block.rotate(found[2]).double() * (lam + delta)
        error = (again - block.rotate(v).double()).abs().max()
        largest = (float(lam.max()) + delta) * float(found[2].abs().max())
        assert float(error) <= 20 * torch.finfo(dtype).eps * (largest + 1)


@pytest.mark.parametrize("delta", DELTAS)
def test_updates_at_extreme_precisions(delta: float) -> None:
    """From any precision a step is finite, within bounds, and towards the same optimum."""
    for method in priors.METHODS:
        prior = priors.PathPrior({"w": ["w"]}, delta, (1e-8, 1e12))
        block, w = kron(torch.float32), torch.linspace(-1, 1, 12).reshape(3, 4)
        found = {"w": block}
        value = priors.log_evidence(-1.0, found, {"w": w}, prior)
        assert math.isfinite(value)
        prior.update(found, {"w": w}, method=method, step=0.5)
        assert bool(torch.isfinite(prior.log_precision).all())
        assert 1e-8 * (1 - 1e-9) <= float(prior.precision) <= 1e12 * (1 + 1e-9)


@pytest.mark.parametrize("name", [n for n in OPTIMISERS if n != "sgd"])
@pytest.mark.parametrize("delta", DELTAS)
def test_steps_at_extreme_precisions(name: str, delta: float) -> None:
    """Plain gradient descent is left out: it needs a rate below two over the precision."""
    w = nn.Parameter(torch.linspace(-1, 1, 12))
    optimiser = OPTIMISERS[name]({"w": w}, 100.0, 0.01)
    optimiser.set_precisions({"w": delta})
    for _ in range(5):
        optimiser.zero_grad()
        w.sum().backward()
        optimiser.step()
    assert bool(torch.isfinite(w).all())


def test_gradients_are_summed_in_double() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    x = torch.ones(1, 1)
    batches = [(x, y * x) for y in (1e8, 1.0, -1e8)]
    grads, *_ = total_gradients(net, batches, curvature.Gaussian(), {"weight"})
    assert float(grads["weight"]) == -1.0


def test_factors_of_many_batches_keep_their_digits() -> None:
    """Sums of equal terms, where rounding always goes one way, in hundreds of batches."""
    net = nn.Linear(1, 1, bias=False)
    x, n = torch.full((1, 1), 1.1), 800
    batches = [(x, torch.zeros(1, 1))] * n
    block = curvature.kronecker(net, batches, "gaussian")["weight"]
    assert float(block.eigenvalues) == pytest.approx(n * float(x) ** 2, rel=1e-4)


def test_what_is_clamped_is_told() -> None:
    assert Factor(torch.diag(torch.tensor([1.0, 3.0]))[None]).clamped_mass == 0
    negative = Factor(torch.diag(torch.tensor([1.0, -0.25]))[None])
    assert negative.values.tolist() == [[0.0, 1.0]]
    assert negative.clamped_mass == pytest.approx(0.25 / 0.75)
    assert negative.scaled(3.0).clamped_mass == negative.clamped_mass
    beyond = Factor(torch.eye(3)[None], rank=2)
    assert beyond.clamped_mass == pytest.approx(1 / 3)
    assert Factor(torch.zeros(1, 2, 2)).clamped_mass == 0
    net, x = make("strided")
    single = curvature.kronecker(net.float(), (x.float(), torch.arange(4) % 3))
    double = curvature.kronecker(net.double(), (x, torch.arange(4) % 3))
    assert 0 < single.clamped_mass < 1e-5
    assert double.clamped_mass < 1e-13
