"""`assert_rule` must fail on a wrong rule, and on NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curvature import Rule, register_rule
from curvature.testing import assert_rule

pytestmark = pytest.mark.core


def layer_with(rule: type) -> nn.Module:
    """A layer ``[N, T, 3] -> [N, T, 2]`` of a class of its own, with the given rule."""

    class Layer(nn.Linear):
        pass

    register_rule(Layer)(rule)
    return Layer(3, 2)


class Right(Rule):
    pass


class InputsScaled(Rule):
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return 1.001 * super().inputs(module, x)


class InputsMoved(Rule):  # positions in another order than the gradients
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return super().inputs(module, x).roll(1, dims=1)


class SamplesMoved(Rule):
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return super().inputs(module, x).roll(1, dims=0)


class InputsNaN(Rule):
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return math.nan * super().inputs(module, x)


class InputsFlat(Rule):
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])


class InputsReduced(Rule):
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return super().inputs(module, x).mean(1, keepdim=True)


class InputsBesideTheWeight(Rule):  # adds what this very weight happens to map to zero
    def inputs(self, module: Any, x: Tensor) -> Tensor:
        return super().inputs(module, x) + torch.linalg.cross(*module.weight.detach())


class GradsHalved(Rule):
    def grads(self, module: Any, g: Tensor) -> Tensor:
        return 0.5 * super().grads(module, g)


class GradsSamplesMerged(Rule):
    def grads(self, module: Any, g: Tensor) -> Tensor:
        return g.reshape(1, -1, 1, g.shape[-1])


class LayoutTransposed(Rule):
    def to_blocks(self, weight: Tensor) -> Tensor:
        return weight.T.reshape(1, 2, 3)


class LayoutOfAnotherShape(Rule):
    def to_blocks(self, weight: Tensor) -> Tensor:
        return weight.T.unsqueeze(0)


class LayoutWithoutInverse(Rule):
    def from_blocks(self, blocks: Tensor) -> Tensor:
        return blocks.flip(1).reshape(2, 3)


class LayoutThatComputes(Rule):
    def to_blocks(self, weight: Tensor) -> Tensor:
        return 2 * weight.unsqueeze(0)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        return blocks[0] / 2


class NothingCovered(Rule):
    weight, bias = "wieght", None


class BiasUnderWeightsName(Rule):
    weight, bias = None, "weight"


WRONG = {
    InputsScaled: "output: .* off by",
    InputsMoved: "output: .* off by",
    SamplesMoved: "output: .* off by",
    InputsNaN: "off by nan",
    InputsFlat: "must be 4-axis",
    InputsReduced: r"differ in \[N, R, B\]",
    InputsBesideTheWeight: "per-sample gradients .* off by",
    GradsHalved: "output: .* off by",
    GradsSamplesMerged: "samples first",
    LayoutTransposed: "output: .* off by",
    LayoutOfAnotherShape: "to_blocks gives",
    LayoutWithoutInverse: "from_blocks",
    LayoutThatComputes: "output: .* off by",
    NothingCovered: "covers no parameter",
    BiasUnderWeightsName: "to_blocks gives",
}


@pytest.mark.parametrize("rule", WRONG)
def test_wrong_rule(rule: type[Rule]) -> None:
    with pytest.raises(AssertionError, match=WRONG[rule]):
        assert_rule(layer_with(rule), torch.randn(4, 5, 3))


def test_right_rule() -> None:
    assert_rule(layer_with(Right), torch.randn(4, 5, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_inputs_that_show_nothing(value: float) -> None:
    with pytest.raises(AssertionError, match="off by"):
        assert_rule(nn.Linear(3, 2), torch.full((4, 3), value))


def test_one_nan_is_enough() -> None:
    x = torch.randn(4, 3)
    x[2, 1] = math.nan
    with pytest.raises(AssertionError, match="off by nan"):
        assert_rule(nn.Linear(3, 2), x)


def test_bias_is_checked_too() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.bias

    register_rule(Scaled)(Right)
    with pytest.raises(AssertionError, match="per-sample gradients"):
        assert_rule(Scaled(3, 2), torch.randn(4, 3))


def test_weight_that_acts_nonlinearly() -> None:
    class Squared(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.square().T

    register_rule(Squared)(type("WeightOnly", (Rule,), {"bias": None}))
    with pytest.raises(AssertionError, match="off by"):
        assert_rule(Squared(3, 2, bias=False), torch.randn(4, 3))


def test_parameter_without_influence() -> None:
    class Idle(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(-1, keepdim=True).expand(*x.shape[:-1], 2) + self.bias

    register_rule(Idle)(Right)
    with pytest.raises(AssertionError, match="off by"):
        assert_rule(Idle(3, 2), torch.randn(4, 3))


def test_module_without_rule() -> None:
    with pytest.raises(AssertionError, match="no rule is registered for Bilinear"):
        assert_rule(nn.Bilinear(2, 2, 2), torch.randn(4, 2))


def test_module_whose_output_ignores_its_parameters() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    register_rule(Detached)(Right)
    with pytest.raises(AssertionError, match="no output that depends on a parameter"):
        assert_rule(Detached(3, 2), torch.randn(4, 3))


def test_the_module_is_left_alone() -> None:
    layer = nn.Linear(3, 2).train()
    before = [p.clone() for p in layer.parameters()]
    assert_rule(layer, torch.randn(4, 3))
    assert layer.training
    for p, old in zip(layer.parameters(), before, strict=True):
        assert torch.equal(p, old)
        assert p.dtype == torch.float32
        assert p.grad is None
