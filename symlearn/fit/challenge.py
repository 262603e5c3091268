"""Trials without a path: does the layer do as well on its other paths?

The local test sees only the neighbourhood of the present weights. Two paths that share work which
either could do alone both pay locally, though the network without one of them has the larger
evidence. So before the final annealing each path of a layer with several is *challenged*: it is
removed on trial, the rest is trained on for a few epochs, and the network with the largest evidence
goes on. All networks see the same batches and the same sketches, so that they differ by the path
only; a trial that cannot make up for its loss any more is given up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from symlearn.fit.evidence import cost_of
from symlearn.fit.facts import path_groups
from symlearn.fit.precisions import Step
from symlearn.fit.state import PathKey, State
from symlearn.relaxed import relaxed_layers


@dataclass(frozen=True)
class Challenge:
    """A path removed on trial.

    Attributes:
        key: Names of the layer and of the path.
        with_path: Log evidence in nats after training on with it.
        without_path: Log evidence in nats after training on without it.
        removed: Whether the network without it was kept.
    """

    key: PathKey
    with_path: float
    without_path: float
    removed: bool

    @property
    def path(self) -> str:
        """The path as "layer.path"."""
        return ".".join(self.key).lstrip(".")

    @property
    def outcome(self) -> str:
        """What the trial found, in words."""
        change = self.without_path - self.with_path
        decision = "removed" if self.removed else "kept"
        return f"{change:+.0f} nats of evidence after refit, {decision}"

    def to_dict(self) -> dict[str, Any]:
        """The trial as a JSON-ready dict."""
        return {**asdict(self), "key": list(self.key)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Challenge:
        """Inverse of `to_dict`."""
        layer, path = data["key"]
        return cls(**{**data, "key": (layer, path)})


@dataclass(frozen=True)
class Refit:
    """A network after training on.

    Attributes:
        state: Its state.
        losses: Mean negative log likelihood in nats of each epoch's batches.
        last: The evidence step after the last epoch.
    """

    state: State
    losses: tuple[float, ...]
    last: Step


@dataclass(frozen=True)
class Rival:
    """What a trial has to beat.

    Attributes:
        losses: Losses of the network with the path, epoch by epoch.
        saving: What the removal may save, in nats per sample.
    """

    losses: tuple[float, ...]
    saving: float

    def out_of_reach(self, losses: Sequence[float]) -> bool:
        """Whether a trial loses even if its loss goes on catching up as fast as in its last epoch.

        Args:
            losses: Losses of the trial so far.
        """
        if len(losses) < 2:
            return False
        before, now = (losses[i] - self.losses[: len(losses)][i] for i in (-2, -1))
        left = len(self.losses) - len(losses)
        return now - left * max(0.0, before - now) > self.saving


TrainOn = Callable[[State, "Rival | None"], Refit]
"""Trains a state for the epochs of a trial, or until its rival is out of reach."""


def contested(model: nn.Module) -> list[PathKey]:
    """Paths of the layers that have several on; frozen ones are left alone."""
    on = {
        name: {key: path for key, path in layer.named_paths().items() if path.enabled}
        for name, layer in relaxed_layers(model).items()
    }
    return [
        (name, key)
        for name, paths in on.items()
        if len(paths) > 1
        for key, path in paths.items()
        if any(p.requires_grad for p in path.factors())
    ]


def challenge(
    state: State, paths: Sequence[PathKey], train_on: TrainOn, n_data: float, noise: float
) -> tuple[Refit, list[Challenge]]:
    """Remove each path on trial, train on, and keep the network with most evidence.

    Args:
        state: The fit's state; it is not changed.
        paths: The paths to be challenged, one at a time.
        train_on: Trains a state for the epochs of a trial.
        n_data: Samples (times the likelihood weight) that the losses average over.
        noise: Nats per sample by which a comparison may err.

    Returns:
        The network to go on with, and what was found for each path.
    """
    # the network with all paths is trained on as well: what differs is only the path
    control = winner = train_on(copy.deepcopy(state), None)
    values: dict[PathKey, float] = {}
    removed: PathKey | None = None
    for key in paths:
        groups = path_groups(control.state.prior, *key)
        saving = cost_of(control.state.prior, control.last.found, groups) / n_data
        other = copy.deepcopy(state)
        other.switch_off(key)
        trial = train_on(other, Rival(control.losses, saving + noise))
        values[key] = trial.last.after
        if trial.last.after > winner.last.after:
            winner, removed = trial, key
    found = [
        Challenge(key, control.last.after, value, removed=key == removed)
        for key, value in values.items()
    ]
    return winner, found
