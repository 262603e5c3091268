"""All paths at one fixed precision: what a relaxed network does without any selection."""

from __future__ import annotations

import time

from torch import nn

from curvature import Data
from symlearn.baselines.outcome import BaselineResult
from symlearn.baselines.training import train_map
from symlearn.fit import FitConfig


def mixture(model: nn.Module, train: Data, config: FitConfig | None = None) -> BaselineResult:
    """MAP training of the sum of paths at ``config.precision``.

    Args:
        model: A relaxed network.
        train: Training data.
        config: Options of the training.

    Raises:
        ValueError: As `symlearn.fit`.
    """
    began = time.process_time()
    run = train_map(model, train, config or FitConfig())
    seconds = time.process_time() - began
    return BaselineResult(name="mixture", result=run.finish(), seconds=seconds)
