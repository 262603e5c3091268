"""Sums of outer products by shortcuts, against the sums themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvature import gram as module
from curvature.gram import gram, patch_gram
from curvature.rules import ConvRule, rule_for
from tests.oracles import assert_near

pytestmark = pytest.mark.core

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    axes, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    each = {
        what: [draw(st.integers(1, most)) for _ in range(axes)]
        for what, most in (("kernel_size", 4), ("stride", 4), ("dilation", 3))
    }
    spans = [d * (k - 1) + 1 for k, d in zip(each["kernel_size"], each["dilation"], strict=True)]
    size = [span + draw(st.integers(0, 7)) for span in spans]
    channels = groups * draw(st.integers(1, 2))
    conv = CONVS[axes](channels, groups, groups=groups, **each).double()
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    return conv, x


@settings(deadline=None, max_examples=80)
@given(convolutions())
def test_sliding_windows_are_the_unfolded_patches(given_: tuple[Any, torch.Tensor]) -> None:
    conv, x = given_
    patches = ConvRule(conv).inputs(conv, x)
    want = torch.einsum("nrbi,nrbj->bij", patches, patches)
    got = patch_gram(x, conv.kernel_size, conv.stride, conv.dilation, conv.groups)
    assert_near(got, want, 1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_the_rule_pads_as_the_convolution(mode: Any) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=2, padding_mode=mode).double()
    rule = rule_for(conv)
    assert rule is not None
    x = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    patches = rule.inputs(conv, x)
    want = torch.einsum("nrbi,nrbj->bij", patches, patches)
    assert_near(rule.input_gram(conv, x), want, 1e-12)


def test_samples_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    whole = patch_gram(x, (3, 3), (1, 1), (1, 1))
    monkeypatch.setattr(module, "_CHUNK", 1)
    assert_near(patch_gram(x, (3, 3), (1, 1), (1, 1)), whole, 1e-13)


@pytest.mark.parametrize("shape", [(4, 7, 2, 3), (4, 1, 1, 5), (3, 2, 4, 6)])
def test_gram_with_many_and_with_few_positions(shape: tuple[int, ...]) -> None:
    v = torch.randn(shape, dtype=torch.float64)
    assert_near(gram(v), torch.einsum("nrbi,nrbj->bij", v, v), 1e-13)


def test_half_precision_is_summed_in_single() -> None:
    v = torch.full((4, 300, 1, 2), 30.0, dtype=torch.float16)
    assert gram(v).dtype == torch.float32
    assert float(gram(v)[0, 0, 0]) == pytest.approx(1200 * 900)
    x = torch.full((4, 1, 40, 8), 30.0, dtype=torch.float16)
    assert float(patch_gram(x, (1,) * 2, (1, 1), (1, 1))[0, 0, 0]) == pytest.approx(1280 * 900)


def test_a_subclass_with_other_patches_has_its_own_sums() -> None:
    class Doubled(ConvRule):
        def inputs(self, module: Any, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().inputs(module, x)

    conv, x = nn.Conv2d(1, 1, 3).double(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    stock = rule_for(conv)
    assert stock is not None
    assert_near(Doubled(conv).input_gram(conv, x), 4 * stock.input_gram(conv, x), 1e-12)
