"""Circular padding whose gradient is cheap.

Autograd differentiates circular padding through the slices that make it: the gradient is copied in
full for every one of them, which costs more than the convolution's own. Its adjoint is one copy of
the interior, to which the borders are added.
"""

from __future__ import annotations

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
    """Add to the interior of g every border at the sites it was copied from.

    One copy, of what is left after the first axis that is padded; the result is a view of it.
    """
    mine = False
    for axis in range(g.ndim - len(pads) // 2, g.ndim):
        before, after = pads[2 * (g.ndim - 1 - axis) : 2 * (g.ndim - axis)]
        size = g.shape[axis] - before - after
        if before or after:
            interior = g.narrow(axis, before, size)
            interior = interior if mine else interior.clone(memory_format=torch.contiguous_format)
            interior.narrow(axis, size - before, before).add_(g.narrow(axis, 0, before))
            interior.narrow(axis, 0, after).add_(g.narrow(axis, before + size, after))
            g, mine = interior, True
    return g


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
