"""A relaxed layer is the sum of its paths and a bias."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from symlearn import RelaxedLayer
from symlearn.blocklinear import BlockLinear
from symlearn.paths import FC, FFC, Conv
from symlearn.relaxed import relaxed_layers
from tests.paths.slow import conv_geometry, slow_conv, slow_fc, slow_ffc

pytestmark = pytest.mark.core
D = torch.float64


def layer(bias: bool = True) -> RelaxedLayer:
    """All paths, strided, with random weights."""
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    made = RelaxedLayer(conv_geometry(conv, (5, 4)), (Conv(), FC(), FFC()), bias).double()
    made.reset_parameters(torch.Generator().manual_seed(0))
    if made.bias is not None:
        nn.init.normal_(made.bias)
    return made


def inputs() -> Tensor:
    return torch.randn(3, 2, 5, 4, dtype=D)


def test_the_layer_is_the_sum_of_its_paths_and_its_bias() -> None:
    relaxed, x = layer(), inputs()
    geo, paths = relaxed.geometry, relaxed.named_paths()
    expected = (
        slow_conv(paths["conv"].conv.weight.detach(), x, geo)
        + slow_fc(paths["fc"].linear.weight.detach(), x, geo)
        + slow_ffc(paths["ffc"].theta1.weight.detach(), paths["ffc"].theta2.weight.detach(), x, geo)
        + relaxed.bias.detach().reshape(1, -1, 1, 1)
    )
    torch.testing.assert_close(relaxed(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("off", [("fc",), ("conv", "ffc"), ("conv", "fc", "ffc")])
@pytest.mark.parametrize("bias", [True, False])
def test_paths_that_are_off_are_left_out(off: tuple[str, ...], bias: bool) -> None:
    relaxed, x = layer(bias), inputs()
    rest = copy.deepcopy(relaxed)
    for name in off:
        relaxed.path(name).switch_off()
        # not merely zero: an absent path is not computed
        relaxed.path(name).forward = lambda x: pytest.fail("an absent path was computed")
        for p in rest.path(name).parameters():
            nn.init.zeros_(p)
    torch.testing.assert_close(relaxed(x), rest(x), rtol=0, atol=1e-13)
    assert relaxed(x).shape == (3, 3, 3, 2)


def test_no_bias() -> None:
    assert layer(bias=False).bias is None
    assert not layer(bias=False)(0 * inputs()).any()


@pytest.mark.parametrize("shape", [(3, 2, 5, 5), (3, 1, 5, 4), (2, 5, 4), (3, 2, 5)])
def test_other_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \[N, 2, 5, 4\], got .*wrap the model again"):
        layer()(torch.zeros(shape, dtype=D))


def test_paths_by_name() -> None:
    relaxed = layer()
    assert list(relaxed.named_paths()) == ["conv", "fc", "ffc"]
    assert relaxed.path("fc") is relaxed.paths["fc"]
    with pytest.raises(KeyError, match=r"no path 'gconv'.*\['conv', 'fc', 'ffc'\]"):
        relaxed.path("gconv")
    relaxed.paths["alien"] = nn.Identity()
    with pytest.raises(TypeError, match="'alien' is a Identity, not a Path"):
        relaxed.path("alien")


def test_relaxed_layers_by_name() -> None:
    one, two = layer(), layer()
    net = nn.ModuleDict({"a": nn.Sequential(one), "b": two, "again": one})
    assert relaxed_layers(net) == {"a.0": one, "b": two}
    assert relaxed_layers(one) == {"": one}


def test_block_linear_is_one_matrix_per_block() -> None:
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1)):
        linear = BlockLinear((2, 3, 4), order).double()
        nn.init.normal_(linear.weight)
        blocks = linear.blocks()
        x = torch.randn(5, blocks.shape[0], blocks.shape[2], dtype=D)
        slow = torch.stack(
            [torch.stack([w @ v for w, v in zip(blocks, n, strict=True)]) for n in x]
        )
        torch.testing.assert_close(linear(x), slow, rtol=0, atol=1e-13)
        rule = curvature.rule_for(linear)
        assert torch.equal(rule.to_blocks(linear.weight), blocks)
        assert torch.equal(rule.from_blocks(blocks), linear.weight)


def test_the_bias_has_a_curvature() -> None:
    """A single sample, a single site: the Kronecker block is exact."""
    conv = nn.Conv2d(2, 3, 1)
    relaxed = RelaxedLayer(conv_geometry(conv, (1, 1)), (Conv(),)).double()
    relaxed.reset_parameters(torch.Generator().manual_seed(0))
    net = nn.Sequential(relaxed, nn.Flatten())
    relaxed.path("conv").requires_grad_(False)
    data = (torch.randn(1, 2, 1, 1, dtype=D), torch.tensor([1]))
    found = curvature.kronecker(net, data)["0.bias"].to_dense()
    torch.testing.assert_close(found, curvature.dense_ggn(net, data))
