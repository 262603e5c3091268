"""What several seeds say of each layer: mean, spread, and the verdict that they support."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from symlearn.report import LayerStructure, StructureReport, rule, schema, table
from symlearn.report.document import Document, layer_of
from symlearn.report.text import WIDTH, draw_lines

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Spread:
    """One number over the seeds.

    Attributes:
        mean: Mean.
        deviation: Standard deviation with n - 1; nan for one seed.
        low: Smallest value.
        high: Largest value.
    """

    mean: float
    deviation: float
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check that every field is a plain number."""
        schema.check(self)

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of some numbers; all nan where one is.

        Raises:
            ValueError: If there are none.
        """
        if not values:
            raise ValueError("a spread needs at least one number, got none")
        if any(map(math.isnan, values)):
            return cls(math.nan, math.nan, math.nan, math.nan)
        mean = math.fsum(values) / len(values)
        deviation = math.nan
        if len(values) > 1:
            deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        return cls(mean, deviation, min(values), max(values))


@dataclass(frozen=True)
class SeedsLayer:
    """One layer over the seeds.

    Attributes:
        name: The layer's name in the model.
        shares: Path name -> relative effective parameters; 0 where a path is off.
        on: Path name -> number of seeds that left the path on.
        verdicts: Verdict of each seed, in the order of the seeds; "undecided" where a check
            disagrees with it.
        disagreeing: Number of seeds whose check disagrees.
        verdict: What the seeds support, or "undecided" (`symlearn.report.rule.across_seeds`).
        probability: That most seeds would give the most frequent of the verdicts.
    """

    name: str
    shares: dict[str, Spread]
    on: dict[str, int]
    verdicts: tuple[str, ...]
    disagreeing: int
    verdict: str
    probability: float

    def __post_init__(self) -> None:
        """Check the field types."""
        schema.check(self)

    @classmethod
    def of(cls, layers: Sequence[LayerStructure]) -> Self:
        """Judge one layer from its facts in each seed."""
        names = list(layers[0].paths)
        shares = {
            name: [layer.paths[name].relative_effective_params for layer in layers]
            for name in names
        }
        verdicts = [layer.supported for layer in layers]
        verdict, probability = rule.across_seeds(verdicts, shares)
        return cls(
            layers[0].name,
            {name: Spread.of(values) for name, values in shares.items()},
            {name: sum(layer.paths[name].on for layer in layers) for name in names},
            tuple(verdicts),
            sum(layer.supported != layer.verdict for layer in layers),
            verdict,
            probability,
        )


@dataclass(frozen=True)
class SeedsReport(Document):
    """What several seeds say of one network. Printing it shows the table.

    Attributes:
        seeds: The seeds.
        layers: The relaxed layers, in the order of the model.
        log_evidence: Log evidence in nats over the seeds.
        n_data: Number of training samples.
        objective: What was optimised, "evidence" or "map".
    """

    FORMAT = "symlearn.seeds/1"

    seeds: tuple[int, ...]
    layers: tuple[SeedsLayer, ...]
    log_evidence: Spread
    n_data: int
    objective: str

    def __post_init__(self) -> None:
        """Check the field types."""
        schema.check(self)

    @classmethod
    def of(cls, reports: Mapping[int, StructureReport]) -> Self:
        """Put the reports of several seeds together.

        Args:
            reports: Seed -> report.

        Raises:
            ValueError: If there is none, or they differ in layers, paths, data or objective.
        """
        found = list(reports.values())
        if not found:
            raise ValueError("give the report of at least one seed, got none")
        kinds = {
            (
                tuple((layer.name, tuple(layer.paths)) for layer in report),
                report.n_data,
                report.objective,
            )
            for report in found
        }
        if len(kinds) > 1:
            raise ValueError(
                "the seeds' reports differ in layers, paths, number of data or objective; compare "
                "fits of one architecture to the same data"
            )
        return cls(
            tuple(reports),
            tuple(SeedsLayer.of(layers) for layers in zip(*found, strict=True)),
            Spread.of([report.log_evidence for report in found]),
            found[0].n_data,
            found[0].objective,
        )

    def __getitem__(self, name: str) -> SeedsLayer:
        """Return the layer of that name.

        Raises:
            KeyError: If there is none; the message lists the layers there are.
        """
        return layer_of(self.layers, name)

    def __str__(self) -> str:
        """Return the text table."""
        return _text(self)


# --- Text ---

_TITLES = ("layer", "path", "on in", "relative γ/P", "smallest", "largest", "verdict", "seeds")
_RIGHT = (False, False, True, True, True, True, False, False)


def _text(report: SeedsReport) -> str:
    n = len(report.seeds)
    rows = [row for layer in report.layers for row in _rows(layer, n)]
    lines = draw_lines(_TITLES, rows, _RIGHT)
    ruler = "─" * max(len(line.rstrip()) for line in lines)
    n_head = len(lines) - len(rows)
    evidence = f"log evidence: {_spread(report.log_evidence, table.number)} nats"
    head = [f"Seeds {', '.join(map(str, report.seeds))}", "═" * len(ruler)]
    facts = f"objective: {report.objective}   {evidence}   data points: {report.n_data:,}"
    body = [*lines[:n_head], ruler, *lines[n_head:], ruler]
    drawn = [*head, facts, "", *body, "", *textwrap.wrap(rule.describe_seeds(), WIDTH)]
    return "\n".join(line.rstrip() for line in drawn)


def _rows(layer: SeedsLayer, n: int) -> list[list[str]]:
    counts = {verdict: layer.verdicts.count(verdict) for verdict in dict.fromkeys(layer.verdicts)}
    seen = ", ".join(f"{count} of {n} {verdict}" for verdict, count in counts.items())
    if layer.disagreeing:
        seen += f" ({layer.disagreeing} by the check)"
    rows = []
    for index, (name, share) in enumerate(layer.shares.items()):
        first = index == 0
        rows.append(
            [
                *(table.printable(layer.name) if first else "", table.printable(name)),
                *(f"{layer.on[name]} of {n}", _spread(share, table.percent)),
                *(table.percent(share.low), table.percent(share.high)),
                *((layer.verdict, seen) if first else ("", "")),
            ]
        )
    return rows


def _spread(spread: Spread, shown: Callable[[float], str]) -> str:
    if math.isnan(spread.deviation):
        return shown(spread.mean)
    return f"{shown(spread.mean)} ± {shown(spread.deviation)}"
