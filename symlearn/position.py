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

import torch
from torch import Tensor

# Below this share of the total, the first harmonic is too weak for a phase free of rounding errors.
_VANISHES = 1e-5
# Centroids of symmetric objects are whole or half pixels: rounding errors must not move them across
# the edge of a pixel, so they are rounded to 2^-20 pixels first.
_GRAIN = 2.0**20


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
    match = _match(x.double())
    for axis, length in enumerate(x.shape[2:]):
        shape = [1] * match.ndim
        shape[axis + 1] = length
        index = torch.arange(length, device=x.device).reshape(shape)
        mine, known = (v[:, axis].reshape(-1, *[1] * (match.ndim - 1)) for v in (near, defined))
        match = torch.where(known & (index != mine), -math.inf, match)
    best = match.flatten(1).argmax(1)
    found = []
    for length in reversed(x.shape[2:]):
        found.append(best % length)
        best = best // length
    return torch.stack(found[::-1], 1)


def _match(x: Tensor) -> Tensor:
    """Correlation of the images with a fixed pseudo-random pattern at each shift, [N, *size]."""
    size = x.shape[2:]
    space = tuple(range(1, x.ndim - 1))
    # unequal weights: swapping the channels of an image gives another image
    weights = torch.linspace(1, 2, x.shape[1], dtype=x.dtype, device=x.device)
    mixed = torch.einsum(
        "nc...,c->n...", x - x.mean(tuple(range(2, x.ndim)), keepdim=True), weights
    )
    # quadratic phases are as good as random ones, and the same on every machine
    index = torch.arange(math.prod(size), dtype=x.dtype, device=x.device)
    pattern = (index.square() * 0.7548776662466927).cos().reshape(size)
    spectrum = torch.fft.rfftn(mixed, dim=space)
    reference = torch.fft.rfftn(pattern, dim=tuple(range(len(size))))
    match: Tensor = torch.fft.irfftn(spectrum * reference.conj(), s=size, dim=space)
    return match
