"""A grid of one number, and validation data that choose from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import curvature
from curvature import Data
from symlearn.baselines.outcome import BaselineResult
from symlearn.fit import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.scoring import score


def choose(
    name: str,
    what: str,
    values: Sequence[float],
    train_at: Callable[[float, FitConfig], Fitting],
    validation: Data,
    config: FitConfig,
    equal_compute: bool,
) -> BaselineResult:
    """Train once for each value; keep the network with the best validation likelihood.

    Args:
        name: The baseline.
        what: What the values are.
        values: The grid.
        train_at: Trains at a value.
        validation: Data whose negative log likelihood decides.
        config: Options of the training.
        equal_compute: Divide the epochs among the fits, so that all together cost one.

    Raises:
        ValueError: If the grid is empty or holds something else than positive numbers.
    """
    if not values or not all(0 < value < math.inf for value in values):
        raise ValueError(f"the grid of {what} is {list(values)}; give positive numbers")
    if equal_compute:
        config = replace(config, epochs=max(1, config.epochs // len(values)))
    began = time.process_time()
    runs = {value: train_at(value, config) for value in values}
    losses = {value: _loss(run, validation) for value, run in runs.items()}
    seconds = time.process_time() - began
    best = min(losses, key=lambda value: losses[value])
    model = runs[best].model
    return BaselineResult(
        name=name,
        result=runs[best].finish(),
        seconds=seconds,
        fits=len(runs),
        n_validation=sum(len(x) for x, _ in curvature.batches(validation, model, 512)),
        chosen={what: best},
    )


def _loss(run: Fitting, validation: Data) -> float:
    with run.state.average.applied():
        return score(run.model, validation, run.state.likelihood)["nll"]
