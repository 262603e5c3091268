"""The dense GGN against loops, and the fallbacks against the dense GGN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import dense, fallback
from tests.cases import CASES, Case, MeanOver, case
from tests.oracles import assert_near, loop_ggn, per_parameter

pytestmark = pytest.mark.core


@pytest.mark.parametrize("which", CASES, ids=str)
def test_dense_ggn_is_the_loop(which: Case) -> None:
    model, data = which.make(n=3)
    want = loop_ggn(model, data, which.likelihood)
    for batch_size in (2, 64):
        got = curvature.dense_ggn(model, data, which.likelihood, batch_size=batch_size)
        assert_near(got, want)


def test_frozen_parameters_are_left_out() -> None:
    model, data = case("mlp").make()
    whole = per_parameter(model, curvature.dense_ggn(model, data))
    model[0].requires_grad_(False)
    part = per_parameter(model, curvature.dense_ggn(model, data))
    assert list(part) == ["2.weight", "2.bias"]
    for name, matrix in part.items():
        assert_near(matrix, whole[name])


def test_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = case("mlp").make()
    monkeypatch.setattr(dense, "MAX_PARAMETERS", 42)
    with pytest.raises(
        ValueError, match="43 trainable parameters; the dense matrix is for 1 to 42"
    ):
        curvature.dense_ggn(model, data)
    with pytest.raises(ValueError, match="0 trainable parameters"):
        curvature.dense_ggn(model.requires_grad_(False), data)


class Gain(nn.Module):
    """A layer without a rule: one scale per feature, and one for all."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(features) + 0.5)
        self.total = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.total * self.scale * x


def ruleless() -> nn.Module:
    """A network with rules, without rules, and with a parameter used by two modules."""
    first, second = Gain(4), Gain(4)
    second.scale = first.scale
    return nn.Sequential(nn.Linear(3, 4), first, nn.Tanh(), second, nn.Linear(4, 3)).double()


@pytest.mark.parametrize("name", ["categorical", "gaussian"])
def test_fallback_blocks_are_the_dense_ggns(name: str) -> None:
    model, x = ruleless(), torch.randn(6, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 2]) if name == "categorical" else x.square()
    exact = per_parameter(model, curvature.dense_ggn(model, (x, y), name))
    found = curvature.kronecker(model, (x, y), name, fallback="dense", batch_size=4)
    assert found.coverage.names("dense") == ["1.scale", "1.total", "3.total"]
    assert list(found) == list(exact)
    diagonal = curvature.kronecker(model, (x, y), name, fallback="diagonal")
    assert diagonal.coverage.names("diagonal") == ["1.scale", "1.total", "3.total"]
    for key in found.coverage.names("dense"):
        assert isinstance(found[key], curvature.DenseBlock)
        assert isinstance(diagonal[key], curvature.DiagonalBlock)
        assert found[key].shape == diagonal[key].shape == model.get_parameter(key).shape
        assert_near(found[key].to_dense(), exact[key])
        assert_near(diagonal[key].to_dense().diagonal(), exact[key].diagonal())
    plain = curvature.kronecker(model, (x, y), name, fallback="fixed")
    assert list(plain) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    for key in plain:
        assert_near(found[key].to_dense(), plain[key].to_dense())


def test_dense_fallback_is_limited_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = ruleless(), (torch.randn(6, 3), torch.zeros(6).long())
    monkeypatch.setattr(fallback, "MAX_PARAMETERS", 3)
    with pytest.raises(ValueError, match=r"\['1.scale'\] have more than 3 elements"):
        curvature.kronecker(model, data, fallback="dense")
    curvature.kronecker(model, data, fallback="diagonal")


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_statistics_of_the_batch_are_refused(layer: type[nn.Module]) -> None:
    shape = (5, 3) if layer is nn.BatchNorm1d else (5, 3, 2, 2)
    norm = layer(3, track_running_stats=False)
    flat = nn.Flatten() if layer is nn.BatchNorm1d else MeanOver(2, 3)
    model, data = (
        nn.Sequential(norm, flat, nn.Linear(3, 2)),
        (torch.randn(shape), torch.zeros(5).long()),
    )
    for compute in (curvature.kronecker, curvature.dense_ggn):
        with pytest.raises(ValueError, match=r"\['0'\] normalise with the statistics of the batch"):
            compute(model, data)
