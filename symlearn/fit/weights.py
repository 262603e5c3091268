"""Epochs of weight steps, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from curvature import Likelihood
from symlearn.fit.optimisers import MapOptimiser


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite."""


class WeightAverage:
    """Exponential running average of a model's parameters, corrected for its start.

    Args:
        model: The model; its trainable state is averaged.
        decay: Weight of the past in one step; 0 keeps only the present.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.values = {n: p.detach().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights in; early steps average uniformly."""
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + 10))
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                self.values[name].lerp_(p, weight)

    def reset(self, names: Iterator[str] | list[str]) -> None:
        """Restart the average of some parameters at their current values."""
        current = dict(self.model.named_parameters())
        for name in names:
            self.values[name] = current[name].detach().clone()

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps they are over."""
        return {"steps": self.steps, "values": dict(self.values)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, in the memory layout of the parameters."""
        self.steps = state["steps"]
        self.values = {
            name: torch.empty_like(p).copy_(state["values"][name])
            for name, p in self.model.named_parameters()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside, and its own again afterwards."""
        own = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.model.named_parameters():
                    p.copy_(own[name])

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Overwrite the model's weights by the average."""
        for name, p in self.model.named_parameters():
            p.copy_(self.values[name])


def train_epoch(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    likelihood: Likelihood,
    optimiser: MapOptimiser,
    average: WeightAverage,
) -> float:
    """One pass of MAP steps; returns the mean negative log likelihood seen, in nats.

    Raises:
        NonFiniteLossError: If the loss is NaN or infinite; names the first layer that produced it.
    """
    model.train()
    total, seen = 0.0, 0
    for x, y in batches:
        outputs = _outputs(model(x))
        loss = -likelihood.log_prob(outputs, likelihood.check(outputs.detach(), y)) / len(x)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the training loss became {value} ({_culprit(model, x)}); lower the learning "
                "rate, or check the data's scale"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        average.update()
        total, seen = total + value * len(x), seen + len(x)
    if not seen:
        raise ValueError("the training data yielded no batch")
    return total / seen


def _outputs(outputs: Tensor) -> Tensor:
    return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs


def _culprit(model: nn.Module, x: Tensor) -> str:
    """Name of the first module whose output is not finite."""
    found: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: object, out: object) -> None:
            if not found and isinstance(out, Tensor) and not bool(torch.isfinite(out).all()):
                found.append(name)

        return look

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [m.register_forward_hook(hook(n)) for n, m in leaves]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return f"first in layer {found[0]!r}" if found else "in the loss itself"
