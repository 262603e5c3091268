"""Forward passes in bfloat16, and everything else in the precision of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def autocast(model: nn.Module, enabled: bool) -> Iterator[None]:
    """The network's forward passes run in bfloat16 inside (`torch.autocast`).

    Its outputs are float32 again, so that losses are. Backward passes take the types of the forward
    ones; the sums of a curvature pass, decompositions and steps keep the type of the weights.

    Args:
        model: The network.
        enabled: Whether to; else nothing is done.
    """
    if not enabled:
        yield
        return
    entered: list[torch.autocast] = []

    def enter(module: nn.Module, args: tuple[object, ...]) -> None:
        device = next((p.device.type for p in module.parameters()), "cpu")
        entered.append(torch.autocast(device, torch.bfloat16))
        entered[-1].__enter__()

    def leave(module: nn.Module, args: tuple[object, ...], out: object) -> Tensor | None:
        entered.pop().__exit__(None, None, None)
        half = isinstance(out, Tensor) and out.dtype == torch.bfloat16
        return out.float() if half else None  # type: ignore[attr-defined]

    handles = [
        model.register_forward_pre_hook(enter),
        model.register_forward_hook(leave, always_call=True),  # also after an error
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
