"""Learned quantisation: coefficients w [d] take the nearest of L levels c (Sec. 5.4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

INITS = ("uniform", "kmeans")
_SWEEPS = 50


def nearest(w: Tensor, levels: Tensor) -> Tensor:
    """Index [d] of the level nearest to each coefficient.

    Args:
        w: Coefficients [d].
        levels: Levels [L], in any order.
    """
    order = levels.argsort()
    middles = (levels[order][1:] + levels[order][:-1]) / 2
    return order[torch.bucketize(w, middles)]


def quantised(w: Tensor, levels: Tensor) -> Tensor:
    """``c[q(w)]`` [d], with straight-through gradients (Eq. 5.4).

    The gradient passes to w as it is, and to a level as the sum over its coefficients.
    """
    return levels[nearest(w.detach(), levels.detach())] + (w - w.detach())


def initial_levels(w: Tensor, count: int, init: str) -> Tensor:
    """Levels [L] to start from.

    Args:
        w: Trained coefficients [d].
        count: Number of levels L.
        init: "uniform" spreads them from the least to the largest coefficient, "kmeans" moves
            these to the means of their coefficients until they stay (Lloyd's iteration).

    Raises:
        ValueError: For an unknown init, or no level.
    """
    if init not in INITS:
        raise ValueError(f"unknown initialisation of levels {init!r}; choose one of {list(INITS)}")
    if count < 1:
        raise ValueError(f"{count} levels are asked for; at least 1 is needed")
    if count == 1:
        return w.mean().reshape(1)
    levels = torch.lerp(w.min(), w.max(), torch.linspace(0, 1, count, dtype=w.dtype))
    if init == "uniform":
        return levels
    for _ in range(_SWEEPS):
        member = nearest(w, levels)
        sums = torch.zeros_like(levels).index_add(0, member, w)
        sizes = torch.bincount(member, minlength=count)
        moved = torch.where(sizes > 0, sums / sizes.clamp(min=1), levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    return levels
