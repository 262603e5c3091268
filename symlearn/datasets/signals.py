"""MNIST-1D: digits as signals that are padded, moved, noised and sheared.

Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D (2020/2024), made anew by a seed: the
construction and its constants are the published ones, the random numbers are not.

Index letters: N signals, S sites before the last resampling.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from symlearn.datasets.imageset import ImageSet, seeded

_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_LENGTH = len(_TEMPLATES[0])
_PADDING = (36, 60)  # zeros behind a template, both ends included
_SITES = _LENGTH + _PADDING[1]
_SCALE, _SHEAR = 0.4, 0.75
_SMOOTH_NOISE, _NOISE = 0.25, 0.02
_SMOOTHING = 2.0  # sites
_MOST = 48

SIGNAL_LENGTH = 40


def mnist1d(n: int = 5000, seed: int = 0, *, max_translation: int = _MOST) -> ImageSet:
    """Signals of the ten digits, images of one row: ``x.squeeze(2)`` is [n, 1, 40] for `Conv1d`.

    A template of 12 numbers is followed by 36 to 60 zeros, stretched to 72 sites, scaled, moved,
    covered with noise (smooth where it was padded), sheared and resampled to 40 sites. The label
    does not depend on where the digit sits.

    Args:
        n: Signals, as many of each class as possible.
        seed: Determines everything random.
        max_translation: A digit is moved to the right by 0..max_translation - 1 of the 72 sites;
            1 leaves all of them aligned at the left.

    Returns:
        Images [n, 1, 1, 40], not standardised, 10 classes, "mnist1d".

    Raises:
        ValueError: If there are fewer than one signal, or translations that leave the signal.

    Example:
        >>> from symlearn.datasets import mnist1d
        >>> signals = mnist1d(100)
        >>> tuple(signals.x.squeeze(2).shape), signals.classes
        ((100, 1, 40), 10)
    """
    if n < 1 or not 1 <= max_translation <= _MOST:
        raise ValueError(
            f"n={n} and max_translation={max_translation}; give at least one signal and a "
            f"translation of 1..{_MOST}"
        )
    draw = seeded(seed, "mnist1d")
    y = (torch.arange(n) % len(_TEMPLATES))[torch.randperm(n, generator=draw)]
    padding = torch.randint(_PADDING[0], _PADDING[1] + 1, (n, 1), generator=draw)
    shift = torch.randint(max_translation, (n, 1), generator=draw)
    scale, shear = torch.rand(2, n, 1, generator=draw, dtype=torch.float64) - 0.5
    smooth, noise = torch.randn(2, n, _SITES, generator=draw, dtype=torch.float64)

    signals, inside = _stretched(_templates()[y], padding)
    sites = (torch.arange(_SITES) - shift) % _SITES
    signals, inside = signals.gather(1, sites), inside.gather(1, sites)
    signals = signals * (1 + _SCALE * scale)
    signals = torch.where(inside, signals, _SMOOTH_NOISE * _smoothed(smooth)) + _NOISE * noise
    signals = signals - _SHEAR * shear * torch.linspace(-0.5, 0.5, _SITES, dtype=torch.float64)
    x = _at(
        signals, torch.linspace(0, _SITES - 1, SIGNAL_LENGTH, dtype=torch.float64).expand(n, -1)
    )
    return ImageSet(x.float()[:, None, None, :], y, len(_TEMPLATES), "mnist1d")


def _templates() -> Tensor:
    """The digits [10, 12], each of variance 1/36, which start and end at zero."""
    x = torch.tensor(_TEMPLATES, dtype=torch.float64)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    return (x - x[:, :1]) / 6


def _stretched(templates: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Templates [N, 12] with so many zeros behind them [N, 1], on 72 sites; and where they are."""
    ends = _LENGTH + padding - 1
    where = torch.linspace(0, 1, _SITES, dtype=torch.float64) * ends
    padded = torch.nn.functional.pad(templates, (0, _PADDING[1]))
    return _at(padded, where), where < _LENGTH


def _at(signals: Tensor, where: Tensor) -> Tensor:
    """Signals [N, S] at places [N, M] in 0..S-1, linearly interpolated."""
    left = where.floor().long().clamp(max=signals.shape[1] - 2)
    part = where - left
    return (1 - part) * signals.gather(1, left) + part * signals.gather(1, left + 1)


def _smoothed(noise: Tensor) -> Tensor:
    """Noise [N, S] smoothed by a normal curve; beyond its ends it is mirrored."""
    # Imported here because it takes time that no other source needs.
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(np.asarray(gaussian_filter1d(noise.numpy(), _SMOOTHING, axis=1)))
