"""The structure report: which symmetry each layer of a fitted model wants, and how sure that is.

`StructureReport` holds the facts as plain numbers and renders them as text, Markdown, HTML, JSON
and a figure; `verdict` is the rule that turns one layer's numbers into a word.
"""

from symlearn.report.compare import side_by_side
from symlearn.report.rule import DOUBTFUL_SHARE, MIN_AGREEMENT, ON_SHARE, verdict
from symlearn.report.structure import (
    LayerStructure,
    PathStructure,
    StructureReport,
    relative_shares,
)

__all__ = [
    "DOUBTFUL_SHARE",
    "MIN_AGREEMENT",
    "ON_SHARE",
    "LayerStructure",
    "PathStructure",
    "StructureReport",
    "relative_shares",
    "side_by_side",
    "verdict",
]
