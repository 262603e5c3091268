"""Coverage: every parameter is listed, and nothing is left out in silence."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import CoveredParameter, UncoveredParameterError, coverage
from tests.cases import case

pytestmark = pytest.mark.core


class Loud(nn.Conv2d):
    """A subclass with another forward: the rule of its parent would be wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight.mean()


def mixed() -> nn.Module:
    """Every kind of parameter: ruled, frozen, normalising, and of three layers without a rule."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        Loud(2, 2, 1),
        nn.GroupNorm(1, 2),
        nn.PReLU(2),
        nn.Conv2d(2, 2, 1),
        nn.Flatten(),
        nn.LayerNorm(18),
        nn.Linear(18, 3),
        nn.RMSNorm(3),
    )
    model[5].requires_grad_(False)
    model[8].bias.requires_grad_(False)
    return model


DATA = torch.randn(4, 1, 3, 3), torch.tensor([0, 1, 2, 0])
UNCOVERED = ["2.weight", "2.bias", "4.weight"]


def test_every_uncovered_parameter_is_named() -> None:
    for compute in (coverage, lambda model: curvature.kronecker(model, DATA)):
        with pytest.raises(UncoveredParameterError) as caught:
            compute(mixed())
        message = str(caught.value)
        assert "2.weight [2, 2, 1, 1] of Loud" in message
        assert "2.bias [2] of Loud" in message
        assert "4.weight [2] of PReLU" in message
        for remedy in ("register_rule", "fallback='diagonal'", "requires_grad_(False)"):
            assert remedy in message
        for name in ("0.weight", "1.weight", "5.weight", "7.weight", "8.weight"):
            assert name not in message


@pytest.mark.parametrize("fallback", ["dense", "diagonal", "fixed"])
def test_the_table_lists_every_parameter_once(fallback: str) -> None:
    model = mixed()
    table = coverage(model, fallback=fallback)
    assert [row.name for row in table] == [name for name, _ in model.named_parameters()]
    assert table.names("kronecker") == ["0.weight", "0.bias", "8.weight"]
    fixed = {row.name: row.reason for row in table if row.kind == "fixed"}
    frozen = {"5.weight", "5.bias", "8.bias"}
    norms = {"1.weight", "1.bias", "3.weight", "3.bias", "7.weight", "7.bias", "9.weight"}
    others = set(UNCOVERED) if fallback == "fixed" else set()
    assert set(fixed) == frozen | norms | others
    assert {fixed[name] for name in frozen} == {"frozen (requires_grad=False)"}
    assert {fixed[name] for name in norms} == {"normalisation scale or shift"}
    if fallback != "fixed":
        assert table.names(fallback) == UNCOVERED
    row = table[0]
    assert row == CoveredParameter(
        "0.weight", "kronecker", "Conv2d", (2, 1, 3, 3), "rule of Conv2d"
    )
    for row in table:
        line = next(line for line in str(table).splitlines() if line.startswith(f"{row.name} "))
        assert row.kind in line
        assert "x".join(map(str, row.shape)) in line


@pytest.mark.parametrize("fallback", ["dense", "diagonal", "fixed"])
def test_the_curvature_holds_what_the_table_says(fallback: str) -> None:
    model = mixed()
    found = curvature.kronecker(model, DATA, fallback=fallback)
    assert found.coverage == coverage(model, fallback=fallback)
    assert list(found) == [row.name for row in found.coverage if row.kind != "fixed"]
    kinds = {
        "kronecker": curvature.KroneckerBlocks,
        "dense": curvature.DenseBlock,
        "diagonal": curvature.DiagonalBlock,
    }
    for row in found.coverage:
        if row.kind != "fixed":
            assert type(found[row.name]) is kinds[row.kind]


def test_frozen_parameters_do_not_change_the_others() -> None:
    which = case("cnn")
    model, data = which.make()
    want = curvature.kronecker(model, data)
    for frozen in list(want):
        model.requires_grad_(True)
        model.get_parameter(frozen).requires_grad_(False)
        got = curvature.kronecker(model, data)
        assert list(got) == [name for name in want if name != frozen]
        for name, block in got.items():
            torch.testing.assert_close(block.to_dense(), want[name].to_dense(), rtol=1e-12, atol=0)


def test_a_frozen_network_has_no_curvature() -> None:
    model, data = case("mlp").make()
    found = curvature.kronecker(model.requires_grad_(False), data)
    assert len(found) == 0
    assert found.n_data == 5
    assert found.coverage.names("fixed") == [name for name, _ in model.named_parameters()]


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).tanh())
        return out


class TwoNames(nn.Linear):
    """One parameter under two names of one module."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.again = self.weight


def test_tied_parameters_are_refused_by_name() -> None:
    with pytest.raises(UncoveredParameterError) as caught:
        coverage(Tied())
    assert "first.weight [3, 3] of Linear: shared by several modules" in str(caught.value)
    assert "second.weight" not in str(caught.value)
    assert "bias" not in str(caught.value)
    with pytest.raises(UncoveredParameterError, match="weight .* shared by several modules"):
        coverage(TwoNames())


def test_one_module_under_two_names_is_not_tied() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert coverage(model).names("kronecker") == ["0.weight", "0.bias"]


def test_subclass_and_replaced_forward_are_not_covered() -> None:
    with pytest.raises(UncoveredParameterError, match="weight .* of Loud"):
        coverage(Loud(1, 1, 1))
    conv = nn.Conv2d(1, 1, 1)
    conv.forward = lambda x: x * conv.weight.sum()  # type: ignore[method-assign]
    with pytest.raises(UncoveredParameterError, match="weight .* of Conv2d"):
        coverage(conv)


def test_parametrised_weights_are_not_covered() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(UncoveredParameterError, match="original0"):
        coverage(layer)


def test_only_some() -> None:
    model, data = case("mlp").make()
    table = coverage(model, only=["2.bias", "0.weight"])
    assert table.names("kronecker") == ["0.weight", "2.bias"]
    assert {row.reason for row in table if row.kind == "fixed"} == {"not asked for"}
    assert list(curvature.kronecker(model, data, only=["2.bias"])) == ["2.bias"]
    # parameters without a rule do not matter when they are not asked for
    assert coverage(mixed(), only=["0.weight"]).names("kronecker") == ["0.weight"]
    assert coverage(model, only=[]).names("kronecker") == []


def test_only_must_name_parameters_that_have_a_curvature() -> None:
    with pytest.raises(ValueError, match=r"no parameters named \['0.wieght', '7'\]"):
        coverage(mixed(), only=["0.wieght", "0.bias", "7"])
    with pytest.raises(ValueError, match="have no curvature") as caught:
        coverage(mixed(), only=["0.weight", "1.weight", "5.bias"])
    assert "1.weight [2] of BatchNorm2d: normalisation scale or shift" in str(caught.value)
    assert "5.bias [2] of Conv2d: frozen" in str(caught.value)
    with pytest.raises(UncoveredParameterError, match="4.weight"):
        coverage(mixed(), only=["4.weight"])
    with pytest.raises(TypeError, match="is one string; give a list"):
        coverage(mixed(), only="0.weight")


class Scaled(nn.Module):
    """A linear map with a scale, which a rule speaks for, and a temperature, a hyperparameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))
        self.scale, self.temperature = (nn.Parameter(torch.rand(())) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * (x @ self.weight.T) / self.temperature
        return out


@curvature.register_rule(Scaled)
class ScaledRule(curvature.Rule):
    """States the kinds of the parameters that are no weights."""

    bias = None
    others: ClassVar[dict[str, str]] = {"scale": "diagonal", "temperature": "fixed"}

    def grads(self, module: Any, g: Tensor) -> Tensor:
        """The scales belong to V."""
        return super().grads(module, g) * module.scale.detach() / module.temperature.detach()


def test_a_rule_states_the_kinds_of_other_parameters() -> None:
    model, data = Scaled(), (torch.randn(4, 3), torch.randn(4, 2))
    curvature.testing.assert_rule(model, data[0])
    table = coverage(model)
    assert {row.name: row.kind for row in table} == {
        "weight": "kronecker",
        "scale": "diagonal",
        "temperature": "fixed",
    }
    assert {row.reason for row in table} == {"rule of Scaled"}
    found = curvature.kronecker(model, data, "gaussian")
    outputs = model(data[0]) / model.scale
    assert list(found) == ["weight", "scale"]
    assert not found["scale"].eigenvalues.requires_grad  # the graph of the others is not kept
    torch.testing.assert_close(
        found["scale"].eigenvalues, outputs.detach().square().sum().reshape(1)
    )


def test_unknown_fallback_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown fallback 'full'; choose one of \['error'"):
        coverage(nn.Linear(2, 2), fallback="full")


class Idle(nn.Module):
    """Holds two layers that its forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.one, self.two = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


def test_modules_that_are_never_called_are_all_named() -> None:
    data = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="the forward pass never called") as caught:
        curvature.kronecker(Idle(), data)
    assert "one.weight of Linear" in str(caught.value)
    assert "two.weight of Linear" in str(caught.value)
    assert "used" not in str(caught.value)
    found = curvature.kronecker(Idle(), data, only=["used.weight", "used.bias"])
    assert list(found) == ["used.weight", "used.bias"]
