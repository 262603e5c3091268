"""Other ways to decide how much symmetry a layer keeps, on the networks that `symlearn.wrap` makes.

Each trains with the optimiser, schedule and data of `symlearn.fit`, so that accuracies, seconds and
verdicts compare. The prior grid and the sparsity penalties need validation data; the gates and the
learned augmentation have strengths set by hand.
"""

from symlearn.baselines.augerino import RandomPose, augerino, averaged_proba
from symlearn.baselines.gates import gates
from symlearn.baselines.grid import prior_grid
from symlearn.baselines.mixture import mixture
from symlearn.baselines.outcome import BaselineResult, verdicts_by_output
from symlearn.baselines.sparsity import sparse_paths

__all__ = [
    "BaselineResult",
    "RandomPose",
    "augerino",
    "averaged_proba",
    "gates",
    "mixture",
    "prior_grid",
    "sparse_paths",
    "verdicts_by_output",
]
