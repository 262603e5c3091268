"""Plain torch networks and data that every peer can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
from symlearn.datasets import ImageSet, digits

Pair = tuple[Tensor, Tensor]


class Batches(list[Pair]):
    """Batches (X, y) of one data set; has what laplace-torch asks of a DataLoader.

    Args:
        x: Inputs [N, ...].
        y: Labels [N].
        size: Samples per batch.
    """

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        super().__init__(zip(x.split(size), y.split(size), strict=True))
        self.dataset = range(len(x))


def paper_conv(classes: int = 10, alpha: int = 10, seed: int = 0) -> nn.Sequential:
    """The paper's CONV net for 1x32x32 images, as `symlearn.models.paper_cnn` reads Table 6.

    Circular padding is a module of its own (`nn.CircularPad2d`): with ``padding_mode="circular"``
    the peers build input factors of the zero-padded image. Subsampling is an ordinary stride.

    Args:
        classes: Number of outputs.
        alpha: Width factor.
        seed: Seed of torch's default initialisation.
    """
    widths = [1] + [alpha * w for w in (1, 2, 2, 4, 4, 8, 8, 16)]
    strides = [1, 2, 1, 2, 1, 2, 2, 2]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for c_in, c_out, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.CircularPad2d(1), nn.Conv2d(c_in, c_out, 3, stride), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], 64 * alpha, 1), nn.ReLU()]
        # the map is 1x1 here: the table's pooled head averages over one site
        layers += [nn.Conv2d(64 * alpha, classes, 1), nn.Flatten()]
    return nn.Sequential(*layers)


def images(n: int, size: int = 32, seed: int = 0) -> ImageSet:
    """The first n of UCI's digits in random order, enlarged to ``size`` and standardised."""
    some, _ = digits().split(n, 1797 - n, seed=seed)
    x = F.interpolate(some.x, size=size, mode="bilinear", align_corners=False)
    return ImageSet(x, some.y, some.classes, some.name).standardised()


def train(net: nn.Module, batches: Sequence[Pair], epochs: int, lr: float = 1e-3) -> None:
    """Adam on the mean negative log likelihood."""
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    for _ in range(epochs):
        for x, y in batches:
            optimiser.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimiser.step()


def forward_backward(net: nn.Module, batches: Sequence[Pair]) -> None:
    """The unit of cost: what training does with the data, without the optimiser's step."""
    for x, y in batches:
        net.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()


def loss_of(net: nn.Module, batches: Batches) -> float:
    """Mean negative log likelihood over the batches, in nats."""
    with torch.no_grad():
        total = sum(float(F.cross_entropy(net(x), y, reduction="sum")) for x, y in batches)
    return total / len(batches.dataset)


def decomposed(
    net: nn.Module, batches: Sequence[Pair], estimator: str, **settings: Any
) -> curvature.KroneckerCurvature:
    """The library's curvature with its eigendecompositions done, which it puts off otherwise."""
    found = curvature.kronecker(net, batches, estimator=estimator, **settings)
    for block in found.values():
        _ = block.eigenvalues
    return found
