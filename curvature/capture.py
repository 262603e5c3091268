"""Watching a forward pass: module inputs and handles to the gradients of module outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

_NOT_FINITE = "the network's outputs contain NaN or infinite values"


@dataclass(frozen=True)
class Call:
    """One call of a watched module within the forward pass.

    Attributes:
        module: The module.
        zeros: Zeros like its output, which take no memory: the graph need not keep the output.
        edge: The place in the autograd graph where the gradient of that output is read.
    """

    module: nn.Module
    zeros: Tensor
    edge: GradientEdge
    _given: Tensor = field(repr=False)
    _version: int = field(repr=False)

    @property
    def inputs(self) -> Tensor:
        """The module's first input, detached.

        Raises:
            ValueError: If an in-place operation has overwritten it since the call.
        """
        if self._given._version != self._version:
            raise ValueError(
                f"the input of a {type(self.module).__name__} was overwritten in place after the "
                "call; use the operation that is not in place (inplace=False)"
            )
        return self._given


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


def check_separable(model: nn.Module) -> None:
    """Refuse a network whose output for one sample depends on the others, also in eval mode.

    Raises:
        ValueError: If there are batch normalisations without running statistics; all are named.
    """
    mixing = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    if mixing:
        raise ValueError(
            f"{mixing} normalise with the statistics of the batch also in eval mode; a curvature "
            "needs one output per sample: use track_running_stats=True"
        )


@contextmanager
def watch(modules: Collection[nn.Module], on_call: Callable[[Call], None]) -> Iterator[None]:
    """Report each call of the given modules; no hook is left behind, also after an exception.

    The gradient edge is taken before later in-place operations (``ReLU(inplace=True)``) replace
    the output's place in the graph. Outputs that need no gradient are not reported.
    """

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> Tensor | None:
        x = next(iter((*args, *kwargs.values())), None)
        if not isinstance(out, Tensor) or not isinstance(x, Tensor):
            raise TypeError(
                f"{type(module).__name__} maps {type(x).__name__} to {type(out).__name__}; a "
                "module with a curvature rule takes a tensor first and returns one tensor"
            )
        if not out.requires_grad:
            return None
        # an in-place operation on a view would rewrite the history of its base, past our edge
        copied = out.clone() if out._base is not None else None
        out = out if copied is None else copied
        # a network may run under autocast; sums over its calls keep their precision
        with torch.no_grad(), torch.autocast(out.device.type, enabled=False):
            x = x.detach()
            zeros = out.new_zeros(()).expand(out.shape)
            on_call(Call(module, zeros, get_gradient_edge(out), x, x._version))
        return copied

    # prepend: other hooks may replace the output, which is then no longer the module's own
    handles = [m.register_forward_hook(hook, with_kwargs=True, prepend=True) for m in modules]
    try:
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, x: Tensor) -> Any:
    """What a network returns for a batch.

    Raises:
        ValueError: If it does not accept the batch.
    """
    try:
        return model(x)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"the network does not accept inputs of shape {list(x.shape)} ({x.dtype}): {error}"
        ) from error


def outputs_of(model: nn.Module, x: Tensor) -> Tensor:
    """A network's outputs [N, K] for a batch, checked by `check_outputs`.

    Raises:
        ValueError: If the network does not accept the batch, or returns something else.
    """
    outputs = _one_row_each(run(model, x), len(x))
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError(f"{_NOT_FINITE} ({first_not_finite(model, x)})")
    return outputs


def first_not_finite(model: nn.Module, x: Tensor) -> str:
    """Say which is the first layer whose output for a batch is NaN or infinite, in eval mode."""
    found: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: object, out: object) -> None:
            if not found and isinstance(out, Tensor) and not bool(torch.isfinite(out).all()):
                found.append(name)

        return look

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [m.register_forward_hook(hook(n)) for n, m in leaves]
    try:
        with torch.no_grad(), evaluating(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return f"first in layer {found[0]!r}" if found else "the outputs of all layers are finite"


def check_outputs(outputs: object, n: int) -> Tensor:
    """Return network outputs as [N, K].

    Raises:
        ValueError: If they are not one row of floating-point numbers per sample, or not finite.
    """
    outputs = _one_row_each(outputs, n)
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError(_NOT_FINITE)
    return outputs


def _one_row_each(outputs: object, n: int) -> Tensor:
    """Network outputs as [N, K], finite or not."""
    if isinstance(outputs, Tensor) and outputs.ndim == 1:
        outputs = outputs.unsqueeze(1)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != n:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"the network returned {shape} for {n} samples; it must return one row per sample, "
            "[N, K]"
        )
    if not outputs.is_floating_point():
        raise ValueError(f"the network returned {outputs.dtype}; it must return real numbers")
    return outputs
