"""Epochs of weight steps, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from curvature import ALONE, Likelihood, Reduction
from curvature.capture import first_not_finite
from curvature.reduce import Share
from symlearn.fit.energy import add_energy
from symlearn.fit.optimisers import MapOptimiser
from symlearn.fit.processes import summed_loss
from symlearn.fit.wholebatch import whole_batch

_ADVICE = "lower the learning rate, or check the data's scale"


class NonFiniteLossError(RuntimeError):
    """The training loss, or a weight, became NaN or infinite."""


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
    processes: Reduction = ALONE,
    micro_batch: int = 0,
) -> float:
    """One pass of MAP steps; returns the mean negative log likelihood seen, in nats.

    A step's gradient is the sum of those of parts of the batch of at most ``micro_batch`` samples
    (0 for whole batches); batch statistics are those of a part. Each part is divided over the
    processes.

    Gradients are summed over the processes here rather than by torch's DistributedDataParallel:
    that fixes once and for all which weights have a gradient, and paths come and go.

    Raises:
        NonFiniteLossError: If the loss or a weight becomes NaN or infinite; names the batch and the
            first layer that produced it.
        ValueError: If there is no batch, no weight has an influence on the loss, or the network
            cannot be trained on a batch of one sample.
    """
    model.train()
    total, seen = 0.0, 0
    for index, (x, y) in enumerate(batches):
        most = micro_batch or len(x)
        optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for part, labels in zip(x.split(most), y.split(most), strict=True):
            share = processes.share(len(part))
            outputs = _outputs(model, part, index, share, processes)
            targets = likelihood.check(outputs.detach(), share.of(labels))
            loss = -likelihood.log_prob(outputs, targets) / len(x)
            loss = loss if share.counted else 0 * loss
            _check_depends(loss)
            loss.backward()
            value += float(loss.detach())
        value = summed_loss(processes, value, y)
        if not math.isfinite(value):
            where = f"batch {index} ({first_not_finite(model, x)})"
            raise NonFiniteLossError(f"the training loss became {value} in {where}; {_ADVICE}")
        processes.sum(*(p.grad for p in model.parameters() if p.grad is not None))
        add_energy(model, optimiser.n_data)
        optimiser.step()
        average.update()
        total, seen = total + value * len(x), seen + len(x)
    if not seen:
        raise ValueError("the training data yielded no batch")
    bad = _not_finite(model)
    if bad:  # the loss of the last batch was that of the weights before its step
        raise NonFiniteLossError(
            f"the weights became NaN or infinite in batch {index}, those of layer {bad!r} first; "
            f"{_ADVICE}"
        )
    return total / seen


def _check_depends(loss: Tensor) -> None:
    if not loss.requires_grad:
        raise ValueError(
            "no weight has an influence on the loss: all are frozen, or the network's outputs "
            "are detached from them"
        )


def _outputs(model: nn.Module, x: Tensor, index: int, share: Share, processes: Reduction) -> Tensor:
    try:
        with whole_batch(share, processes):
            outputs: Tensor = model(share.of(x))
    except ValueError as error:
        if len(x) > 1:
            raise
        raise ValueError(
            f"the network cannot be trained on one sample, which is all that batch {index} has "
            f"(choose another batch_size, or drop_last=True in a loader): {error}"
        ) from error
    return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs


def _not_finite(model: nn.Module) -> str | None:
    """Name of the first layer with weights that are not finite, or None."""
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            return name.rpartition(".")[0]
    return None
