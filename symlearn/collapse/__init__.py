"""Learned structure to a plain network: layers keep the paths that are on, and nothing else."""

from symlearn.collapse.collapsing import Steps, collapse, run
from symlearn.collapse.onnx import export_onnx
from symlearn.collapse.report import CollapseReport, Cost, LayerCollapse, collapse_report
from symlearn.collapse.verify import CollapseError

__all__ = [
    "CollapseError",
    "CollapseReport",
    "Cost",
    "LayerCollapse",
    "Steps",
    "collapse",
    "collapse_report",
    "export_onnx",
    "run",
]
