"""The paths' maps as written in the paper, by loops over every index: slow and independent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from symlearn.basis import Basis
from symlearn.geometry import Geometry


def conv_geometry(conv: nn.Module, size: tuple[int, ...]) -> Geometry:
    """Geometry of a convolution on maps of a size."""
    channels: int = conv.in_channels  # type: ignore[assignment]
    out = conv(torch.zeros(1, channels, *size, dtype=next(conv.parameters()).dtype))
    return Geometry.of(conv, size, tuple(out.shape[2:]))


def circular_geometry(conv: nn.Module, size: tuple[int, ...]) -> Geometry:
    """Geometry of the circular layer that replaces a convolution on maps of a size."""
    geometry = Geometry.of(conv, size, size)
    return geometry.as_circular(
        tuple(s // step for s, step in zip(size, geometry.stride, strict=True))
    )


def sites(size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All multi-indices of a map."""
    return itertools.product(*(range(s) for s in size))


def slow_conv(weight: Tensor, x: Tensor, geo: Geometry) -> Tensor:
    """``y[c', p] = sum_{c, k} w[c', c, k] x[c, s p - before + d k]`` with the boundary's rule."""
    out = x.new_zeros(len(x), geo.out_channels, *geo.out_size)
    per_in = geo.in_channels // geo.groups
    per_out = geo.out_channels // geo.groups
    for o, p, c, k in itertools.product(
        range(geo.out_channels), sites(geo.out_size), range(per_in), sites(geo.kernel_size)
    ):
        where = tuple(_source(geo, axis, p[axis], k[axis]) for axis in range(len(p)))
        if None not in where:
            channel = o // per_out * per_in + c
            out[(slice(None), o, *p)] += weight[(o, c, *k)] * x[(slice(None), channel, *where)]
    return out


def _source(geo: Geometry, axis: int, site: int, tap: int) -> int | None:
    """Input site that a tap reads, or None where it reads a zero."""
    span, size = geo.dilation[axis] * (geo.kernel_size[axis] - 1), geo.in_size[axis]
    if isinstance(geo.padding, str):
        before = span // 2 if geo.padding == "same" else 0
    else:
        before = geo.padding[axis]
    if geo.circular:
        before = min(before, max(0, span + 1 - geo.stride[axis]))
    i = geo.stride[axis] * site - before + geo.dilation[axis] * tap
    if geo.circular or geo.padding_mode == "circular":
        return i % size
    if geo.padding_mode == "replicate":
        return min(max(i, 0), size - 1)
    if geo.padding_mode == "reflect":
        return -i if i < 0 else (2 * (size - 1) - i if i >= size else i)
    return i if 0 <= i < size else None


def slow_fc(weight: Tensor, x: Tensor, geo: Geometry) -> Tensor:
    """``y(c', p') = sum_c sum_p x(c, p) w(c', c, p', p)`` (paper, Eq. 1)."""
    full = weight.reshape(geo.out_channels, *geo.out_size, geo.in_channels, *geo.in_size)
    out = x.new_zeros(len(x), geo.out_channels, *geo.out_size)
    for o, q, c, p in itertools.product(
        range(geo.out_channels), sites(geo.out_size), range(geo.in_channels), sites(geo.in_size)
    ):
        out[(slice(None), o, *q)] += full[(o, *q, c, *p)] * x[(slice(None), c, *p)]
    return out


def slow_ffc(theta1: Tensor, theta2: Tensor, x: Tensor, geo: Geometry) -> Tensor:
    """``y(c', p') = sum_c theta1(c', c, p') sum_p x(c, p) theta2(c', c, p)`` (paper, Eq. 5)."""
    writes = theta1.reshape(geo.out_channels, geo.in_channels, *geo.out_size)
    reads = theta2.reshape(geo.out_channels, geo.in_channels, *geo.in_size)
    out = x.new_zeros(len(x), geo.out_channels, *geo.out_size)
    for o, c in itertools.product(range(geo.out_channels), range(geo.in_channels)):
        read = x.new_zeros(len(x))
        for p in sites(geo.in_size):
            read += x[(slice(None), c, *p)] * reads[(o, c, *p)]
        for q in sites(geo.out_size):
            out[(slice(None), o, *q)] += writes[(o, c, *q)] * read
    return out


def slow_basis(size: tuple[int, ...], basis: Basis) -> Tensor:
    """``exp(-omega^2 |p - z_j|^2)``, [S, M] (paper, Sec. 3.1)."""
    omega, anchors = float(basis.omega.detach()), basis.anchors.tolist()
    far = [
        [sum((a - b) ** 2 for a, b in zip(p, z, strict=True)) for z in anchors] for p in sites(size)
    ]
    rows = [[math.exp(-(omega**2) * d) for d in row] for row in far]
    return torch.tensor(rows, dtype=torch.float64)
