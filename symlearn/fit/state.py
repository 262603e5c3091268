"""What a fit changes as it goes; a deep copy of it is a point to come back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import priors
from curvature import Gaussian, Likelihood
from symlearn.fit.optimisers import MapOptimiser
from symlearn.fit.weights import WeightAverage
from symlearn.paths import Path
from symlearn.relaxed import enable_paths, enabled_paths, relaxed_layers

PathKey = tuple[str, str]
"""Name of a relaxed layer and name of a path in it."""


@dataclass
class State:
    """The moving parts of a fit.

    Attributes:
        model: The relaxed network.
        prior: Precisions of all groups.
        likelihood: The likelihood, with the current noise.
        optimiser: Moments of the weights.
        average: Running average of the weights.
        rejected: For each path, and each part "path.part" of one, evidence steps in a row that
            preferred its absence.
    """

    model: nn.Module
    prior: priors.PathPrior
    likelihood: Likelihood
    optimiser: MapOptimiser
    average: WeightAverage
    rejected: dict[PathKey, int] = field(default_factory=dict)

    def path(self, key: PathKey) -> Path:
        """The path of a key."""
        return relaxed_layers(self.model)[key[0]].path(key[1])

    def switch_off(self, key: PathKey) -> None:
        """Remove a path; it may be tested and started again later."""
        self.path(key).switch_off()
        self.rejected[key] = 0
        self.restart(key)

    def drop(self, key: PathKey, part: str) -> None:
        """Remove a part of a path; it returns if the path does."""
        path = self.path(key)
        path.drop(part)
        self.rejected[key[0], f"{key[1]}.{part}"] = 0
        self._restart([path.get_parameter(name) for name in path.parts()[part]])

    def restart(self, key: PathKey) -> None:
        """Restart average and moments of a path's weights at their present values."""
        self._restart(list(self.path(key).parameters()))

    def _restart(self, weights: list[nn.Parameter]) -> None:
        ids = {id(p) for p in weights}
        self.average.reset([n for n, p in self.model.named_parameters() if id(p) in ids])
        for p in weights:
            self.optimiser.restart(p)

    def sync_precisions(self) -> None:
        """Tell the optimiser the prior's precisions."""
        self.optimiser.set_precisions(self.prior.precisions_by_parameter())

    def start_from(self, model: nn.Module, prior: priors.PathPrior, likelihood: Likelihood) -> None:
        """Take over the weights, switched-on paths, precisions and noise of an earlier fit.

        Raises:
            ValueError: If it is one of another model.
        """
        if list(prior.groups) != list(self.prior.groups):
            raise ValueError("resume belongs to another model: its prior groups differ")
        self.model.load_state_dict(model.state_dict())
        enable_paths(self.model, enabled_paths(model))
        self.prior.log_precision = prior.log_precision.clone()
        if isinstance(self.likelihood, Gaussian):
            self.likelihood = Gaussian(getattr(likelihood, "noise", 1.0))

    def state_dict(self) -> dict[str, Any]:
        """All that moves, as a tree of numbers, names and tensors."""
        return {
            "model": self.model.state_dict(),
            "enabled": enabled_paths(self.model),
            "frozen": [n for n, p in self.model.named_parameters() if not p.requires_grad],
            "prior": self.prior.state_dict(),
            "noise": getattr(self.likelihood, "noise", None),
            "optimiser": self.optimiser.named_state(),
            "average": self.average.state_dict(),
            "rejected": [[*key, times] for key, times in self.rejected.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, of a model of the same architecture."""
        enable_paths(self.model, state["enabled"])
        self.model.load_state_dict(state["model"])
        for name, p in self.model.named_parameters():
            p.requires_grad_(name not in state["frozen"])
        self.prior.load_state_dict(state["prior"])
        if isinstance(self.likelihood, Gaussian):
            self.likelihood = Gaussian(state["noise"])
        self.optimiser.load_named_state(state["optimiser"])
        self.average.load_state_dict(state["average"])
        self.rejected = {(layer, path): times for layer, path, times in state["rejected"]}
