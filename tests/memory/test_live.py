"""Counting the bytes of tensors in use, sizes as text, and running code without numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from symlearn.memory.live import OTHER, LiveBytes, Peak
from symlearn.memory.numberless import numberless, without_numbers
from symlearn.memory.size import as_bytes, as_text

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("size", "count"),
    [(5, 5), ("5", 5), ("2GiB", 2**31), ("1.5 kB", 1500), ("0.5MiB", 2**19), (" 1 B ", 1)],
)
def test_sizes(size: int | str, count: int) -> None:
    assert as_bytes(size) == count


@pytest.mark.parametrize("size", [0, -1, True, 1.5, math.nan, None, "", "GiB", "2 gigs", "-1GiB"])
def test_what_is_no_size(size: object) -> None:
    with pytest.raises(ValueError, match="is no size; give a positive number of bytes"):
        as_bytes(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 1023, 2**10, 3 * 2**20, 2**40])
def test_text_of_a_size_is_a_size(count: int) -> None:
    assert as_bytes(as_text(count)) == count


def test_only_new_storages_count_and_only_while_they_live() -> None:
    given = torch.zeros(1000)
    with LiveBytes() as live:
        view = given[:10].reshape(2, 5)
        assert live.live == 0
        x = torch.zeros(100)
        assert live.live == 400
        y = x.view(10, 10) + 1
        assert live.live == 800
        x.add_(1)
        del x
        assert live.live == 400
        del y
    assert (live.live, live.peak, len(view)) == (0, 800, 2)


def test_phases_know_kinds_and_what_was_there_before() -> None:
    found: list[Peak] = []
    with LiveBytes() as live:
        kept = torch.zeros(10)
        live.label("weights", [kept])
        torch.zeros(1000)
        with live.phase(found.append):
            values, vectors = torch.linalg.eigh(torch.eye(5))
            live.label("unknown", [torch.zeros(0)])
    (peak,) = found
    assert peak.total == sum(peak.kinds.values())
    assert peak.kinds["weights"] == 40
    assert peak.kinds["eigenvectors"] == 4 * (5 + 25)
    assert peak.kinds[OTHER] >= 100  # the identity
    assert peak.total < 1000
    assert len(values) == len(vectors)


def test_a_graph_counts_until_it_is_used() -> None:
    w = torch.zeros(100, requires_grad=True)
    with LiveBytes() as live:
        y = (w.exp() + 1).exp().sum()
        held = live.live
        y.backward()
    assert held >= 800  # both exponentials are needed by the backward pass
    assert live.live == 400 + 4  # the gradient and the sum


def test_code_runs_without_numbers_and_takes_as_much() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(5, 1, 4, 4)

    def step(net: nn.Module, x: torch.Tensor) -> int:
        with LiveBytes() as live:
            loss = nn.functional.cross_entropy(net(x), torch.zeros(5, dtype=torch.int64))
            if math.isfinite(float(loss.detach())):
                loss.backward()
            x[x > 0].sum().item()
        return live.peak

    with numberless() as mode:
        copied = without_numbers(mode, net)
        assert [n for n, _ in copied.named_parameters()] == [n for n, _ in net.named_parameters()]
        predicted = step(copied, torch.empty(5, 1, 4, 4))
    assert predicted == pytest.approx(step(net, x), rel=0.1)
    assert bool(torch.isfinite(net[3].weight).all())
    assert copied[3].weight is not net[3].weight  # type: ignore[index]
