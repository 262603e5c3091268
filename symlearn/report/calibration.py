"""How well stated probabilities match what happens: the figures and the bins of one predictor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symlearn.report import plots, reliability, schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CalibrationBin:
    """The samples whose confidence, the largest probability, lies in one interval.

    Attributes:
        lower: Lower end of the interval, not part of it unless it is the first.
        upper: Upper end, part of it.
        n_data: Number of samples; may be 0.
        confidence: Their mean confidence; nan when there is none.
        accuracy: Share of them whose most probable class is right; nan when there is none.
    """

    lower: float
    upper: float
    n_data: int
    confidence: float
    accuracy: float

    def __post_init__(self) -> None:
        """Check that every field is a plain number."""
        schema.check(self)


@dataclass(frozen=True)
class Calibration:
    """Calibration of one predictor of classes on one test set (`symlearn.calibration`).

    Attributes:
        predictor: What made the probabilities, such as "map" or "probit".
        n_data: Number of test samples.
        accuracy: Share of right predictions.
        nll: Mean negative log probability of the labels, in nats; inf when one had none.
        brier: Mean of ``sum_k (p_k - [y = k])^2``, in [0, 2] (Brier 1950).
        ece: Expected calibration error over `bins`, ``sum_b n_b / n |accuracy_b - confidence_b|``
            (Guo et al. 2017), in [0, 1].
        ece_equal_mass: The same over as many bins of about equal numbers of samples.
        bins: Bins of equal width, from confidence 0 to 1.
    """

    predictor: str
    n_data: int
    accuracy: float
    nll: float
    brier: float
    ece: float
    ece_equal_mass: float
    bins: tuple[CalibrationBin, ...]

    def __post_init__(self) -> None:
        """Check the field types, that bins hold all samples, and that no figure is nan."""
        schema.check(self)
        held = sum(part.n_data for part in self.bins)
        if held != self.n_data or self.n_data < 1:
            raise ValueError(f"the bins hold {held} samples of {self.n_data}; give at least one")
        figures = (self.accuracy, self.nll, self.brier, self.ece, self.ece_equal_mass)
        if any(map(math.isnan, figures)):
            raise ValueError(f"a calibration's figures must not be nan, got {figures}")

    def __str__(self) -> str:
        figures = (
            *(f"accuracy {self.accuracy:.4f}", f"NLL {self.nll:.4f}", f"Brier {self.brier:.4f}"),
            *(f"ECE {self.ece:.4f}", f"ECE of equal mass {self.ece_equal_mass:.4f}"),
        )
        bins = f"{len(self.bins)} bins, {self.n_data} samples"
        return f"{self.predictor}: {', '.join(figures)} ({bins})"

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the reliability diagram.

        Args:
            path: Image file to write as well; its suffix chooses the format (png, svg, pdf).
        """
        figure = reliability.draw([self])
        if path is not None:
            figure.savefig(path, dpi=plots.DPI)
        return figure
