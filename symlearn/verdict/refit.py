"""Short refits of a fitted network with some of its paths forced off.

The network is trained on without the paths, from its other weights and precisions. The difference
of the log evidences to the network that was trained on with them is a log Bayes factor for them.
It is large if nothing else may take over their work, and small if other paths may: both are asked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import priors
from curvature import Data
from curvature.checking import seeded
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.fit.evidence import part_of
from symlearn.fit.facts import path_groups
from symlearn.fit.state import PathKey
from symlearn.relaxed import RelaxedLayer, relaxed_layers

HELD, FREE = "held", "free"

MODES: dict[str, dict[str, Any]] = {
    HELD: {"grow": False, "off_after": 0},
    FREE: {"grow": True, "grow_every": 1},
}
"""Options of a refit: the other paths stay as they are, or may be started and switched off."""


def exact(config: FitConfig) -> FitConfig:
    """The options with the exact evidence of all data at the end, and no check."""
    return replace(config, report_estimator="exact", report_samples=0, check_images=0)


def refit(
    result: FitResult, train: Data, config: FitConfig, removed: Sequence[PathKey], mode: str
) -> FitResult:
    """Train a fitted network on without some paths.

    Args:
        result: The fit.
        train: Its training data.
        config: Its options, with the number of epochs of the refit.
        removed: Names of layers and paths that are taken away for good.
        mode: `HELD` or `FREE`.
    """
    options: dict[str, Any] = {"burn_in": 0.0, "early_stop": False, "challenge_epochs": 0}
    start = without_paths(result, removed, config)
    return fit(
        start.model, train, exact(replace(config, **{**options, **MODES[mode]})), resume=start
    )


def without_paths(result: FitResult, removed: Sequence[PathKey], config: FitConfig) -> FitResult:
    """The fit of a network that never had some paths.

    Where nothing stays on in a layer, its strictest path starts anew.

    Args:
        result: The fit.
        removed: Names of layers and paths.
        config: Seed and precision of paths that start anew.
    """
    model = copy.deepcopy(result.model)
    layers = relaxed_layers(model)
    for layer, path in removed:
        del layers[layer].paths[path]
        layers[layer].specs = tuple(spec for spec in layers[layer].specs if spec.name != path)
    prior = part_of(result.prior, _kept(result.prior, _stems(removed)))
    for name in dict.fromkeys(layer for layer, _ in removed):
        _restart_strict(name, layers[name], prior, config)
    return replace(result, model=model, prior=prior)


def _stems(removed: Sequence[PathKey]) -> list[str]:
    return [f"{layer}.{path}".lstrip(".") for layer, path in removed]


def _kept(prior: priors.PathPrior, stems: Sequence[str]) -> list[str]:
    """Prior groups that are of none of the paths."""
    return [g for g in prior.groups if not any(g == s or g.startswith(f"{s}.") for s in stems)]


def _restart_strict(
    name: str, layer: RelaxedLayer, prior: priors.PathPrior, config: FitConfig
) -> None:
    paths = layer.named_paths()
    if any(path.enabled for path in paths.values()):
        return
    strict = max(paths, key=lambda key: paths[key].strictness)
    paths[strict].switch_on()
    paths[strict].reset_parameters(seeded(config.seed))
    for group in path_groups(prior, name, strict):
        prior.set_precision(group, config.precision)
