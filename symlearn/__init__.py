"""symlearn: which symmetry does each layer of a CNN want, learned from training data alone."""

from symlearn import datasets, models, paths
from symlearn.collapse import collapse
from symlearn.fit import FitConfig, FitResult, NonFiniteLossError, fit, load, score
from symlearn.relaxed import RelaxedLayer
from symlearn.report import LayerStructure, PathStructure, StructureReport
from symlearn.screen import Screen, screen
from symlearn.subsample import Circular
from symlearn.wrap import wrap

__all__ = [
    "Circular",
    "FitConfig",
    "FitResult",
    "LayerStructure",
    "NonFiniteLossError",
    "PathStructure",
    "RelaxedLayer",
    "Screen",
    "StructureReport",
    "collapse",
    "datasets",
    "fit",
    "load",
    "models",
    "paths",
    "score",
    "screen",
    "wrap",
]
