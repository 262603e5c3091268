"""The oracles themselves: that comparisons fail when they should, and definitions are torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.oracles import assert_near, brute_force_evidence, loop_ggn, slow_patches

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (1.0, 1.1),
        (math.nan, 1.0),
        (1.0, math.nan),
        (math.inf, 1.0),
        (torch.tensor([1.0, math.nan]), torch.ones(2)),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.ones(2), torch.tensor(1.0)),
        (1e-20, 0.0),
    ],
)
def test_assert_near_fails(got: torch.Tensor | float, want: torch.Tensor | float) -> None:
    with pytest.raises(AssertionError):
        assert_near(got, want, 1e-3)


def test_assert_near_passes() -> None:
    assert_near(1.0 + 1e-12, 1.0)
    assert_near(torch.zeros(0), torch.zeros(0))
    assert_near(torch.zeros(3), torch.zeros(3))
    with pytest.raises(AssertionError):
        assert_near(1.0 + 1e-9, 1.0, 1e-10)  # numbers are not rounded to float32


@pytest.mark.parametrize("padding", [0, 1, "same", "valid"])
def test_slow_patches_times_filters_is_the_convolution(padding: int | str) -> None:
    conv = nn.Conv2d(
        2, 3, (2, 3), padding=padding, dilation=(2, 1), padding_mode="reflect"
    ).double()
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    out = slow_patches(conv, x) @ conv.weight.reshape(3, -1).T + conv.bias
    assert_near(out.transpose(1, 2).reshape(conv(x).shape), conv(x))


def test_loop_ggn_of_a_linear_network() -> None:
    net, x = nn.Linear(2, 3, bias=False).double(), torch.randn(4, 2, dtype=torch.float64)
    want = torch.kron(torch.eye(3, dtype=torch.float64), x.T @ x)
    assert_near(loop_ggn(net, (x, torch.zeros(4, 3, dtype=torch.float64)), "gaussian"), want)


def test_brute_force_evidence_of_one_weight() -> None:
    # y = w + noise, w ~ N(0, 1/d), one datum: the evidence is N(y; 0, 1 + 1/d)
    y, d = 0.7, 2.5
    w = y / (1 + d)
    log_likelihood = -0.5 * (y - w) ** 2 - 0.5 * math.log(2 * math.pi)
    one = torch.ones(1, 1, dtype=torch.float64)
    got = brute_force_evidence(log_likelihood, {"w": one}, {"w": one[0] * w}, {"w": d})
    variance = 1 + 1 / d
    assert_near(got, -0.5 * y**2 / variance - 0.5 * math.log(2 * math.pi * variance), 1e-12)
