"""A gate on each free path, closed by dual variables: in the manner of ACE (NeurIPS 2025).

The layer is ``strict(x) + gamma free(x)``. Equivariance is the constraint ``|gamma| <= u`` with a
slack u that costs ``rho u^2 / 2``; training descends on weights, gates and slacks and ascends on
the multipliers mu of

    loss + sum_l [ mu_l (|gamma_l| - u_l) + rho u_l^2 / 2 ].

Where the loss does not need the free path, mu pulls its gate to zero and the slack follows. The
stationary slack is ``u = mu / rho``: a gate stays open where the loss gains more by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from curvature import Data
from symlearn.baselines.outcome import BaselineResult
from symlearn.baselines.training import free_paths, train_map
from symlearn.fit import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.fit.state import PathKey
from symlearn.paths import Path


def gates(
    model: nn.Module,
    train: Data,
    config: FitConfig | None = None,
    *,
    start: float = 1.0,
    dual_rate: float = 0.01,
    slack_cost: float = 1.0,
) -> BaselineResult:
    """Train with a gate on each free path and a dual variable that closes it.

    At the end each gate is multiplied into its path's weights.

    Args:
        model: A relaxed network.
        train: Training data.
        config: Options of the training; gates move with its learning rate.
        start: Gates at the start.
        dual_rate: Step of the multipliers and slacks, per step of the weights.
        slack_cost: Price rho of a slack.

    Raises:
        ValueError: For numbers that are not positive, or as `symlearn.fit`.
    """
    for name, value in (("start", start), ("dual_rate", dual_rate), ("slack_cost", slack_cost)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; give a positive number")
    free_paths(model)
    began = time.process_time()
    held: list[_Gates] = []

    def prepare(run: Fitting) -> None:
        held.append(_Gates(run, start, dual_rate, slack_cost))

    run = train_map(model, train, config or FitConfig(), prepare=prepare)
    held[0].fold()
    seconds = time.process_time() - began
    return BaselineResult(
        name="gates",
        result=run.finish(),
        seconds=seconds,
        chosen={".".join(key): gate.item() for key, gate in held[0].values.items()},
    )


class _Gates:
    """Gates, slacks and multipliers of one training run, and the hooks that move them."""

    def __init__(self, run: Fitting, start: float, dual_rate: float, slack_cost: float) -> None:
        self._run, self._rate, self._cost = run, dual_rate, slack_cost
        self._paths = free_paths(run.model)
        anchor = next(run.model.parameters()).detach()
        self.values: dict[PathKey, Tensor] = {
            key: anchor.new_tensor(start).requires_grad_() for key in self._paths
        }
        self._slack = dict.fromkeys(self._paths, start)
        self._dual = dict.fromkeys(self._paths, 0.0)
        self._hooks = [
            path.register_forward_hook(_gated(self.values[key]))
            for key, path in self._paths.items()
        ]
        self._hooks.append(run.state.optimiser.register_step_post_hook(self._step))

    @torch.no_grad()
    def _step(self, optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        lr = optimiser.param_groups[0]["lr"]
        for key, gate in self.values.items():
            if gate.grad is not None:
                size = abs(gate.item())
                gate -= lr * gate.grad
                # the pull of |gamma| as a proximal step, so that zero is reached
                gate.copy_(gate.sign() * (gate.abs() - lr * self._dual[key]).clamp(min=0))
                gate.grad = None
                violation = size - self._slack[key]
                slack = self._slack[key] - self._rate * (
                    self._cost * self._slack[key] - self._dual[key]
                )
                self._slack[key] = max(0.0, slack)
                self._dual[key] = max(0.0, self._dual[key] + self._rate * violation)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the gates into the weights and their averages, and remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        average = self._run.state.average
        average.copy_to_model()
        for key, path in self._paths.items():
            _multiply(path, self.values[key].item())
        average.reset([name for name, _ in self._run.model.named_parameters()])


def _gated(gate: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda module, args, out: gate * out


def _multiply(path: Path, gate: float) -> None:
    if gate:
        path.scale(abs(gate))
        if gate < 0:
            path.factors()[0].neg_()
    else:
        path.switch_off()
