"""Training data in its three forms: epochs, subsets, and the part set aside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
from symlearn.fit.data import TrainData, halves, null_loss

NET = nn.Linear(1, 2)


def make(kind: str, n: int = 23) -> TrainData:
    x, y = torch.arange(float(n)).unsqueeze(1), torch.arange(n) % 2
    forms = {
        "pair": (x, y),
        "dataset": TensorDataset(x, y),
        "loader": DataLoader(TensorDataset(x, y), batch_size=5),
    }
    return TrainData(forms[kind], NET, batch_size=4)


def seen(batches: object) -> list[float]:
    return [float(v) for x, _ in batches for v in x[:, 0]]  # type: ignore[attr-defined]


@pytest.mark.core
@pytest.mark.parametrize("kind", ["pair", "dataset", "loader"])
def test_an_epoch_sees_every_sample_once(kind: str) -> None:
    data = make(kind)
    g = torch.Generator().manual_seed(0)
    assert data.n == 23
    assert sorted(seen(data.epoch(g))) == list(range(23))
    assert sorted(seen(data.everything())) == list(range(23))
    assert len(set(seen(data.sample(8, g)))) >= 8
    assert len(seen(data.sample(0, g))) == 23


@pytest.mark.parametrize("kind", ["pair", "dataset"])
def test_held_out_samples_are_seen_by_nothing_else(kind: str) -> None:
    data = make(kind)
    g = torch.Generator().manual_seed(0)
    assert data.held_out() is None
    data.hold_out(0.3, g)
    held = set(seen(data.held_out()))
    assert len(held) == 7
    assert held.isdisjoint(seen(data.epoch(g)))
    assert held.isdisjoint(seen(data.sample(0, g)))
    data.hold_out(0.0, g)
    assert sorted(seen(data.epoch(g))) == list(range(23))


def test_epochs_differ_and_repeat_by_seed() -> None:
    data = make("pair")
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    one, two = seen(data.epoch(first)), seen(data.epoch(first))
    assert one != two
    assert one == seen(data.epoch(again))


def test_halves_share_no_sample() -> None:
    cut, rest = halves(list(make("pair").everything()))
    assert set(seen(cut)).isdisjoint(seen(rest))
    assert sorted(seen(cut) + seen(rest)) == list(range(23))


def test_null_loss_is_the_entropy_of_the_labels() -> None:
    data = make("pair", 24)
    assert null_loss(data, curvature.Categorical(), 2) == pytest.approx(0.6931471805599453)
    assert null_loss(data, curvature.Gaussian(), 1) != null_loss(data, curvature.Gaussian(), 1)
