"""Training at fixed precisions, by the optimiser and schedule of `symlearn.fit`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from curvature import Data
from symlearn.fit import FitConfig
from symlearn.fit.facts import path_groups
from symlearn.fit.fitting import Fitting
from symlearn.fit.state import PathKey
from symlearn.paths import Path
from symlearn.relaxed import relaxed_layers


def named_paths(model: nn.Module) -> dict[PathKey, Path]:
    """All paths of a network by layer and name."""
    return {
        (layer, name): path
        for layer, relaxed in relaxed_layers(model).items()
        for name, path in relaxed.named_paths().items()
    }


def free_paths(model: nn.Module) -> dict[PathKey, Path]:
    """Paths that are less strict than the strictest one of their layer.

    Raises:
        ValueError: If no layer has paths that differ in their symmetry.
    """
    free = {
        (layer, name): path
        for layer, relaxed in relaxed_layers(model).items()
        for name, path in relaxed.named_paths().items()
        if path.strictness < max(p.strictness for p in relaxed.named_paths().values())
    }
    if not free:
        raise ValueError(
            "no layer has a path that is freer than another one; wrap with two, such as "
            "paths=('conv', 'ffc')"
        )
    return free


def train_map(
    model: nn.Module,
    train: Data,
    config: FitConfig,
    *,
    precisions: Mapping[PathKey, float] | None = None,
    prepare: Callable[[Fitting], None] | None = None,
) -> Fitting:
    """Train a copy of a relaxed network to its MAP.

    Args:
        model: The relaxed network.
        train: Training data.
        config: Options; the objective is "map" whatever it says.
        precisions: Prior precisions of some paths; the others have the config's.
        prepare: Called before the first epoch, to add hooks to the network or its optimiser.

    Returns:
        The finished fit, whose `finish` measures and reports.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        run = Fitting(copy.deepcopy(model), train, replace(config, objective="map"))
        prior = run.state.prior
        for key, precision in (precisions or {}).items():
            for group in path_groups(prior, *key):
                prior.set_precision(group, precision)
        run.state.sync_precisions()
        if prepare is not None:
            prepare(run)
        while not run.ended:
            run.advance()
    return run
