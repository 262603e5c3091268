"""Whole certificates where the risk is known: the bound holds, and says nothing of noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from symlearn.certify import CertifyConfig, certify

pytestmark = pytest.mark.core

FLIPPED = 0.15


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def noisy_rule(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of two sums is larger, with 15 % of the labels flipped."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
    return x, torch.where(torch.rand(n, generator=g) < FLIPPED, 1 - y, y)


def risk(network: nn.Module) -> float:
    """Error on all inputs there might be, up to 0.2 %: the rule is known, and so is the noise."""
    x, _ = noisy_rule(50_000, seed=10_000)
    rule = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
    with torch.no_grad():
        off = float((network(x).argmax(1) != rule).double().mean())
    return off * (1 - FLIPPED) + (1 - off) * FLIPPED


def options(**given: object) -> CertifyConfig:
    shared = {
        **{"dimensions": (4, 16), "levels": (3,), "epochs": 6, "quantise_epochs": 3},
        **{"learning_rate": 0.3, "quantise_rates": (0.1,), "batch_size": 50, "progress": False},
    }
    return CertifyConfig(**{**shared, **given})  # type: ignore[arg-type]


def held(repetitions: int, bound: str) -> tuple[float, float]:
    """Share of repetitions in which the bound held, and in which the training error was below."""
    holds, optimistic = [], []
    for seed in range(repetitions):
        found = certify(linear(), noisy_rule(150, seed), options(bound=bound))
        true = risk(found.network())
        holds.append(true <= found.bound)
        optimistic.append(found.train_error < true)
    return sum(holds) / repetitions, sum(optimistic) / repetitions


def test_the_bound_holds() -> None:
    holds, optimistic = held(12, "occam")
    assert holds >= 0.95
    assert optimistic > 0  # the training error itself is no bound


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["catoni", "maurer", "mcallester", "occam"])
def test_the_bound_holds_often(bound: str) -> None:
    holds, optimistic = held(100, bound)
    assert holds >= 0.95
    assert optimistic > 0.5


@pytest.mark.parametrize("dimensions", [(4,), (49, 68)])
def test_shuffled_labels_get_no_bound(dimensions: tuple[int, ...]) -> None:
    for seed in range(5):
        x, y = noisy_rule(150, seed)
        g = torch.Generator().manual_seed(seed)
        y = y[torch.randperm(len(y), generator=g)]
        found = certify(linear(), (x, y), options(dimensions=dimensions, epochs=20))
        assert found.vacuous
        assert "VACUOUS" in str(found)


def test_structure_gets_one() -> None:
    found = certify(linear(), noisy_rule(2000, 0), options(dimensions=(49,), epochs=12))
    assert not found.vacuous
    assert "VACUOUS" not in str(found)


def test_every_point_of_the_search_is_paid_for() -> None:
    data = noisy_rule(150, 0)
    one = certify(linear(), data, options(dimensions=(16,)))
    many = certify(linear(), data, options(dimensions=(16,), alternatives=2**20))
    assert many.parts["alternatives"] == 20
    assert many.message_bits >= one.message_bits + 16
    assert many.bound > one.bound
    searched = certify(linear(), data, options(dimensions=(4, 9, 16, 25, 36)))
    assert searched.parts["choice"] == 3
