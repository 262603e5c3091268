"""Output covariances against laplace-torch's GLM predictive, where both hold the same matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
from tests.conftest import need
from tests.oracles import assert_near

laplace = need("laplace")
backends = need("laplace.curvature")

# asdl hooks backward passes in a way that torch is about to give up
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("backend", ["AsdlGGN", "CurvlinopsGGN"])
def test_covariance_is_laplace_torchs(backend: str, likelihood: str) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(12, 4).double(), torch.arange(12) % 3
    data = (x, y) if likelihood == "categorical" else (x, torch.randn(12, 3).double())
    kind = "classification" if likelihood == "categorical" else "regression"
    precision = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    theirs = laplace.Laplace(
        copy.deepcopy(model),
        kind,
        subset_of_weights="all",
        hessian_structure="kron",
        backend=getattr(backends, backend),
        prior_precision=precision,
    )
    theirs.fit(DataLoader(TensorDataset(*data), batch_size=12))
    new = torch.randn(5, 4).double()
    mean, want = theirs._glm_predictive_distribution(new)
    blocks = curvature.kronecker(model, data, likelihood)
    delta = dict(zip(blocks, precision.tolist(), strict=True))
    outputs, got = curvature.functional_covariance(model, blocks, new, delta)
    assert_near(outputs, mean, 1e-9)
    assert_near(got, want, 1e-5)
    # other precisions are told apart
    other = curvature.functional_covariance(model, blocks, new, dict.fromkeys(blocks, 1.0))[1]
    assert float((other - want).abs().max()) > 1e-3 * float(want.abs().max())
