"""Paths that the evidence rejects where they are are switched off."""

from __future__ import annotations

import priors
from symlearn.fit.facts import path_groups
from symlearn.fit.state import State
from symlearn.relaxed import relaxed_layers


def prune_rejected(
    state: State, tests: dict[str, priors.Relevance], off_after: int
) -> tuple[str, ...]:
    """Switch off paths whose absence the evidence has preferred ``off_after`` times in a row.

    The last path of a layer stays: nothing could be learned through a layer that maps to zero.

    Args:
        state: The fit's state.
        tests: Relevance test of every group that was measured.
        off_after: Number of times; 0 for never.

    Returns:
        The paths switched off, as "layer.path".
    """
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
            last = sum(other.enabled for other in layer.named_paths().values()) == 1
            if 0 < off_after <= state.rejected[key] and not last:
                state.switch_off(key)
                pruned.append(".".join(key))
    return tuple(pruned)
