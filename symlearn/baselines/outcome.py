"""What a baseline returns, and how its verdicts are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from symlearn.fit import FitResult
from symlearn.report import StructureReport
from symlearn.report.rule import OFF, ON_SHARE


@dataclass(frozen=True)
class BaselineResult:
    """Outcome of a baseline.

    Attributes:
        name: The baseline.
        result: The network it chose, with a report at its fixed precisions.
        seconds: Processor time of all training by this process, reports left out.
        fits: Networks trained.
        n_validation: Samples of validation data it needed to choose.
        chosen: What was chosen or learned, by name.
        verdicts: Layer to paths present, read from shares of the output.
    """

    name: str
    result: FitResult
    seconds: float
    fits: int = 1
    n_validation: int = 0
    chosen: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """`verdicts_by_output` of the result."""
        return verdicts_by_output(self.result.report)


def verdicts_by_output(report: StructureReport, on: float = ON_SHARE) -> dict[str, str]:
    """Name the paths that carry a share of a layer's output, the one thing all methods have.

    Args:
        report: A report, of whatever method.
        on: Least share of the summed variance of the path outputs that counts as present.

    Returns:
        Layer name to verdict, in the form of `LayerStructure.verdict`; never "undecided".

    Raises:
        ValueError: If ``on`` is not in (0, 1).
    """
    if not 0 < on < 1:
        raise ValueError(f"on is {on}; give a share in (0, 1)")
    return {
        layer.name: "+".join(
            name for name, path in layer.paths.items() if path.on and path.output_share >= on
        )
        or OFF
        for layer in report
    }
