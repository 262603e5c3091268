"""Tasks for which it is known by construction where a free path can help."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import symlearn
from symlearn import FitConfig
from tests.fit.problems import blobs

QUICK = FitConfig(
    epochs=8,
    progress=False,
    batch_size=60,
    challenge_epochs=0,
    early_stop=False,
    check_images=0,
)


def pooled(classes: int, seed: int = 0) -> nn.Module:
    """A relaxed network that forgets positions after its first layer: it pools over all of them.

    Behind the pool maps have one pixel: only layer "0" can tell positions apart.
    """
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Conv2d(6, 8, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(8, classes)),
    )
    return symlearn.wrap(net, torch.zeros(1, 1, 8, 8))


def two_layers(classes: int, seed: int = 0) -> nn.Module:
    """A relaxed network that pools after its second layer: "0" and "2" can tell positions apart."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, classes)),
    )
    return symlearn.wrap(net, torch.zeros(1, 1, 8, 8))


def permuted(n: int) -> tuple[Tensor, Tensor]:
    """Bars at random places, the pixels permuted: neighbours say nothing."""
    x, y = blobs(n)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    return x.flatten(2)[:, :, order].reshape(x.shape), y
