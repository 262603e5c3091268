"""The convolution rule for shapes that nobody thought of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvature import rule_for
from curvature.testing import assert_rule
from tests.oracles import assert_near, slow_patches

pytestmark = [
    pytest.mark.core,
    # torch, about even kernels with padding="same"; it needs nobody's attention
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),
]

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = ("zeros", "circular", "reflect", "replicate")


@dataclass(frozen=True)
class Shape:
    """A convolution and the shape of a batch for it."""

    dims: int
    options: dict[str, object]
    x: tuple[int, ...]

    def make(self) -> nn.Module:
        return CONVS[self.dims](**self.options)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    dims = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    dilation = [draw(st.integers(1, 2)) for _ in range(dims)]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    # "same" asks for stride one; circular and reflecting pads must be smaller than the map
    stride = [1 if padding == "same" else draw(st.integers(1, 3)) for _ in range(dims)]
    sizes = [draw(st.integers(span, span + 3)) for span in spans]
    numbers = tuple(draw(st.integers(0, min(2, size - 1))) for size in sizes)
    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": tuple(kernel),
        "stride": tuple(stride),
        "padding": numbers if padding == "numbers" else padding,
        "dilation": tuple(dilation),
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(MODES)),
    }
    return Shape(dims, options, (draw(st.integers(1, 3)), options["in_channels"], *sizes))


@settings(max_examples=200)
@given(shapes())
def test_any_convolution(shape: Shape) -> None:
    assert_rule(shape.make(), torch.randn(shape.x))


@settings(max_examples=40)
@given(shapes())
def test_any_patches(shape: Shape) -> None:
    conv, x = shape.make(), torch.randn(shape.x)
    patches = rule_for(conv).inputs(conv, x)
    assert patches.shape[2] == conv.groups
    assert_near(patches.flatten(2), slow_patches(conv, x), 0.0)


@settings(max_examples=20)
@given(
    st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3), st.integers(1, 3)
)
def test_any_linear(n: int, shared: list[int], inputs: int, outputs: int) -> None:
    assert_rule(nn.Linear(inputs, outputs), torch.randn(n, *shared, inputs))
