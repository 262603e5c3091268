"""Residual pathway priors with variances set by hand: a grid, and validation data to choose.

The free paths of all layers share one prior precision, the strict ones another, as in Finzi, Benton
and Wilson (2021). The grid is over the free paths' precision.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from curvature import Data
from symlearn.baselines.choosing import choose
from symlearn.baselines.outcome import BaselineResult
from symlearn.baselines.training import free_paths, train_map
from symlearn.fit import FitConfig
from symlearn.fit.fitting import Fitting

PRECISIONS = (1.0, 30.0, 1e3, 3e4)


def prior_grid(
    model: nn.Module,
    train: Data,
    validation: Data,
    config: FitConfig | None = None,
    *,
    precisions: Sequence[float] = PRECISIONS,
    equal_compute: bool = True,
) -> BaselineResult:
    """Train once for each precision of the free paths; keep the best on validation data.

    Args:
        model: A relaxed network.
        train: Training data.
        validation: Data whose negative log likelihood decides.
        config: Options of the training; its ``precision`` is that of the strict paths.
        precisions: Precisions of the free paths.
        equal_compute: Divide the epochs among the fits, so that all together cost one.

    Raises:
        ValueError: If there is nothing to choose from, or as `symlearn.fit`.
    """
    keys = free_paths(model)

    def train_at(precision: float, config: FitConfig) -> Fitting:
        return train_map(model, train, config, precisions=dict.fromkeys(keys, precision))

    return choose(
        "prior grid",
        "precision of free paths",
        precisions,
        train_at,
        validation,
        config or FitConfig(),
        equal_compute,
    )
