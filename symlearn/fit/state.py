"""What a fit changes as it goes; a deep copy of it is a point to come back to."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

import priors
from curvature import Likelihood
from symlearn.fit.optimisers import MapOptimiser
from symlearn.fit.weights import WeightAverage
from symlearn.relaxed import relaxed_layers

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
        rejected: For each path, evidence steps in a row that preferred its absence.
    """

    model: nn.Module
    prior: priors.PathPrior
    likelihood: Likelihood
    optimiser: MapOptimiser
    average: WeightAverage
    rejected: dict[PathKey, int] = field(default_factory=dict)

    def path(self, key: PathKey) -> nn.Module:
        """The path of a key."""
        return relaxed_layers(self.model)[key[0]].path(key[1])

    def switch_off(self, key: PathKey) -> None:
        """Remove a path; it may be tested and started again later."""
        relaxed_layers(self.model)[key[0]].path(key[1]).switch_off()
        self.rejected[key] = 0
        self.restart(key)

    def restart(self, key: PathKey) -> None:
        """Restart average and moments of a path's weights at their present values."""
        ids = {id(p) for p in self.path(key).parameters()}
        self.average.reset([n for n, p in self.model.named_parameters() if id(p) in ids])
        for p in self.path(key).parameters():
            self.optimiser.restart(p)

    def sync_precisions(self) -> None:
        """Tell the optimiser the prior's precisions."""
        self.optimiser.set_precisions(self.prior.precisions_by_parameter())
