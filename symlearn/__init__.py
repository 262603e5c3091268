"""symlearn: which symmetry does each layer of a CNN want, learned from training data alone."""

from symlearn import baselines, datasets, models, paths
from symlearn.audit import Audit, AuditConfig, audit
from symlearn.calibration import calibration
from symlearn.collapse import (
    CollapseError,
    CollapseReport,
    collapse,
    collapse_report,
    export_onnx,
)
from symlearn.fit import FitConfig, FitResult, NonFiniteLossError, fit, load, score
from symlearn.lift import lift
from symlearn.plainfile import load_plain, save_plain
from symlearn.plan import WrapPlan, plan
from symlearn.predictive import GaussianPredictive, Posterior, Predictive
from symlearn.relaxed import RelaxedLayer
from symlearn.report import Calibration, LayerStructure, PathStructure, StructureReport
from symlearn.screen import Screen, screen
from symlearn.select import last_stages
from symlearn.subsample import Circular
from symlearn.wrap import wrap

__all__ = [
    "Audit",
    "AuditConfig",
    "Calibration",
    "Circular",
    "CollapseError",
    "CollapseReport",
    "FitConfig",
    "FitResult",
    "GaussianPredictive",
    "LayerStructure",
    "NonFiniteLossError",
    "PathStructure",
    "Posterior",
    "Predictive",
    "RelaxedLayer",
    "Screen",
    "StructureReport",
    "WrapPlan",
    "audit",
    "baselines",
    "calibration",
    "collapse",
    "collapse_report",
    "datasets",
    "export_onnx",
    "fit",
    "last_stages",
    "lift",
    "load",
    "load_plain",
    "models",
    "paths",
    "plan",
    "save_plain",
    "score",
    "screen",
    "wrap",
]
