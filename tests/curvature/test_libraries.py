"""Other libraries as oracles, where they are right, and the evidence where they are not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
import priors
from tests.conftest import need
from tests.oracles import assert_near, per_parameter

laplace = need("laplace")
backends = need("laplace.curvature")

# asdl hooks backward passes in a way that torch is about to give up
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")

NOISE = 0.7
Data = tuple[Tensor, Tensor]


@pytest.fixture(params=["AsdlGGN", "CurvlinopsGGN"])
def backend(request: pytest.FixtureRequest) -> Any:
    return getattr(backends, request.param)


def data_for(likelihood: str, n: int, *shape: int) -> Data:
    x = torch.randn(n, *shape, dtype=torch.float64)
    if likelihood == "categorical":
        return x, torch.randint(3, (n,))
    return x, torch.randn(n, 3, dtype=torch.float64)


def fitted(model: nn.Module, data: Data, likelihood: str, backend: Any) -> Any:
    """laplace-torch's KronLaplace after a pass over the data in batches of 8."""
    regression = likelihood == "gaussian"
    found = laplace.Laplace(
        model,
        "regression" if regression else "classification",
        subset_of_weights="all",
        hessian_structure="kron",
        backend=backend,
        **({"sigma_noise": NOISE} if regression else {}),
    )
    found.fit(DataLoader(TensorDataset(*data), batch_size=8))
    return found


def ours(model: nn.Module, data: Data, likelihood: str) -> curvature.KroneckerCurvature:
    own = curvature.Gaussian(NOISE) if likelihood == "gaussian" else likelihood
    return curvature.kronecker(model, data, own, batch_size=8)


def evidence(model: nn.Module, found: curvature.KroneckerCurvature, precision: Tensor) -> float:
    prior = priors.PathPrior({name: [name] for name in found}, precision)
    return priors.log_evidence(found.log_likelihood, found, dict(model.named_parameters()), prior)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 3),
    ).double()


PRECISIONS = {
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "per tensor": torch.linspace(0.5, 4, 6, dtype=torch.float64),
}


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_evidence_of_a_zero_padded_cnn(likelihood: str, backend: Any) -> None:
    model, data = cnn(), data_for(likelihood, 20, 1, 6, 6)
    theirs, found = fitted(model, data, likelihood, backend), ours(model, data, likelihood)
    for precision in PRECISIONS.values():
        want = float(theirs.log_marginal_likelihood(prior_precision=precision))
        assert math.isfinite(want)
        assert evidence(model, found, precision) == pytest.approx(want, rel=1e-9)
    # the numbers move with the model, so the agreement says something
    other = ours(cnn(), data, likelihood)
    assert evidence(model, other, precision) != pytest.approx(want, rel=1e-3)


def test_factors_of_a_zero_padded_cnn(backend: Any) -> None:
    model, data = cnn(), data_for("categorical", 20, 1, 6, 6)
    theirs, found = fitted(model, data, "categorical", backend), ours(model, data, "categorical")
    for block, factors in zip(found.values(), theirs.H_facs.kfacs, strict=True):
        want = factors[0] if len(factors) == 1 else torch.kron(*factors)
        assert_near(block.to_dense(), want, 1e-9)


def circular(explicit: bool, weight: Tensor, bias: Tensor) -> nn.Module:
    """A circular convolution with one output site, whose window hangs over two borders."""
    if explicit:
        conv = nn.Conv2d(2, 4, 3, stride=3)
        front = nn.Sequential(nn.CircularPad2d((1, 0, 1, 0)), conv)
    else:
        conv = nn.Conv2d(2, 4, 3, stride=3, padding=1, padding_mode="circular")
        front = conv
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    torch.manual_seed(5)
    head = nn.Linear(4, 3)
    return nn.Sequential(front, nn.Tanh(), nn.Flatten(), head).double()


def test_circular_padding_is_right_here_and_wrong_there(backend: Any) -> None:
    """One sample and one site: Kronecker factors are exact, so whoever differs is wrong."""
    weight, bias = torch.randn(4, 2, 3, 3), torch.randn(4)
    inner, outer = circular(False, weight, bias), circular(True, weight, bias)
    data = data_for("categorical", 1, 2, 3, 3)
    assert_near(inner(data[0]), outer(data[0]))
    assert inner[0](data[0]).shape == (1, 4, 1, 1)
    exact = per_parameter(inner, curvature.dense_ggn(inner, data))["0.weight"]
    assert_near(ours(inner, data, "categorical")["0.weight"].to_dense(), exact)

    def trace(model: nn.Module) -> float:
        g, a = fitted(model, data, "categorical", backend).H_facs.kfacs[0]
        return float(g.trace() * a.trace())

    assert trace(outer) == pytest.approx(float(exact.trace()), rel=1e-9)
    assert abs(trace(inner) / float(exact.trace()) - 1) > 0.05


def test_corrected_trace_of_a_circular_cnn_is_exact(backend: Any) -> None:
    """Many sites: the corrected trace is exact, and theirs is farther off than with padding."""
    conv = nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")
    padded = nn.Conv2d(1, 3, 3)
    padded.load_state_dict(conv.state_dict())
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    inner = nn.Sequential(conv, head).double()
    outer = nn.Sequential(nn.Sequential(nn.CircularPad2d(1), padded), head).double()
    data = data_for("categorical", 20, 1, 4, 4)
    exact = per_parameter(inner, curvature.dense_ggn(inner, data))["0.weight"]
    better = curvature.kronecker(inner, data, ekfac=True)["0.weight"]
    assert_near(better.eigenvalues.sum(), exact.trace())
    plain = ours(inner, data, "categorical")["0.weight"]
    g, a = fitted(outer, data, "categorical", backend).H_facs.kfacs[0]
    assert_near(plain.to_dense(), torch.kron(g, a), 1e-9)
    g, a = fitted(inner, data, "categorical", backend).H_facs.kfacs[0]
    theirs = torch.kron(g, a)
    assert float((theirs - plain.to_dense()).norm() / plain.to_dense().norm()) > 0.05
    assert float((theirs - exact).norm()) > float((plain.to_dense() - exact).norm())
