"""MNIST-1D: the published construction, by another implementation of it, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symlearn.datasets import mnist1d
from symlearn.datasets.signals import _stretched, _templates

pytestmark = pytest.mark.core


def test_signals_are_balanced_and_follow_from_the_seed() -> None:
    signals = mnist1d(103, seed=3)
    assert signals.x.shape == (103, 1, 1, 40)
    counts = torch.bincount(signals.y, minlength=10)
    assert int(counts.min()) == 10
    assert int(counts.max()) == 11
    assert torch.equal(signals.x, mnist1d(103, seed=3).x)
    assert not torch.equal(signals.x, mnist1d(103, seed=4).x)


def test_templates_start_and_end_at_zero_with_equal_variance() -> None:
    templates = _templates()
    assert torch.allclose(templates[:, [0, -1]], torch.zeros(10, 2, dtype=torch.float64))
    variance = templates.var(1, correction=0)
    assert torch.allclose(variance, torch.full((10,), 1 / 36, dtype=torch.float64))


@pytest.mark.parametrize("padding", [36, 47, 60])
def test_stretching_interpolates_the_padded_template(padding: int) -> None:
    templates = _templates()[[3]]
    found, inside = _stretched(templates, torch.tensor([[padding]]))
    padded = np.concatenate([templates[0].numpy(), np.zeros(padding)])
    places = np.linspace(0, len(padded) - 1, 72)
    assert np.allclose(found[0].numpy(), np.interp(places, np.arange(len(padded)), padded))
    assert inside[0].tolist() == (places < 12).tolist()


def places(max_translation: int) -> torch.Tensor:
    """By how many of 40 sites a signal of the digit 0 best fits the mean aligned one moved."""
    aligned = mnist1d(2000, 0, max_translation=1)
    template = aligned.x[aligned.y == 0].mean(0).flatten()
    moved = torch.stack([template.roll(k) for k in range(40)])
    x, y = mnist1d(2000, 1, max_translation=max_translation).pair
    x = x[y == 0].flatten(1)
    return ((x - x.mean(1, keepdim=True)) @ (moved - moved.mean(1, keepdim=True)).T).argmax(1)


def test_digits_are_aligned_or_moved_to_the_right_by_up_to_two_thirds() -> None:
    assert float((places(1) <= 3).float().mean()) > 0.8
    found = places(48)
    inside = found[found < 30]
    assert len(inside) > 0.8 * len(found)
    counts = torch.histc(inside.float(), 3, 0, 30)
    assert float(counts.min()) > 0.2 * len(inside)


def test_noise_has_the_published_size() -> None:
    x, y = mnist1d(4000, 2, max_translation=1).pair
    far = x[:, 0, 0, 15:35]  # behind every digit
    # smooth noise of std 0.25, smoothed over 2 sites, and noise of 0.02; a slope of its own
    taps = np.exp(-0.5 * (np.arange(-8, 9) / 2) ** 2)
    smooth = 0.25 * np.sqrt((taps**2).sum()) / taps.sum()
    line = torch.linspace(-0.5, 0.5, 72)[[int(k) for k in torch.linspace(0, 71, 40)]][15:35]
    slope = 0.75**2 / 12 * float(line.square().mean())
    assert float(far.var()) == pytest.approx(smooth**2 + 0.02**2 + slope, rel=0.1)
    assert set(y.tolist()) == set(range(10))


@pytest.mark.parametrize(("n", "max_translation"), [(0, 48), (5, 0), (5, 49)])
def test_bad_sizes_are_refused(n: int, max_translation: int) -> None:
    with pytest.raises(ValueError, match="at least one signal and a"):
        mnist1d(n, max_translation=max_translation)
