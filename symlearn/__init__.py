"""symlearn: which symmetry does each layer of a CNN want, learned from training data alone."""

from symlearn import datasets, models, paths
from symlearn.fit import FitConfig, FitResult, NonFiniteLossError, fit, score
from symlearn.relaxed import RelaxedLayer
from symlearn.report import LayerStructure, PathStructure, StructureReport
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
    "StructureReport",
    "datasets",
    "fit",
    "models",
    "paths",
    "score",
    "wrap",
]
