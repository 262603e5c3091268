"""Quantisation: nearest levels, straight-through gradients, and where levels start."""

from __future__ import annotations

import pytest
import torch

from symlearn.certify.quantise import INITS, initial_levels, nearest, quantised
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def test_nearest_by_brute_force() -> None:
    g = torch.Generator().manual_seed(0)
    w = torch.randn(200, generator=g, dtype=torch.float64)
    levels = torch.randn(6, generator=g, dtype=torch.float64)  # in no order
    want = (w[:, None] - levels[None, :]).abs().argmin(1)
    assert torch.equal(nearest(w, levels), want)
    assert nearest(w, levels[:1]).max() == 0


def test_straight_through_gradients() -> None:
    w = torch.tensor([-1.0, 0.2, 0.9, 1.1], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([1.0, -0.5, 7.0], dtype=torch.float64, requires_grad=True)
    out = quantised(w, c)
    assert_near(out, torch.tensor([-0.5, -0.5, 1.0, 1.0]))
    slope = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    (out * slope).sum().backward()
    assert_near(w.grad, slope)  # the identity
    assert_near(c.grad, torch.tensor([7.0, 3.0, 0.0]))  # sums over a level's coefficients


def test_starts() -> None:
    w = torch.tensor([0.0, 0.1, 0.2, 4.0, 4.2, 10.0], dtype=torch.float64)
    assert_near(initial_levels(w, 3, "uniform"), torch.tensor([0.0, 5.0, 10.0]))
    assert_near(initial_levels(w, 3, "kmeans"), torch.tensor([0.1, 4.1, 10.0], dtype=torch.float64))
    for init in INITS:
        assert_near(initial_levels(w, 1, init), w.mean().reshape(1))


def test_kmeans_does_not_fit_worse_than_uniform() -> None:
    w = torch.randn(500, generator=torch.Generator().manual_seed(3))
    error = {
        init: float((w - quantised(w, initial_levels(w, 5, init))).square().sum()) for init in INITS
    }
    assert error["kmeans"] < error["uniform"]


def test_kmeans_keeps_levels_nobody_is_near() -> None:
    w = torch.tensor([0.0, 0.0, 1.0])
    levels = initial_levels(w, 4, "kmeans")
    assert bool(torch.isfinite(levels).all())


def test_bad_requests() -> None:
    w = torch.zeros(3)
    with pytest.raises(ValueError, match=r"'random'; choose one of \['uniform', 'kmeans'\]"):
        initial_levels(w, 2, "random")
    with pytest.raises(ValueError, match="0 levels"):
        initial_levels(w, 0, "uniform")
