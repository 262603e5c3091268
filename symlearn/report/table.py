"""The report as rows of cells: columns, rows, summary and glossary, once for every renderer.

Text, Markdown and HTML differ in how they draw a cell, never in which cells there are: all three
take `COLUMNS`, `rows` and `summary` from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from symlearn.report import rule

if TYPE_CHECKING:
    from symlearn.report.calibration import Calibration
    from symlearn.report.structure import PathStructure, StructureReport

NONE = "–"
"""Shown where a row has no such fact."""


@dataclass(frozen=True)
class Row:
    """One path of one layer, or one group outside the relaxed layers.

    Attributes:
        layer: Name of the layer, or of the group.
        path: Name of the path; None for a group outside the relaxed layers.
        facts: The path's measurements.
        verdict: The layer's verdict; None for a group.
        agreement: The layer's agreement; nan for a group.
        first: Whether the row is its layer's first, which is where the layer's own facts are shown.
    """

    layer: str
    path: str | None
    facts: PathStructure
    verdict: str | None
    agreement: float
    first: bool


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: Heading; a space is where a narrow heading may break.
        meaning: One sentence for the glossary.
        cell: The text of the column in a row.
        kind: "name" is a name from the user's model, "word" one of ours, "verdict" the verdict;
            a "share" is a number in [0, 1] that a renderer may draw as a bar.
        of_layer: Whether the column states a fact of the layer, shown once per layer.
        share: The number behind a cell of kind "share", nan where there is none.
    """

    title: str
    meaning: str
    cell: Callable[[Row], str]
    kind: Literal["name", "word", "verdict", "number", "share"] = "number"
    of_layer: bool = False
    share: Callable[[Row], float] | None = None

    @property
    def is_number(self) -> bool:
        """Whether the column's cells are aligned to the right."""
        return self.kind in ("number", "share")


# --- Numbers and names as text ---


def number(value: float) -> str:
    """Write a number with four significant digits, or as a power of ten when it is far from 1.

    Args:
        value: Any float, also nan and infinities.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0.0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}".rstrip(".")


def count(value: float) -> str:
    """Write a number of parameters, with thousands separated.

    Args:
        value: A whole or an effective number of parameters.
    """
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 1e3):
        return f"{value:,.0f}"
    return number(value)


def percent(value: float) -> str:
    """Write a share of 1 in percent; a share too small to show is "<0.1%", not "0.0%".

    Args:
        value: A share.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0.0:
        return "0%"
    return "<0.1%" if 0.0 < value < 5e-4 else f"{value:.1%}"


def signed(value: float) -> str:
    """Write a gain with its sign.

    Args:
        value: A number of nats.
    """
    return f"+{number(value)}" if value > 0.0 else number(value)


def printable(name: str) -> str:
    """Escape what would break a line or steer a terminal; leave any other name alone.

    Args:
        name: A name from the user's model.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)


def listed(names: Sequence[str], most: int) -> str:
    """Write names from the user's model as a list; of a long one the first.

    Args:
        names: The names.
        most: Most names written.
    """
    shown = ", ".join(map(printable, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


# --- Columns, rows, summary ---


def _share_column(title: str, meaning: str, fact: Callable[[PathStructure], float]) -> Column:
    # A group outside the relaxed layers shares its layer with no other path.
    def share(row: Row) -> float:
        return math.nan if row.path is None else fact(row.facts)

    def shown(row: Row) -> str:
        return NONE if row.path is None else percent(fact(row.facts))

    return Column(title, meaning, shown, "share", share=share)


COLUMNS: tuple[Column, ...] = (
    Column(
        "layer",
        f"Name of the relaxed layer, or of a group outside them, whose path is {NONE}.",
        lambda row: printable(row.layer),
        "name",
        of_layer=True,
    ),
    Column("path", "Name of the path.", lambda row: printable(row.path or NONE), "name"),
    Column(
        "state",
        "Whether the fit left the path on.",
        lambda row: "on" if row.facts.on else "off",
        "word",
    ),
    Column(
        "prior precision",
        "δ = 1/σ², learned from the evidence. High means off.",
        lambda row: number(row.facts.prior_precision),
    ),
    Column(
        "squared norm",
        "‖θ‖² of the path's weights. Near zero means off.",
        lambda row: number(row.facts.weight_norm_sq),
    ),
    Column(
        "effective γ",
        "Effective number of parameters, γ = Σ λ/(λ+δ). Near zero means off.",
        lambda row: count(float(row.facts.effective_params)),
    ),
    Column("params P", "Number of parameters.", lambda row: count(row.facts.n_params)),
    Column(
        "γ/P",
        "Effective parameters per parameter, the normalised γ.",
        lambda row: number(row.facts.normalised_effective_params),
    ),
    _share_column(
        "relative γ/P",
        "γ/P over the sum of γ/P of the layer's paths. The verdict reads this column.",
        lambda path: path.relative_effective_params,
    ),
    _share_column(
        "output share",
        "Share of the variance of the layer's output that the path carries.",
        lambda path: path.output_share,
    ),
    Column(
        "gain (nats)",
        "Local, quadratic evidence of the path at its learned precision against its absence. "
        "It ranks paths; it is not a Bayes factor.",
        lambda row: signed(row.facts.evidence_gain),
    ),
    Column(
        "verdict",
        "Paths that are present, by the rule below.",
        lambda row: printable(row.verdict or NONE),
        "verdict",
        of_layer=True,
    ),
    Column(
        "agreement",
        f"Share of the last evidence steps with this verdict; {NONE} when not recorded.",
        lambda row: NONE if math.isnan(row.agreement) else f"{row.agreement:.0%}",
        "word",
        of_layer=True,
    ),
)


def cell(column: Column, row: Row) -> str:
    """Return the text of a column in a row, empty where the layer's first row has said it.

    Args:
        column: One of `COLUMNS`.
        row: One of `rows(report)`.
    """
    return column.cell(row) if row.first or not column.of_layer else ""


def rows(report: StructureReport) -> list[Row]:
    """List the paths of every layer, then the groups outside the relaxed layers.

    Args:
        report: The report to show.
    """
    paths = [
        Row(layer.name, name, facts, layer.verdict, layer.agreement, first=index == 0)
        for layer in report.layers
        for index, (name, facts) in enumerate(layer.paths.items())
    ]
    heads = [
        Row(name, None, facts, None, math.nan, first=True) for name, facts in report.heads.items()
    ]
    return paths + heads


def summary(report: StructureReport) -> list[tuple[str, str]]:
    """List the facts of the whole model as pairs of a label and a text.

    Args:
        report: The report to show.
    """
    evidence = f"{report.log_evidence:,.1f} nats"
    if report.n_data and math.isfinite(report.log_evidence):
        evidence += f" ({report.log_evidence / report.n_data:.4f} per data point)"
    effective = count(float(report.effective_params))
    if report.n_params and math.isfinite(report.effective_params):
        effective += f" ({percent(report.effective_params / report.n_params)})"
    facts = [
        ("objective", printable(report.objective)),
        ("log evidence", evidence),
        ("data points", count(report.n_data)),
        ("parameters", count(report.n_params)),
        ("effective parameters", effective),
    ]
    facts += [
        (_label(name), number(value) if isinstance(value, float) else printable(str(value)))
        for name, value in report.meta.items()
    ]
    return facts + [calibration_fact(found) for found in report.calibration]


def _label(key: str) -> str:
    """A fact's key as words; one with words may hold a layer's name, which stays as it is."""
    return printable(key if " " in key else key.replace("_", " "))


def calibration_fact(found: Calibration) -> tuple[str, str]:
    """One predictor's calibration as a label and a text.

    Args:
        found: The calibration.
    """
    figures = [
        f"accuracy {percent(found.accuracy)}",
        f"NLL {number(found.nll)}",
        f"Brier {number(found.brier)}",
        f"ECE {percent(found.ece)} ({len(found.bins)} bins of equal width)",
        f"{percent(found.ece_equal_mass)} (of equal mass)",
        f"n = {count(found.n_data)}",
    ]
    return f"calibration, {printable(found.predictor)}", ", ".join(figures)


def glossary() -> list[tuple[str, str]]:
    """List what each column means, then the verdict rule, as pairs of a title and a text."""
    return [(column.title, column.meaning) for column in COLUMNS] + [
        ("verdict rule", rule.describe())
    ]
