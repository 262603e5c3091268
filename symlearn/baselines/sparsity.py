"""A sparsity penalty on whole paths, or on their single weights.

To the mean loss is added ``strength * sqrt(P) ||theta||`` for each factor theta of P weights (group
lasso, Yuan and Lin 2006) or ``strength * ||theta||_1``, by a proximal step after each step of the
weights, so that zeros are exact. A path with a factor at zero contributes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from curvature import Data
from symlearn.baselines.choosing import choose
from symlearn.baselines.outcome import BaselineResult
from symlearn.baselines.training import named_paths, train_map
from symlearn.fit import FitConfig
from symlearn.fit.fitting import Fitting

PENALTIES = ("group", "l1")
STRENGTHS = (1e-4, 1e-3, 1e-2)


def sparse_paths(
    model: nn.Module,
    train: Data,
    validation: Data,
    config: FitConfig | None = None,
    *,
    penalty: str = "group",
    strengths: Sequence[float] = STRENGTHS,
    equal_compute: bool = True,
) -> BaselineResult:
    """Train once for each strength of a penalty on all paths; keep the best on validation data.

    Args:
        model: A relaxed network.
        train: Training data.
        validation: Data whose negative log likelihood decides.
        config: Options of the training.
        penalty: "group" for whole factors of paths, "l1" for single weights.
        strengths: Strengths of the penalty, in nats per sample and unit of weight.
        equal_compute: Divide the epochs among the fits, so that all together cost one.

    Raises:
        ValueError: For an unknown penalty, or as `symlearn.fit`.
    """
    if penalty not in PENALTIES:
        raise ValueError(f"unknown penalty {penalty!r}; choose one of {list(PENALTIES)}")
    shrink = shrink_group if penalty == "group" else shrink_each

    def train_at(strength: float, config: FitConfig) -> Fitting:
        return _penalised(model, train, config, shrink, strength)

    return choose(
        f"{penalty} lasso" if penalty == "group" else "L1",
        "strength",
        strengths,
        train_at,
        validation,
        config or FitConfig(),
        equal_compute,
    )


def _penalised(
    model: nn.Module,
    train: Data,
    config: FitConfig,
    shrink: Callable[[Tensor, float], None],
    strength: float,
) -> Fitting:
    """Train with a proximal step on all paths after each step of the weights."""
    handles: list[RemovableHandle] = []

    def prepare(run: Fitting) -> None:
        weights = [w for path in named_paths(run.model).values() for w in path.factors()]

        @torch.no_grad()
        def step(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            for weight in weights:
                shrink(weight, optimiser.param_groups[0]["lr"] * strength)

        handles.append(run.state.optimiser.register_step_post_hook(step))

    run = train_map(model, train, config, prepare=prepare)
    handles[0].remove()
    _zero_average(run)
    return run


def shrink_group(weight: Tensor, amount: float) -> None:
    """Proximal step of ``amount * sqrt(P) ||weight||``, in place."""
    norm = float(weight.norm())
    less = amount * weight.numel() ** 0.5
    weight.mul_(max(0.0, 1 - less / norm) if norm > 0 else 0.0)


def shrink_each(weight: Tensor, amount: float) -> None:
    """Proximal step of ``amount * ||weight||_1``, in place."""
    weight.copy_(weight.sign() * (weight.abs() - amount).clamp(min=0))


def _zero_average(run: Fitting) -> None:
    """Zeros of the weights are zeros of their running average, which only comes near them."""
    average = run.state.average
    for name, weight in run.model.named_parameters():
        average.values[name].mul_(weight.detach() != 0)
