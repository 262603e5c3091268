"""Circular padding with a cheap gradient: the same function as torch's, to every order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvature.padding import FastPadding, pad_circular
from tests.oracles import assert_near

pytestmark = pytest.mark.core

CASES = [
    ((5, 6), (1, 2, 0, 3)),
    ((4,), (4, 1)),
    ((3, 4, 5), (1, 1, 0, 2, 3, 3)),
    ((4, 4), (4, 4, 4, 4)),
    ((4, 4), (0, 0, 0, 0)),
]


@pytest.mark.parametrize(("size", "pads"), CASES)
def test_values_and_derivatives_are_torchs(size: tuple[int, ...], pads: tuple[int, ...]) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    want = F.pad(x, pads, mode="circular")
    got = pad_circular(x, pads)
    assert torch.equal(got, want)
    g = torch.randn_like(want)
    assert_near(torch.autograd.grad(got, x, g)[0], torch.autograd.grad(want, x, g)[0], 1e-14)

    def padded(x: Tensor) -> Tensor:
        return pad_circular(x, pads)

    assert torch.autograd.gradcheck(padded, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: padded(x).pow(3), x)


def test_per_sample_gradients() -> None:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return pad_circular(x.unsqueeze(0), (1, 1, 1, 1)).pow(2).sum()

    rows = torch.func.vmap(torch.func.grad(loss))(x)
    assert_near(rows, torch.stack([torch.func.grad(loss)(sample) for sample in x]), 1e-14)


@pytest.mark.parametrize(
    "net",
    [
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(2, 3, 3)),
    ],
)
def test_torchs_modules_pad_fast_inside(net: nn.Module) -> None:
    x = torch.randn(2, 2, 5, 5, requires_grad=True)
    want = net(x)
    with FastPadding():
        got = net(x)
    assert torch.equal(got, want)
    assert "_PadCircular" in str(got.grad_fn.next_functions)
    assert "_PadCircular" not in str(net(x).grad_fn.next_functions)


@pytest.mark.parametrize(
    ("pad", "mode"),
    [((1, 1), "constant"), ((1, 1), "reflect"), ((1, 1), "replicate"), ((2, -1), "circular")],
)
def test_other_paddings_are_left_alone(pad: tuple[int, int], mode: str) -> None:
    x = torch.randn(1, 2, 6)
    want = F.pad(x, pad, mode=mode)
    with FastPadding():
        assert torch.equal(F.pad(x, pad, mode=mode), want)
        assert torch.equal(F.pad(input=x, pad=list(pad), mode=mode), want)
        assert torch.equal(F.pad(x, pad, "constant", 3.0), F.pad(x, pad, value=3.0))
