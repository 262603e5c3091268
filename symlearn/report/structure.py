"""What a fit found: one record per path, per layer and per model, of plain numbers and strings.

A `PathStructure` holds the measurements of one path, a `LayerStructure` the paths of one relaxed
layer and its verdict, a `StructureReport` the layers of one model. The records know no torch; the
renderers beside this module turn a report into text, Markdown, HTML, JSON and figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from symlearn.report import files, html, kinds, markdown, plots, reliability, schema, text
from symlearn.report.background import CoveredParameters, Epoch, Picture
from symlearn.report.calibration import Calibration
from symlearn.report.check import SymmetryCheck
from symlearn.report.document import Document, layer_of
from symlearn.report.rule import supported, verdict
from symlearn.report.symmetry import LayerGenerators

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self

__all__ = ["LayerStructure", "PathStructure", "StructureReport", "relative_shares", "verdict"]


@dataclass(frozen=True)
class PathStructure:
    """The measurements of one path (van der Ouderaa et al. 2023, App. D and Table 4).

    Attributes:
        prior_precision: Learned prior precision, delta = 1 / sigma^2. High means off; may be inf.
        weight_norm_sq: Squared Euclidean norm of the path's weights. Near zero means off.
        n_params: Number of the path's parameters, P.
        effective_params: gamma = sum_i lambda_i / (lambda_i + delta), the number of parameters that
            the data determine against the prior.
        normalised_effective_params: gamma / P.
        relative_effective_params: gamma / P over the sum of gamma / P of the layer's paths, 0 when
            all are 0 (see `relative_shares`).
        output_share: Share of the variance of the layer's output that the path carries, in [0, 1].
        evidence_gain: Nats by which the local, quadratic evidence prefers the path at its learned
            precision to its absence. It ranks paths and is not a Bayes factor.
        on: Whether the fit left the path switched on.
    """

    prior_precision: float
    weight_norm_sq: float
    n_params: int
    effective_params: float
    normalised_effective_params: float
    relative_effective_params: float
    output_share: float
    evidence_gain: float
    on: bool

    def __post_init__(self) -> None:
        """Check that every field is a plain number or bool."""
        schema.check(self)


@dataclass(frozen=True)
class LayerStructure:
    """The paths of one relaxed layer and what they add up to.

    Attributes:
        name: The layer's name in the model.
        paths: Path name -> measurements, in the layer's order.
        verdict: The paths that are present, joined by "+", or "off" or "undecided" (see `verdict`).
        agreement: Share of the last evidence steps with the same verdict by shares, in [0, 1]; nan
            when it was not recorded.
        checks: What independent measurements say of it; empty when it was not checked.
    """

    name: str
    paths: dict[str, PathStructure]
    verdict: str
    agreement: float
    checks: tuple[SymmetryCheck, ...] = ()

    @property
    def by_shares(self) -> str:
        """The verdict by shares alone: gains at one evidence step are too noisy to judge by."""
        return verdict(self.paths, gain=-math.inf)

    @property
    def supported(self) -> str:
        """The verdict, or "undecided" where a check disagrees with it."""
        return supported(self.verdict, [check.outcome for check in self.checks])

    def __post_init__(self) -> None:
        """Check the field types, that there is a path, and the range of `agreement`."""
        schema.check(self)
        if not self.paths:
            raise ValueError(f"layer {self.name!r}: paths needs at least one path, got none")
        if not (math.isnan(self.agreement) or 0.0 <= self.agreement <= 1.0):
            raise ValueError(
                f"layer {self.name!r}: agreement is a share in [0, 1], or nan when not recorded; "
                f"got {self.agreement}"
            )

    @classmethod
    def of(
        cls, name: str, paths: Mapping[str, PathStructure], agreement: float = math.nan
    ) -> LayerStructure:
        """Judge a layer: set its paths' relative shares from their gamma / P, then the verdict.

        Args:
            name: The layer's name in the model.
            paths: The measured paths. Their `relative_effective_params` is ignored and set anew.
            agreement: Share of the last evidence steps with the same verdict by shares, nan when
                not recorded.
        """
        normalised = {key: path.normalised_effective_params for key, path in paths.items()}
        shares = relative_shares(normalised)
        judged = {
            key: replace(path, relative_effective_params=shares[key]) for key, path in paths.items()
        }
        return cls(name, judged, verdict(judged, agreement=agreement), agreement)


@dataclass(frozen=True)
class StructureReport(Document):
    """Which path survived in which layer of one fitted model, and how sure that is.

    Printing it shows the table. `report["features.0"]` is one layer; iterating gives them in order.

    Attributes:
        layers: The relaxed layers, in the order of the model.
        heads: Parameter groups outside the relaxed layers, such as the last linear layer.
        log_evidence: Laplace estimate of the log marginal likelihood, in nats; nan when not
            computed.
        n_data: Number of training points that the evidence saw.
        n_params: Number of parameters of the model.
        effective_params: gamma summed over all groups.
        objective: What was optimised, "evidence" or "map".
        meta: Free facts about the run, such as seed, epochs and version.
        calibration: Calibration on a test set, one for each predictor; empty when none was given.
        history: The epochs of the fit; empty when they were not kept, like all that follows.
        coverage: How the curvature covers the parameters, and which it leaves out.
        pictures: Pictures of the trained weights.
        config: Options of the fit.
        environment: What it ran on: versions, platform, device.
        symmetry: Generators of the L-conv paths that are on, as read off the fit.
    """

    FORMAT = schema.FORMAT

    layers: tuple[LayerStructure, ...]
    heads: dict[str, PathStructure]
    log_evidence: float
    n_data: int
    n_params: int
    effective_params: float
    objective: str
    meta: dict[str, str | float | int | None]
    calibration: tuple[Calibration, ...] = ()
    history: tuple[Epoch, ...] = ()
    coverage: tuple[CoveredParameters, ...] = ()
    pictures: tuple[Picture, ...] = ()
    config: dict[str, str | float | int | None] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    symmetry: tuple[LayerGenerators, ...] = ()

    def __post_init__(self) -> None:
        """Check the field types and that no two layers, and no two predictors, share a name."""
        schema.check(self)
        _check_differ("layers", [layer.name for layer in self.layers])
        _check_differ("calibration", [found.predictor for found in self.calibration])

    def __getitem__(self, name: str) -> LayerStructure:
        """Return the layer of that name.

        Raises:
            KeyError: If there is none; the message lists the layers there are.
        """
        return layer_of(self.layers, name)

    def __iter__(self) -> Iterator[LayerStructure]:
        """Iterate over the layers in the order of the model."""
        return iter(self.layers)

    def __contains__(self, name: object) -> bool:
        """Tell whether a layer has that name."""
        return any(layer.name == name for layer in self.layers)

    def __str__(self) -> str:
        """Return the text table (see `to_text`)."""
        return text.render(self)

    def with_checks(self, found: Mapping[str, tuple[SymmetryCheck, ...]]) -> Self:
        """The report with its layers' verdicts checked, which all renderers show.

        Args:
            found: Layer name -> its checks; a layer that is not named keeps those it has.
        """
        layers = tuple(
            replace(layer, checks=found.get(layer.name, layer.checks)) for layer in self.layers
        )
        return replace(self, layers=layers)

    def with_symmetry(self, found: tuple[LayerGenerators, ...]) -> Self:
        """The report with a section on generators, which all renderers show.

        Args:
            found: The generators of each L-conv path (`symlearn.extract`).
        """
        return replace(self, symmetry=found)

    def with_calibration(self, *found: Calibration) -> Self:
        """The report with a section on calibration, which all renderers show.

        Args:
            found: Calibrations (`FitResult.calibration`); one whose predictor the report has
                already replaces it.
        """
        new = {one.predictor for one in found}
        kept = tuple(one for one in self.calibration if one.predictor not in new)
        return replace(self, calibration=kept + found)

    def to_text(self, path: str | Path | None = None, *, width: int = text.WIDTH) -> str:
        """Return the report as a plain text table without colour.

        Args:
            path: File to write as well; an existing one is replaced as a whole.
            width: Columns to aim for. Numbers are never cut: a table that needs more is wider.
        """
        return files.deliver(text.render(self, width), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the report as Markdown with a table (GitHub flavour).

        Args:
            path: File to write as well; an existing one is replaced as a whole.
        """
        return files.deliver(markdown.render(self), path)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the report as one HTML page that needs no other file and no network.

        The page suits a phone, a dark screen and paper. What the report does not hold (a history,
        checks, pictures of weights) the page leaves out.

        Args:
            path: File to write as well; an existing one is replaced as a whole.
        """
        return files.deliver(html.render(self), path)

    def plot(self, kind: str | Path = "structure", path: str | Path | None = None) -> Figure:
        """Draw one of the figures of the page.

        Args:
            kind: "shares" of effective parameters with the verdicts, prior "precisions", both
                ("structure"), the log "evidence" and its parts, the training "loss", the "check",
                "pictures" of weights, or "calibration". A file name stands for "structure" drawn
                to that file.
            path: Image file to write as well; its suffix chooses the format (png, svg, pdf).

        Raises:
            ValueError: If there is no such kind, or the report does not hold what it shows.
        """
        named = isinstance(kind, str) and kind in kinds.KINDS
        if path is None and not named and isinstance(kind, (str, Path)) and Path(kind).suffix:
            kind, path = "structure", kind
        figure = kinds.kind_of(kind, self).draw(self)
        if path is not None:
            figure.savefig(path, dpi=plots.DPI)
        return figure

    def plot_calibration(self, path: str | Path | None = None) -> Figure:
        """Draw the reliability diagrams of the section on calibration beside each other.

        Args:
            path: Image file to write as well; its suffix chooses the format (png, svg, pdf).

        Raises:
            ValueError: If the report has no such section (see `with_calibration`).
        """
        figure = reliability.draw(self.calibration)
        if path is not None:
            figure.savefig(path, dpi=plots.DPI)
        return figure


def _check_differ(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: names must differ, these occur twice: {', '.join(twice)}")


def relative_shares(normalised: Mapping[str, float]) -> dict[str, float]:
    """Divide each path's gamma / P by their sum over the layer's paths (App. D.2).

    The shares sum to 1, or are all 0 when every gamma / P is 0. A nan makes every share nan.

    Args:
        normalised: Path name -> gamma / P.

    Example:
        >>> relative_shares({"conv": 0.375, "ffc": 0.125})
        {'conv': 0.75, 'ffc': 0.25}
    """
    total = math.fsum(normalised.values())
    if total == 0.0:
        return dict.fromkeys(normalised, 0.0)
    return {name: value / total for name, value in normalised.items()}
