"""Where an image is, as whole pixels that move with it: if the image is shifted, so is the answer.

The position on one axis is read from the lowest spatial frequency, which moves coherently with the
object in the image:

    e = sum over channels of (x - mean x)^2          energy
    z = sum_i e_i exp(2 pi i i / H)                  first harmonic of its marginal on one axis
    c = H / (2 pi) arg z                             centroid
    q = floor(c + offset)                            a shift of the image by t adds t to c and to q

Where z vanishes (two equal objects half a period apart, periodic textures, stripes) q is the shift
at which the image correlates best with a fixed pseudo-random pattern. Its maxima are at one place
up to shifts that leave the image as it is, so that this answer moves with every image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symlearn.pose import Pose

# Below this share of the total, the first harmonic is too weak for a phase free of rounding errors.
_VANISHES = 1e-5
# Centroids of symmetric objects are whole or half pixels: rounding errors must not move them across
# the edge of a pixel, so they are rounded to 2^-20 pixels first.
_GRAIN = 2.0**20


class Rule(nn.Module, ABC):
    """How the pose of an image is read off it: an answer that moves with the image."""

    @abstractmethod
    def calibrate(self, x: Tensor) -> None:
        """Adapt to images of the training set, [N, C, *size]."""

    @abstractmethod
    def locate(self, views: Tensor) -> Pose:
        """Pose of each image.

        Args:
            views: Images turned back by each group element, [N, |G|, C, *size] (`pose.views`).
        """


class Centroid(Rule):
    """The centroid of the energy; it has no orientation.

    Args:
        axes: Number of spatial axes.
        dither: Half-width in pixels of the noise added to centroids while training.
    """

    offset: Tensor

    def __init__(self, axes: int, dither: float) -> None:
        super().__init__()
        self.dither = dither
        # one half puts images centred on a pixel in the middle of theirs
        self.register_buffer("offset", torch.full((axes,), 0.5, dtype=torch.float64))

    def calibrate(self, x: Tensor) -> None:
        """Put the mean position of the images in the middle of a pixel, far from decision edges."""
        where, defined = centroid(x)
        turns = torch.polar(defined.to(where), 2 * math.pi * where).sum(0)
        mean = torch.where(turns.abs() > 0, turns.angle() / (2 * math.pi), 0.0)
        self.offset.copy_(0.5 - mean)

    def locate(self, views: Tensor) -> Pose:
        """Whole-pixel centroids; all orientations are the identity."""
        x = views[:, 0]
        offset = self.offset.to(x.device, torch.float64)
        if self.training and self.dither:
            noise = torch.rand(len(x), len(offset), dtype=torch.float64, device=x.device)
            offset = offset + (2 * noise - 1) * self.dither
        return Pose(torch.zeros(len(x), dtype=torch.long, device=x.device), locate(x, offset))


def centroid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid of the energy on each spatial axis, in pixels and modulo the size, in float64.

    Args:
        x: Images [N, C, *size].

    Returns:
        Centroids [N, axes], and whether they are well defined, [N, axes].
    """
    x = x.double()
    space = tuple(range(2, x.ndim))
    energy = (x - x.mean(space, keepdim=True)).square().sum(1)
    total = energy.flatten(1).sum(1)
    where, defined = [], []
    for axis, size in enumerate(energy.shape[1:], start=1):
        others = tuple(a for a in range(1, energy.ndim) if a != axis)
        marginal = energy.sum(others) if others else energy
        angle = torch.arange(size, dtype=x.dtype, device=x.device) * (2 * math.pi / size)
        real, imag = marginal @ angle.cos(), marginal @ angle.sin()
        where.append(torch.atan2(imag, real) * (size / (2 * math.pi)))
        defined.append(torch.hypot(real, imag) > _VANISHES * total)
    return torch.stack(where, 1), torch.stack(defined, 1)


def locate(x: Tensor, offset: Tensor | float = 0.5) -> Tensor:
    """Whole-pixel position of each image on each spatial axis, [N, axes].

    Args:
        x: Images [N, C, *size].
        offset: Added to the centroids, [axes] or [N, axes]; it decides where a pixel begins.
    """
    where, defined = centroid(x)
    size = torch.tensor(x.shape[2:], device=x.device)
    near = ((where + offset) * _GRAIN).round().div(_GRAIN).floor().long() % size
    # the best match among the shifts that agree with the well defined axes
    match = correlate(x.double())
    for axis, length in enumerate(x.shape[2:]):
        shape = [1] * match.ndim
        shape[axis + 1] = length
        index = torch.arange(length, device=x.device).reshape(shape)
        mine, known = (v[:, axis].reshape(-1, *[1] * (match.ndim - 1)) for v in (near, defined))
        match = torch.where(known & (index != mine), -math.inf, match)
    return torch.stack(torch.unravel_index(match.flatten(1).argmax(1), match.shape[1:]), 1)


def correlate(x: Tensor) -> Tensor:
    """Correlation of images with a fixed pseudo-random pattern at each shift, [N, *size].

    Its maxima are at one place up to shifts that leave the image as it is.

    Args:
        x: Images [N, C, *size] in float64.
    """
    size = x.shape[2:]
    space = tuple(range(1, x.ndim - 1))
    # unequal weights: swapping the channels of an image gives another image
    weights = torch.linspace(1, 2, x.shape[1], dtype=x.dtype, device=x.device)
    mixed = torch.einsum(
        "nc...,c->n...", x - x.mean(tuple(range(2, x.ndim)), keepdim=True), weights
    )
    spectrum = torch.fft.rfftn(mixed, dim=space)
    reference = torch.fft.rfftn(fixed_pattern(size).to(x.device), dim=tuple(range(len(size))))
    match: Tensor = torch.fft.irfftn(spectrum * reference.conj(), s=size, dim=space)
    return match


def fixed_pattern(size: Sequence[int]) -> Tensor:
    """A fixed pseudo-random pattern of a size, in float64."""
    # quadratic phases are as good as random ones, and the same on every machine
    index = torch.arange(math.prod(size), dtype=torch.float64)
    return (index.square() * 0.7548776662466927).cos().reshape(tuple(size))
