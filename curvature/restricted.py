"""Weights that are coefficients: the blocks [B, O, I] are ``Q beta``, columns of Q orthonormal.

Of the Kronecker-factored curvature of the blocks, the part along Q is the dense matrix
``Q^T (G (x) A) Q / count`` over the coefficients. `Rule.restricted` marks such weights; their
layout's ``to_blocks`` is Q, and ``from_blocks`` is its transpose.

Index letters as in `curvature.rules`, and ``P`` coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, vmap

from curvature.blocks import DenseBlock, Layout
from curvature.dense import MAX_PARAMETERS
from curvature.factor import Factor, check_weight

_CHUNK = 2**24  # numbers in one piece of blocks


def check_size(name: str, shape: torch.Size) -> None:
    """Check that a dense matrix over the coefficients is not too large.

    Raises:
        ValueError: If there are more coefficients than `MAX_PARAMETERS`.
    """
    if shape.numel() > MAX_PARAMETERS:
        raise ValueError(
            f"{name} has {shape.numel():,} coefficients, and its curvature is a dense matrix; more "
            f"than {MAX_PARAMETERS:,} are too many: make the layer narrower"
        )


def restricted_block(inputs: Factor, outputs: Factor, count: float, layout: Layout) -> DenseBlock:
    """The curvature ``Q^T (G (x) A) Q / count`` of coefficients.

    Args:
        inputs: Input factor A [B, I, I].
        outputs: Output factor G [B, O, O].
        count: Number of terms in A.
        layout: The coefficients as blocks, and back.
    """
    a, g, size = inputs.matrix, outputs.matrix, layout.shape.numel()
    numbers = outputs.blocks * outputs.dim * inputs.dim
    rows = []
    for unit in torch.eye(size, dtype=a.dtype, device=a.device).split(max(1, _CHUNK // numbers)):
        blocks = vmap(layout.to_blocks)(unit.reshape(-1, *layout.shape))
        rows.append(vmap(layout.from_blocks)(g @ blocks @ a).flatten(1))
    h = torch.cat(rows) / check_weight(count)
    return DenseBlock((h + h.T) / 2, layout.shape)


def gradients(a: Tensor, g: Tensor, layout: Layout) -> Iterator[Tensor]:
    """Per-sample gradients of the coefficients, some samples at a time, [n, P].

    Args:
        a: Inputs [N, R, B, I].
        g: Output gradients [N, R, B, O].
        layout: The coefficients as blocks, and back.
    """
    samples = max(1, _CHUNK // (a.shape[2] * a.shape[3] * g.shape[3]))
    for a_part, g_part in zip(a.split(samples), g.split(samples), strict=True):
        blocks = torch.einsum("nrbo,nrbi->nboi", g_part, a_part)
        yield vmap(layout.from_blocks)(blocks).flatten(1)
