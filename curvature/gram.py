"""Sums of outer products: the factors of a curvature, without forming more than they need.

Index letters as in `curvature.rules`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_CHUNK = 2**21  # numbers in one piece of the patches


def accumulator_dtype(v: Tensor) -> torch.dtype:
    """At least float32: sums of squares of half-precision numbers overflow."""
    return torch.promote_types(v.dtype, torch.float32)


def gram(v: Tensor) -> Tensor:
    """``sum_{n, r} v v^T`` [B, D, D] of vectors v [N, R, B, D]."""
    v = v.to(accumulator_dtype(v))
    if v.shape[1] >= v.shape[3]:  # many positions: products by sample, where the vectors lie
        stacked = v.permute(0, 2, 3, 1)
        return (stacked @ stacked.mT).sum(0)
    flat = v.permute(2, 0, 1, 3).flatten(1, 2)
    return flat.mT @ flat


def patch_gram(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """`gram` [g, D, D] of all patches of maps, ``D = C/g * prod(kernel_size)``.

    Windows that slide along the first spatial axis share their rows: the sum for two kernel rows is
    the sum for the two rows one stride before, less the first row of the map and plus the next. So
    only the kernel rows that no others slide into are multiplied out, and patches are unfolded
    along the other axes only. For a 3x3 kernel of stride one that is a third of the products, and
    of the memory, of unfolding; exact for any stride, dilation, groups and padding.

    Args:
        x: Maps [N, C, *size], already padded.
        kernel_size: Kernel per axis.
        stride: Stride per axis.
        dilation: Dilation per axis.
        groups: Channel groups g.
    """
    x = x.to(accumulator_dtype(x))
    for axis, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True), start=2):
        if axis > 2:
            x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    samples = max(1, _CHUNK // x[0].numel())
    first = (kernel_size[0], stride[0], dilation[0])
    parts = [_sliding_gram(part, *first, groups) for part in x.split(samples)]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _sliding_gram(x: Tensor, kernel: int, stride: int, dilation: int, groups: int) -> Tensor:
    """`patch_gram` of maps [N, C, H, *sites, *columns], unfolded along all axes but the first."""
    axes = (x.ndim - 3) // 2
    channels, columns = x.shape[1] // groups, math.prod(x.shape[3 + axes :])
    windows = (x.shape[2] - dilation * (kernel - 1) - 1) // stride + 1
    # [C, columns, H, N, sites]: the rows of a window lie together
    order = (1, *range(3 + axes, x.ndim), 2, 0, *range(3, 3 + axes))
    starts = [divmod(i * dilation, stride) for i in range(kernel)]
    rows = {
        phase: x[:, :, phase::stride]
        .permute(order)
        .reshape(groups, channels * columns, -(-(x.shape[2] - phase) // stride), -1)
        for phase in {phase for _, phase in starts}
    }

    def product(i: int, j: int, row: int, length: int) -> Tensor:
        """Sum over ``length`` rows of the windows of kernel rows i and j, from ``row`` on."""
        pair = [
            rows[p].narrow(2, top + row, length).flatten(2) for top, p in (starts[i], starts[j])
        ]
        return pair[0] @ pair[1].mT

    step = stride // dilation if stride % dilation == 0 and windows > 2 else kernel
    shape = (groups, channels, kernel, columns)
    total = x.new_empty(*shape, *shape[1:])
    sums: dict[tuple[int, int], Tensor] = {}
    for i in range(kernel):
        for j in range(i, kernel):
            if i < step:
                sums[i, j] = product(i, j, 0, windows)
            else:
                before = (i - step, j - step)
                sums[i, j] = sums[before] - product(*before, 0, 1) + product(i, j, windows - 1, 1)
            block = sums[i, j].reshape(groups, channels, columns, channels, columns)
            total[:, :, i, :, :, j] = block
            total[:, :, j, :, :, i] = block.permute(0, 3, 4, 1, 2)
    return total.reshape(groups, channels * kernel * columns, -1)
