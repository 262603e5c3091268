"""Averages average, and a loss that is not finite stops the epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import curvature
from symlearn.fit import NonFiniteLossError, ProximalAdam, WeightAverage
from symlearn.fit.weights import train_epoch


def test_average_is_corrected_for_its_start_and_restored() -> None:
    net = nn.Linear(4, 1)
    average = WeightAverage(net, 0.97)
    start = average.values["weight"].clone()
    for _ in range(400):
        nn.init.constant_(net.weight, 2.0)
        average.update()
    assert torch.allclose(average.values["weight"], torch.full_like(start, 2.0), atol=1e-3)
    nn.init.constant_(net.weight, -7.0)
    with average.applied():
        assert torch.allclose(net.weight, torch.full_like(start, 2.0), atol=1e-3)
    assert torch.equal(net.weight.detach(), torch.full_like(start, -7.0))
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        raise RuntimeError("stop")
    assert torch.equal(net.weight.detach(), torch.full_like(start, -7.0))


def test_zero_decay_keeps_the_present() -> None:
    net = nn.Linear(4, 1)
    average = WeightAverage(net, 0.0)
    nn.init.constant_(net.weight, 3.0)
    average.update()
    assert torch.equal(average.values["weight"], net.weight.detach())


def test_non_finite_loss_names_the_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(net[0].bias, float("inf"))
    step = ProximalAdam(dict(net.named_parameters()), n_data=4)
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(NonFiniteLossError, match=r"first in layer '0'"):
        train_epoch(net, iter(data), curvature.Categorical(), step, WeightAverage(net, 0.9))
