"""Paths that the evidence rejects where they are are switched off."""

from __future__ import annotations

import priors
from symlearn.fit.facts import part_groups, path_groups
from symlearn.fit.state import PathKey, State
from symlearn.paths import Path
from symlearn.relaxed import relaxed_layers


def prune_rejected(
    state: State, tests: dict[str, priors.Relevance], off_after: int
) -> tuple[str, ...]:
    """Switch off paths whose absence the evidence has preferred ``off_after`` times in a row.

    The last path of a layer stays: nothing could be learned through a layer that maps to zero. So
    do parts of a path vanish (the generators of an L-conv), all but the last.

    Args:
        state: The fit's state.
        tests: Relevance test of every group that was measured.
        off_after: Number of times; 0 for never.

    Returns:
        The paths switched off, as "layer.path", and the parts, as "layer.path.part".
    """
    pruned = []
    for layer_name, layer in relaxed_layers(state.model).items():
        for path_name, path in layer.named_paths().items():
            key = (layer_name, path_name)
            groups = path_groups(state.prior, *key)
            if path.parts():  # those that have vanished are not measured
                groups = [group for group in groups if group in tests]
            if not path.enabled or not groups or not all(group in tests for group in groups):
                continue
            last = sum(other.enabled for other in layer.named_paths().values()) == 1
            if _rejected(state, key, groups, tests, off_after) and not last:
                state.switch_off(key)
                pruned.append(".".join(key))
            else:
                pruned += _prune_parts(state, key, path, tests, off_after)
    return tuple(pruned)


def _prune_parts(
    state: State, key: PathKey, path: Path, tests: dict[str, priors.Relevance], off_after: int
) -> list[str]:
    """Drop parts of a path that the evidence rejects, all but the last."""
    pruned: list[str] = []
    left = path.parts_left()
    for part in left:
        part_key = (key[0], f"{key[1]}.{part}")
        groups = part_groups(state.prior, key, path, part)
        if not all(group in tests for group in groups):
            continue
        if _rejected(state, part_key, groups, tests, off_after) and len(left) - len(pruned) > 1:
            state.drop(key, part)
            pruned.append(".".join(part_key))
    return pruned


def _rejected(
    state: State,
    key: PathKey,
    groups: list[str],
    tests: dict[str, priors.Relevance],
    off_after: int,
) -> bool:
    """Count another step, and tell whether absence was preferred often enough."""
    # weights that have vanished with their curvature say nothing, and count as absent
    absent = all(tests[group].absent for group in groups)
    state.rejected[key] = state.rejected.get(key, 0) + 1 if absent else 0
    return 0 < off_after <= state.rejected[key]
