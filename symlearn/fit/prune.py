"""Two ways a path goes: the evidence rejects it where it is, or the layer does as well without it.

The local test sees only the neighbourhood of the present weights. Two paths that share work which
either could do alone both pay locally, though the network without one of them has the larger
evidence. So before the final annealing each layer with several paths is *challenged*: each of its
paths is removed on trial, the rest is trained on for a few epochs, and the network with the largest
evidence goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

import priors
from symlearn.fit.facts import path_groups
from symlearn.fit.state import State
from symlearn.relaxed import relaxed_layers


@dataclass(frozen=True)
class Challenge:
    """A path removed on trial.

    Attributes:
        path: The path as "layer.path".
        with_path: Log evidence in nats after training on with it.
        without_path: Log evidence in nats after training on without it.
        removed: Whether the network without it was kept.
    """

    path: str
    with_path: float
    without_path: float
    removed: bool


def prune_rejected(
    state: State, tests: dict[str, priors.Relevance], off_after: int
) -> tuple[str, ...]:
    """Switch off paths whose absence the evidence has preferred ``off_after`` times in a row."""
    pruned = []
    for layer_name, layer in relaxed_layers(state.model).items():
        for path_name, path in layer.named_paths().items():
            groups = path_groups(state.prior, layer_name, path_name)
            if not path.enabled or not all(group in tests for group in groups):
                continue
            key = (layer_name, path_name)
            # a path whose weights and curvature have vanished says nothing, and counts as absent
            rejected = all(tests[group].absent for group in groups)
            state.rejected[key] = state.rejected.get(key, 0) + 1 if rejected else 0
            if state.rejected[key] >= off_after:
                state.switch_off(key)
                pruned.append(".".join(key))
    return tuple(pruned)


def contested(model: nn.Module) -> dict[str, list[str]]:
    """Layers with several paths on: layer name to path names."""
    on = {
        name: [key for key, path in layer.named_paths().items() if path.enabled]
        for name, layer in relaxed_layers(model).items()
    }
    return {name: paths for name, paths in on.items() if len(paths) > 1}


def challenge(
    state: State,
    layer: str,
    paths: Sequence[str],
    evidence: Callable[[State], float],
    train_on: Callable[[State], object],
) -> tuple[State, list[Challenge]]:
    """Remove each path of a layer on trial, train on, and keep the network with most evidence.

    Args:
        state: The fit's state; it is not changed.
        layer: Name of the layer.
        paths: Its paths that are on.
        evidence: Log evidence of a state, in nats.
        train_on: Trains a state for the epochs of a trial.

    Returns:
        The state to go on with, and what was found for each path.
    """

    def trial(removed: str | None) -> tuple[float, State]:
        other = copy.deepcopy(state)
        if removed is not None:
            other.switch_off((layer, removed))
        train_on(other)
        return evidence(other), other

    # the network with all paths is trained on as well: what differs is only the path
    control, trials = trial(None), [trial(path) for path in paths]
    _, winner = max([control, *trials], key=lambda pair: pair[0])
    found = [
        Challenge(f"{layer}.{path}".lstrip("."), control[0], value, removed=other is winner)
        for path, (value, other) in zip(paths, trials, strict=True)
    ]
    return winner, found
