"""What several seeds say of each layer: mean, spread, and the verdict that they support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symlearn.report import LayerStructure, StructureReport, files, plots, rule, schema
from symlearn.report.document import Document, layer_of
from symlearn.verdict import seedspage, seedstext

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
        return seedstext.render(self)

    def to_html(
        self, path: str | Path | None = None, *, best: StructureReport | None = None
    ) -> str:
        """Return the report as one HTML page that needs no other file and no network.

        Args:
            path: File to write as well; an existing one is replaced as a whole.
            best: Report of one seed, whose sections follow: that of the largest log evidence, say.
        """
        return files.deliver(seedspage.render(self, best), path)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw each path's share in each layer: the mean, and from the smallest to the largest.

        Args:
            path: Image file to write as well; its suffix chooses the format (png, svg, pdf).
        """
        figure = seedspage.draw(self)
        if path is not None:
            figure.savefig(path, dpi=plots.DPI)
        return figure
