"""Circular padding whose gradient is cheap.

Autograd differentiates circular padding through the slices that make it: the gradient is copied in
full for every one of them, which costs more than the convolution's own. Its adjoint is one copy of
the interior, to which the borders are added.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _PadCircular(torch.autograd.Function):
    """``F.pad(x, pads, mode="circular")``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, pads: tuple[int, ...]) -> Tensor:
        return F.pad(x, pads, mode="circular")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[int, ...]], output: Tensor) -> None:
        ctx.pads = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _fold(g, ctx.pads), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return F.pad(tangent, ctx.pads, mode="circular")


def _fold(g: Tensor, pads: Sequence[int]) -> Tensor:
    """Add to the interior of g every border at the sites it was copied from."""
    parts = []
    for axis, before, after in zip(range(g.ndim - 1, -1, -1), pads[::2], pads[1::2], strict=False):
        size = g.shape[axis] - before - after
        # (start in g, start in the interior, length)
        sources = [(before, 0, size), (0, size - before, before), (before + size, 0, after)]
        parts.append([(axis, *source) for source in sources if source[2]])
    interior, *borders = itertools.product(*parts)
    total = _cut(g, [(axis, start, size) for axis, start, _, size in interior])
    total = total.clone(memory_format=torch.contiguous_format)
    for border in borders:
        source = _cut(g, [(axis, start, size) for axis, start, _, size in border])
        _cut(total, [(axis, to, size) for axis, _, to, size in border]).add_(source)
    return total


def _cut(x: Tensor, pieces: Sequence[tuple[int, int, int]]) -> Tensor:
    """View of x narrowed along (axis, start, length) of every piece."""
    for axis, start, length in pieces:
        x = x.narrow(axis, start, length)
    return x


def pad_circular(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Pad the last axes of [N, C, *size] circularly, by at most the size of each.

    The same as ``torch.nn.functional.pad(x, pads, mode="circular")`` in values and derivatives of
    every order; only its gradient is faster.

    Args:
        x: Maps [N, C, *size].
        pads: Sites before and after each spatial axis, last axis first.
    """
    out: Tensor = _PadCircular.apply(x, tuple(pads))
    return out


class FastPadding(TorchFunctionMode):
    """Inside, ``torch.nn.functional.pad`` pads circularly by `pad_circular`.

    So that the networks of others, which pad by torch's modules, have cheap passes as well.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return (_pad if func is F.pad else func)(*args, **kwargs or {})


def _pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """`torch.nn.functional.pad`, with its names."""
    if mode == "circular" and min(pad) >= 0:
        return pad_circular(input, pad)
    return F.pad(input, list(pad), mode, value)
