"""A pass leaves the model exactly as it was, reads the right gradients, and no others."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import curvature
from curvature import Call, Rule, evaluating, register_rule, watch
from tests.cases import case
from tests.oracles import assert_near, per_parameter

pytestmark = pytest.mark.core


class Fails(nn.Module):
    """Raises on the nth call."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the forward pass broke")
        return x


def busy_model(fail_after: int = 10**9) -> nn.Module:
    """A network with every kind of state: modes, buffers, hooks, gradients, frozen parts."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(2),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        Fails(fail_after),
        nn.Flatten(),
        nn.Linear(32, 4),
        nn.ReLU(inplace=True),
        nn.Linear(4, 3),
    ).double()
    model.train()
    model[3].eval()
    model[6].eval()
    model[8].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[0].register_forward_hook(lambda module, args, out: None)
    model[6].register_forward_pre_hook(lambda module, args: None)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a pass could change."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [
            (tuple(m._forward_hooks), tuple(m._forward_pre_hooks), tuple(m._backward_hooks))
            for m in model.modules()
        ],
        "tensors": {k: v.clone() for k, v in model.state_dict(keep_vars=False).items()},
        "versions": {k: v._version for k, v in model.state_dict(keep_vars=True).items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in ("modes", "hooks", "versions", "requires", "attributes"):
        assert before[key] == after[key], key
    assert list(before["tensors"]) == list(after["tensors"])
    for key, value in before["tensors"].items():
        assert torch.equal(value, after["tensors"][key]), key
    for a, b in zip(before["grads"], after["grads"], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


DATA = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
COMPUTE = {
    "kronecker": lambda m: curvature.kronecker(m, DATA, batch_size=2),
    "ekfac": lambda m: curvature.kronecker(m, DATA, ekfac=True, batch_size=2),
    "sketch": lambda m: curvature.kronecker(m, DATA, estimator="sketch", batch_size=2),
    "dense_ggn": lambda m: curvature.dense_ggn(m, DATA, batch_size=2),
}


@pytest.mark.parametrize("how", COMPUTE)
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(how: str, broken: bool) -> None:
    model = busy_model(fail_after=2 if broken else 10**9)
    before = state(model)
    expected = (
        pytest.raises((RuntimeError, ValueError), match="forward pass broke")
        if broken
        else contextlib.nullcontext()
    )
    with expected:
        COMPUTE[how](model)
    assert_unchanged(before, state(model))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m[1].eval(),
        lambda m: m[1].running_mean.add_(1),
        lambda m: m[0].register_forward_hook(lambda *a: None),
        lambda m: setattr(m[0].weight, "grad", None),
        lambda m: setattr(m[8].bias, "grad", torch.zeros(3).double()),
        lambda m: m[0].requires_grad_(False),
        lambda m: m[0].weight.data.mul_(1 + 1e-15),
        lambda m: setattr(m[0], "note", 1),
    ],
)
def test_assert_unchanged_notices(spoil: Any) -> None:
    model = busy_model()
    before = state(model)
    spoil(model)
    with pytest.raises(AssertionError):
        assert_unchanged(before, state(model))


def test_evaluating_restores_modes_after_an_exception() -> None:
    model = busy_model()
    before = state(model)["modes"]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(m.training for m in model.modules())
        raise KeyError
    assert state(model)["modes"] == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("how", COMPUTE)
def test_the_callers_gradient_mode_does_not_matter(context: Any, how: str) -> None:
    model = busy_model()
    want = COMPUTE[how](model)
    with context():
        enabled, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        got = COMPUTE[how](model)
        assert torch.is_grad_enabled() == enabled
        assert torch.is_inference_mode_enabled() == inference
    if how == "dense_ggn":
        assert_near(got, want, 1e-12)
    else:
        for name, block in got.items():
            assert_near(block.to_dense(), want[name].to_dense(), 1e-12)


def test_data_made_in_inference_mode() -> None:
    model, (x, y) = case("mlp").make()
    with torch.inference_mode():
        data = x * 1, y * 1
        got = curvature.kronecker(model, data)
    assert_near(got["0.bias"].to_dense(), curvature.kronecker(model, (x, y))["0.bias"].to_dense())


def test_a_module_called_twice_adds_both_calls() -> None:
    model, data = case("twice").make(n=1)
    found = curvature.kronecker(model, data, ekfac=True)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for name, block in found.items():
        assert_near(block.eigenvalues.sum(), exact[name].trace())
    assert curvature.kronecker(model, data)["inner.weight"].count == 2


def test_watch_reports_calls_in_order_and_leaves_no_hook() -> None:
    model, (x, _) = case("twice").make()
    calls: list[Call] = []
    with watch([model.inner, model.head], calls.append):
        out = model(x)
    assert [call.module for call in calls] == [model.inner, model.inner, model.head]
    assert torch.equal(calls[0].inputs, x)
    assert not calls[0].inputs.requires_grad
    assert torch.equal(calls[2].zeros, torch.zeros_like(out))
    assert calls[2].zeros.untyped_storage().nbytes() == out.element_size()
    assert not calls[2].zeros.requires_grad
    assert all(not m._forward_hooks for m in model.modules())
    model(x)
    assert len(calls) == 3


def test_watch_turns_gradients_on_and_off_again() -> None:
    model, (x, _) = case("twice").make()
    calls: list[Call] = []
    with torch.no_grad():
        with watch([model.head], calls.append):
            out = model(x)
        assert not torch.is_grad_enabled()
    (g,) = torch.autograd.grad(out.sum(), [calls[0].edge])
    assert_near(g, torch.ones_like(out))


def test_frozen_calls_are_not_reported() -> None:
    model, (x, _) = case("twice").make()
    calls: list[Call] = []
    with watch([model.inner, model.head], calls.append):
        model.requires_grad_(False)(x)
    assert calls == []


def test_keyword_inputs_are_seen() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(input=x)
            return out

    model, x = Keyword().double(), torch.randn(4, 3, dtype=torch.float64)
    found = curvature.kronecker(model, (x, torch.zeros(4).long()))
    assert_near(found["inner.weight"].inputs.matrix[0], x.T @ x)


def test_another_hook_may_replace_the_output() -> None:
    model, data = case("mlp").make()
    model[0].register_forward_hook(lambda module, args, out: 2 * out)
    found = curvature.kronecker(model, data, ekfac=True)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for name, block in found.items():
        assert_near(block.eigenvalues.sum(), exact[name].trace())


@pytest.mark.parametrize("out", [lambda y: (y, y), lambda y: {"y": y}])
def test_modules_with_rules_return_one_tensor(out: Any) -> None:
    class Several(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return out(super().forward(x))

    register_rule(Several)(type("SeveralRule", (Rule,), {}))
    model = nn.Sequential(Several(3, 2), nn.Identity())
    kind = type(out(0)).__name__
    with pytest.raises(TypeError, match=f"Several maps Tensor to {kind}"):
        curvature.kronecker(model, (torch.randn(4, 3), torch.zeros(4).long()))
    assert not model[0]._forward_hooks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.detach(), "have no gradient"),
        (lambda f: f * float("nan"), "outputs contain NaN or infinite"),
        (lambda f: f[:2], r"returned \[2, 3\] for 5 samples; it must return one row per sample"),
        (lambda f: f.unsqueeze(-1), r"returned \[5, 3, 1\]"),
        (lambda f: (f, f), "returned tuple"),
    ],
)
def test_outputs_must_be_a_row_per_sample(change: Any, message: str) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return change(self.inner(x))

    with pytest.raises(ValueError, match=message):
        curvature.kronecker(Changed(), (torch.randn(5, 4), torch.zeros(5).long()))


def test_one_output_may_lack_its_axis() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    found = curvature.kronecker(model, (x, y), "gaussian")
    assert_near(found["0.weight"].to_dense(), x.T @ x)
    assert_near(curvature.dense_ggn(model, (x, y), "gaussian")[:3, :3], x.T @ x)


def test_overflow_names_the_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the inputs at 0.weight are not finite"):
        curvature.kronecker(model, (torch.full((3, 2), 1e30), torch.zeros(3).long()))


class SpiedConvolutions(TorchDispatchMode):
    """Notes which gradients each backward convolution computes: (input, weight, bias)."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


def test_gradients_of_convolution_weights_are_never_computed() -> None:
    model, (x, y) = case("cnn").make()
    with SpiedConvolutions() as spy:
        curvature.kronecker(model, (x, y))
    assert spy.masks
    assert all(mask[1:] == [False, False] for mask in spy.masks)
    with SpiedConvolutions() as spy:  # the spy does see them in training
        torch.autograd.grad(model(x).sum(), list(model.parameters()))
    assert any(mask[1] for mask in spy.masks)


class Spied(nn.Linear):
    """A linear layer that notes when the gradient of its weight is computed."""

    seen: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * 1.0  # a node of its own in the graph
        weight.register_hook(lambda g: self.seen.append("weight"))
        return nn.functional.linear(x, weight, self.bias)


register_rule(Spied)(type("SpiedRule", (Rule,), {}))


@pytest.mark.parametrize("options", [{}, {"ekfac": True}, {"estimator": "sketch"}], ids=str)
def test_gradients_of_linear_weights_are_never_computed(options: dict[str, Any]) -> None:
    model = nn.Sequential(Spied(3, 4), nn.Tanh(), Spied(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    for p in model.parameters():
        p.register_hook(lambda g: Spied.seen.append("parameter"))
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5).long()
    Spied.seen.clear()
    curvature.kronecker(model, (x, y), **options)
    assert Spied.seen == []
    assert all(p.grad is None for p in model.parameters())
    model(x).sum().backward()  # the spies do see a training step
    assert Spied.seen.count("weight") == 2
    assert Spied.seen.count("parameter") == 6
