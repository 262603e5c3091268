"""Watching a forward pass: module inputs and handles to the gradients of module outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass(frozen=True)
class Call:
    """One call of a watched module within the forward pass.

    Attributes:
        module: The module.
        inputs: Its first input, detached.
        outputs: Its output, detached.
        edge: The place in the autograd graph where the gradient of that output is read.
    """

    module: nn.Module
    inputs: Tensor
    outputs: Tensor
    edge: GradientEdge


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; every submodule's own mode is restored at the end.

    Batch statistics and dropout would make the curvature depend on batch-mates and on chance, and
    a pass in training mode would change running statistics.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def watch(modules: Collection[nn.Module], on_call: Callable[[Call], None]) -> Iterator[None]:
    """Report each call of the given modules; no hook is left behind, also after an exception.

    The gradient edge is taken before later in-place operations (``ReLU(inplace=True)``) replace
    the output's place in the graph. Outputs that need no gradient are not reported.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{type(module).__name__} returned {type(out).__name__}; a module with a curvature "
                "rule must return one tensor"
            )
        if out.requires_grad:
            x = args[0] if args else next(iter(kwargs.values()))
            on_call(Call(module, x.detach(), out.detach(), get_gradient_edge(out)))

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def check_outputs(outputs: object, n: int) -> Tensor:
    """Return network outputs as [N, K].

    Raises:
        ValueError: If they are not one row per sample, or not finite.
    """
    if isinstance(outputs, Tensor) and outputs.ndim == 1:
        outputs = outputs.unsqueeze(1)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != n:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the network returned {shape}; it must return one row per sample, [N, K]")
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("the network's outputs contain NaN or infinite values")
    return outputs
