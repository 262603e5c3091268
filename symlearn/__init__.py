"""symlearn: which symmetry does each layer of a CNN want, learned from training data alone."""

from symlearn import baselines, callbacks, datasets, models, paths
from symlearn.audit import Audit, AuditConfig, audit
from symlearn.calibration import calibration
from symlearn.certify import Certificate, CertificateError, CertifyConfig, certify
from symlearn.collapse import (
    CollapseError,
    CollapseReport,
    collapse,
    collapse_report,
    export_onnx,
)
from symlearn.extract import extract
from symlearn.fit import (
    FitConfig,
    FitResult,
    MemoryBudgetError,
    MemoryPlan,
    NonFiniteLossError,
    fit,
    load,
    memory_plan,
    score,
)
from symlearn.lift import lift
from symlearn.plainfile import load_plain, save_plain
from symlearn.plan import WrapPlan, plan
from symlearn.powerblock import PowerBlock
from symlearn.predictive import GaussianPredictive, Posterior, Predictive
from symlearn.propose import Proposal, Proposals, propose
from symlearn.relaxed import RelaxedLayer
from symlearn.relaxedmlp import relaxed_mlp, supported_groups
from symlearn.report import Calibration, LayerStructure, PathStructure, StructureReport
from symlearn.screen import Screen, screen
from symlearn.select import last_stages
from symlearn.subsample import Circular
from symlearn.verdict import LocationResult, SeedsResult, fit_seeds, locate
from symlearn.wrap import wrap

__all__ = [
    "Audit",
    "AuditConfig",
    "Calibration",
    "Certificate",
    "CertificateError",
    "CertifyConfig",
    "Circular",
    "CollapseError",
    "CollapseReport",
    "FitConfig",
    "FitResult",
    "GaussianPredictive",
    "LayerStructure",
    "LocationResult",
    "MemoryBudgetError",
    "MemoryPlan",
    "NonFiniteLossError",
    "PathStructure",
    "Posterior",
    "PowerBlock",
    "Predictive",
    "Proposal",
    "Proposals",
    "RelaxedLayer",
    "Screen",
    "SeedsResult",
    "StructureReport",
    "WrapPlan",
    "audit",
    "baselines",
    "calibration",
    "callbacks",
    "certify",
    "collapse",
    "collapse_report",
    "datasets",
    "export_onnx",
    "extract",
    "fit",
    "fit_seeds",
    "last_stages",
    "lift",
    "load",
    "load_plain",
    "locate",
    "memory_plan",
    "models",
    "paths",
    "plan",
    "propose",
    "relaxed_mlp",
    "save_plain",
    "score",
    "screen",
    "supported_groups",
    "wrap",
]
