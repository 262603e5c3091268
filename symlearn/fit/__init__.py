"""Learning weights and prior precisions together: the outer loop in small steps."""

from symlearn.fit.config import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.fit.history import EpochRecord
from symlearn.fit.loop import fit
from symlearn.fit.optimisers import ProximalAdam
from symlearn.fit.planner import MemoryBudgetError, MemoryPlan, memory_plan
from symlearn.fit.restore import load
from symlearn.fit.result import FitResult
from symlearn.fit.weights import NonFiniteLossError, WeightAverage
from symlearn.scoring import score

__all__ = [
    "EpochRecord",
    "FitConfig",
    "FitResult",
    "Fitting",
    "MemoryBudgetError",
    "MemoryPlan",
    "NonFiniteLossError",
    "ProximalAdam",
    "WeightAverage",
    "fit",
    "load",
    "memory_plan",
    "score",
]
