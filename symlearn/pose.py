"""Poses: where an image is and how it is turned; moving each sample of a batch by its own.

An image in pose (g, t) is ``x = g . roll(x0, t)``: its canonical view x0, shifted by t and turned
by the element g of a finite group of the grid. Without a group g is the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from symlearn.groups.grid import GridGroup


@dataclass(frozen=True)
class Pose:
    """Pose of each image of a batch.

    Attributes:
        element: Group element g, [N].
        shift: Shift t in whole pixels, [N, axes].
    """

    element: Tensor
    shift: Tensor


def views(x: Tensor, group: GridGroup | None) -> Tensor:
    """Images turned back by each element of a group: ``[n, g] = g^-1 . x[n]``.

    Args:
        x: Images [N, C, *size].
        group: A group that acts on them, or None.

    Returns:
        Views [N, |G|, C, *size].
    """
    if group is None:
        return x.unsqueeze(1)
    return torch.stack([group.act(x, int(g)) for g in group.inverse], 1)


def roll_each(x: Tensor, phase: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Roll every sample [C, *size] by ``-phase`` of its own; phases are below the strides."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    for axis, step in enumerate(stride):
        for bit in range((step - 1).bit_length()):
            mine = (phase[:, axis] >> bit & 1).bool().reshape(shape)
            x = torch.where(mine, x.roll(-(1 << bit), axis + 2), x)
    return x


def turn_each(x: Tensor, element: Tensor, group: GridGroup, over_group: bool) -> Tensor:
    """Turn every sample by a group element of its own.

    Args:
        x: Maps [N, C, H, W].
        element: Group elements, [N].
        group: The group.
        over_group: Whether x are features over the group, channel index ``c |G| + h``; their group
            axis is permuted too, ``(g . f)[h] = g . f[g^-1 h]``.
    """
    source = _sources(group, tuple(x.shape[2:]), over_group).to(x.device)[element]  # [N, F S]
    flat = x.reshape(len(x), -1, source.shape[1])
    return flat.gather(2, source[:, None].expand_as(flat)).reshape(x.shape)


@lru_cache(maxsize=64)
def _sources(group: GridGroup, size: tuple[int, ...], over_group: bool) -> Tensor:
    """Where the turned map reads the map, [|G|, F S]; F is |G| for features over the group."""
    sites = group.permutation(size)
    if not over_group:
        return sites
    fields = group.table[group.inverse]  # [g, h] = g^-1 h
    return (fields[:, :, None] * math.prod(size) + sites[:, None]).flatten(1)


def best_pose(score: Tensor, second: Tensor, tolerance: Tensor) -> Pose:
    """The pose of largest score; of poses with equal scores the one with the largest second score.

    Shifts are counted from a third of the size. Images at the best of all shifts then are in the
    middle between the multiples of every power of two (1/3 is 0.0101.. in binary), where a pixel
    more or less does not change the coarse grids.

    Args:
        score: Score of each view at each shift, [N, |G|, *size].
        second: Another score, [N, |G|, *size].
        tolerance: Scores that differ by less are equal, [N].
    """
    best = score.flatten(1).amax(1) - tolerance
    equal = score >= best.reshape(-1, *[1] * (score.ndim - 1))
    place = torch.where(equal, second, -math.inf).flatten(1).argmax(1)
    element, *shift = torch.unravel_index(place, score.shape[1:])
    size = torch.tensor(score.shape[2:], device=score.device)
    return Pose(element, (torch.stack(shift, 1) + size // 3) % size)
