"""Several starts of the free paths: where one survives depends on how large it was at the start."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from torch import nn

from curvature.checking import seeded
from symlearn.paths import Path
from symlearn.relaxed import RelaxedLayer, relaxed_layers

_SIZE, _GRADE, _FLAT = 0.3, 3.0, 0.1  # relative to a full-size initialisation

STARTS: dict[str, Callable[[int, int], float]] = {
    "grow-one": lambda layer, n: 0.0,
    "late-first": lambda layer, n: _SIZE * _GRADE ** -(n - 1 - layer),
    "early-first": lambda layer, n: _SIZE * _GRADE**-layer,
    "flat": lambda layer, n: _FLAT,
}
"""Size of the free paths in layer ``layer`` of n, relative to a full-size initialisation.

"grow-one" has none; the fit starts them one at a time where the evidence says that they pay.
"""


def free_paths(layer: RelaxedLayer) -> dict[str, Path]:
    """Paths that obey fewer symmetries than the layer's strictest path, on or off.

    A layer on maps of one pixel has none: there is no position to look at.
    """
    paths = layer.named_paths()
    if math.prod(layer.geometry.in_size) == 1:
        return {}
    strictest = max(path.strictness for path in paths.values())
    return {name: path for name, path in paths.items() if path.strictness < strictest}


def free_layers(model: nn.Module) -> dict[str, dict[str, Path]]:
    """Free paths of each layer that has some."""
    found = {name: free_paths(layer) for name, layer in relaxed_layers(model).items()}
    return {name: paths for name, paths in found.items() if paths}


def on_in(model: nn.Module) -> tuple[str, ...]:
    """Layers in which a free path is on."""
    return tuple(
        name
        for name, paths in free_layers(model).items()
        if any(path.enabled for path in paths.values())
    )


def started(model: nn.Module, start: str, seed: int) -> nn.Module:
    """A copy of a relaxed network whose free paths have the sizes of a start.

    Args:
        model: The network; its strict paths are kept as they are.
        start: One of `STARTS`.
        seed: Seed of the random weights.
    """
    model = copy.deepcopy(model)
    generator = seeded(seed)
    layers = list(free_layers(model).values())
    for index, paths in enumerate(layers):
        size = STARTS[start](index, len(layers))
        for path in paths.values():
            path.switch_off()
            if size:
                path.switch_on()
                path.reset_parameters(generator)
                path.scale(size)
    return model
