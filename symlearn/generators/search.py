"""The generator that a layer would gain most from, found from gradients."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 12
_TINY = 1e-30


def leading_generator(x: Tensor, g: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U [S', d_h] and W [C', C] at which V's gradient ``sum_n U^T g^T W x`` is about largest.

    The best U, W and V in turn, from a fixed start: higher-order power iteration (De Lathauwer et
    al. 2000). No matrix over pairs of sites is built.

    Args:
        x: Layer inputs [N, C, S].
        g: Gradients at its outputs [N, C', S'].
        rank: d_h, at most S and S'.
    """
    u = torch.linalg.qr(_phases(g.shape[2], rank, g))[0]
    w = _phases(g.shape[1], x.shape[1], g)
    for _ in range(_STEPS):
        pulled = torch.einsum("nds,sh,dc->nch", g, u, w)
        v = torch.einsum("nch,ncs->hs", pulled, x)
        read = torch.einsum("ncs,hs->nch", x, v / v.norm().clamp(min=_TINY))
        u = torch.linalg.qr(torch.einsum("nds,dc,nch->sh", g, w, read))[0]
        w = torch.einsum("nds,sh,nch->dc", g, u, read)
        w = w / w.norm().clamp(min=_TINY)
    return u, w


def _phases(rows: int, columns: int, like: Tensor) -> Tensor:
    """Not orthogonal to anything in particular, and the same on every machine."""
    numbers = torch.arange(1.0, rows * columns + 1, dtype=torch.float64)
    return numbers.square().cos().reshape(rows, columns).to(like)
