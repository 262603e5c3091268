"""The structure report: which symmetry each layer of a fitted model wants, and how sure that is.

`StructureReport` holds the facts as plain numbers and renders them as text, Markdown, HTML, JSON
and figures; `verdict` is the rule that turns one layer's numbers into a word. `Calibration` holds
how well the model's probabilities match a test set.
"""

from symlearn.report.background import CoveredParameters, Epoch, Picture
from symlearn.report.calibration import Calibration, CalibrationBin
from symlearn.report.check import Removal, SymmetryCheck
from symlearn.report.compare import side_by_side
from symlearn.report.notes import GUESSING
from symlearn.report.rule import DOUBTFUL_SHARE, MIN_AGREEMENT, ON_SHARE, verdict
from symlearn.report.structure import (
    LayerStructure,
    PathStructure,
    StructureReport,
    relative_shares,
)

__all__ = [
    "DOUBTFUL_SHARE",
    "GUESSING",
    "MIN_AGREEMENT",
    "ON_SHARE",
    "Calibration",
    "CalibrationBin",
    "CoveredParameters",
    "Epoch",
    "LayerStructure",
    "PathStructure",
    "Picture",
    "Removal",
    "StructureReport",
    "SymmetryCheck",
    "relative_shares",
    "side_by_side",
    "verdict",
]
