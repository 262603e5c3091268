"""The facts of an audit, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symlearn.audit import plots
from symlearn.audit.attribution import Attribution, Contribution
from symlearn.audit.lie import LieDerivative
from symlearn.audit.metrics import Measured
from symlearn.audit.translation import TranslationError
from symlearn.report.document import Document
from symlearn.report.text import draw_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "–"


@dataclass(frozen=True)
class Audit(Document):
    """What was measured of a network.

    Attributes:
        lie: Both norms of the Lie derivative, one entry per transformation.
        layers: Contributions of the modules, one table per transformation.
        metrics: Other errors of the whole network by name; shares and distances.
        translations: EQ-T and EQ-T_frac of the modules, by the names "EQ-T" and "EQ-T_frac".
        n_images: Number of images.
        link: What was measured of the outputs: "identity" or "softmax".
        resampling: How images were continued between pixels.
        padding: What lay outside them.

    Example:
        >>> import symlearn, torch
        >>> conv = torch.nn.Conv2d(1, 2, 3, padding=1)
        >>> audit = symlearn.audit(conv, torch.rand(4, 1, 8, 8), "translation_x")
        >>> audit.lie[0].mean_square > 0
        True
    """

    FORMAT = "symlearn.audit/1"

    lie: tuple[LieDerivative, ...]
    layers: tuple[Attribution, ...]
    metrics: dict[str, Measured]
    translations: dict[str, tuple[TranslationError, ...]]
    n_images: int
    link: str
    resampling: str
    padding: str

    def layer(self, transform: str) -> Attribution:
        """The table of modules for a transformation.

        Raises:
            KeyError: If there is none of that name.
        """
        for table in self.layers:
            if table.transform == transform:
                return table
        raise KeyError(
            f"no table for {transform!r}; there are {[t.transform for t in self.layers]}"
        )

    def plot(self, path: str | Path | None = None, *, most: int = 30) -> Figure:
        """Draw what the modules contribute to each Lie derivative, a column per transformation.

        Args:
            path: Image file to write as well; its suffix chooses the format (png, svg, pdf).
            most: Most modules drawn; of more, those with the largest contributions.

        Raises:
            ValueError: If the audit has no layers.
        """
        figure = plots.draw(self.layers, most)
        if path is not None:
            figure.savefig(path, dpi=plots.DPI)
        return figure

    def __str__(self) -> str:
        lines = [
            f"Audit of {self.n_images} images, outputs: {self.link}, "
            f"{self.resampling} resampling, {self.padding} padding",
            "",
            *_lie_lines(self.lie),
        ]
        for table in self.layers:
            lines += ["", *_layer_lines(table)]
        if self.metrics:
            lines += ["", *_metric_lines(self.metrics)]
        for name, rows in self.translations.items():
            lines += ["", *_translation_lines(name, rows)]
        return "\n".join(line.rstrip() for line in lines)


def _drawn(titles: Sequence[str], body: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    return draw_lines(titles, body, [i >= names for i in range(len(titles))])


def _number(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.3g}"


def _lie_lines(rows: Sequence[LieDerivative]) -> list[str]:
    titles = ["Lie derivative of", "mean |Lf|", "±", "mean (Lf)²: LEE", "±", "mean f²", "per"]
    body = [
        [
            row.transform,
            _number(row.mean_abs),
            _number(row.mean_abs_error),
            _number(row.mean_square),
            _number(row.mean_square_error),
            _number(row.output_square),
            row.unit,
        ]
        for row in rows
    ]
    return _drawn(titles, body)


def _layer_lines(table: Attribution) -> list[str]:
    how = "exact" if table.exact else f"{table.n_probes} probes"
    titles = [f"{table.transform} by module", "class", "mean C²", "± probes", "± images", "share"]
    body = [
        [
            row.module or "(network)",
            row.kind if row.part == "module" else f"{row.kind}: own operations",
            *map(_number, (row.mean_square, row.probe_error, row.standard_error, row.share)),
        ]
        for row in table.measured
    ]
    body.append(["sum", how, _number(table.mean_square), _number(table.probe_error), "", "1"])
    return _drawn(titles, body, 2) + list(_left_out(table.rows))


def _left_out(rows: Sequence[Contribution]) -> Iterator[str]:
    without = [row for row in rows if row.reason is not None]
    if without:
        yield "without a contribution of their own:"
    for row in without:
        yield f"  {row.module} ({row.kind}): {row.reason}"


def _metric_lines(metrics: dict[str, Measured]) -> list[str]:
    body = [[name, _number(m.mean), _number(m.error)] for name, m in metrics.items()]
    return _drawn(["finite transformations", "mean", "±"], body)


def _translation_lines(name: str, rows: Sequence[TranslationError]) -> list[str]:
    body = [
        [
            row.module or "(network)",
            row.kind,
            *map(_number, (row.unnormalised, row.by_root, row.by_size)),
            row.reason or "",
        ]
        for row in rows
    ]
    titles = [name, "class", "|e|²", "|e|²/√N", "|e|²/N", ""]
    return draw_lines(titles, body, [False, False, True, True, True, False])
