"""MAP steps on the weights: a proximal Adam whose fixed point is the MAP, and weight averaging.

    v <- adaptive scale of the gradient g of the mean negative log likelihood
    p <- p - lr m / (sqrt v + eps)                       data term
    p <- p / (1 + lr delta / (N (sqrt v + eps)))         prior term, exactly, in the same metric

A stationary point has ``m + delta p / N = 0``, the MAP, and the step is stable for any delta.
Decoupled decay (AdamW) divides by ``1 + lr delta / N`` instead, and has another fixed point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from curvature import Likelihood


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite."""


class ProximalAdam(torch.optim.Optimizer):
    """Adam on the data term, with an exact proximal step for each parameter's Gaussian prior.

    Args:
        named: Parameters by name.
        n_data: Number of samples N that the mean loss averages over (times the likelihood weight).
        lr: Step size.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        n_data: float,
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-4,
    ) -> None:
        groups = [{"params": [p], "name": n, "precision": 0.0} for n, p in named.items()]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "n_data": float(n_data)})

    def set_precisions(self, precisions: Mapping[str, float]) -> None:
        """Set the prior precision of each named parameter; others have none."""
        for group in self.param_groups:
            group["precision"] = precisions.get(group["name"], 0.0)

    def set_lr(self, lr: float) -> None:
        """Set the step size of all parameters."""
        for group in self.param_groups:
            group["lr"] = lr

    def restart(self, parameter: nn.Parameter) -> None:
        """Forget a parameter's moments: small known scale, no momentum."""
        self.state[parameter] = {
            "step": 10_000,
            "m": torch.zeros_like(parameter),
            "v": torch.full_like(parameter, 1e-6),
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on all parameters that have a gradient of the mean data loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.requires_grad:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        state["step"] += 1
        b1, b2 = group["betas"]
        m, v = state["m"].lerp_(g, 1 - b1), state["v"].lerp_(g.square(), 1 - b2)
        scale = (v / (1 - b2 ** state["step"])).sqrt_().add_(group["eps"])
        lr = group["lr"]
        p.addcdiv_(m, scale, value=-lr / (1 - b1 ** state["step"]))
        if group["precision"]:
            p.div_(1 + (lr * group["precision"] / group["n_data"]) / scale)


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
    optimiser: ProximalAdam,
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
