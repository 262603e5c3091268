"""The symmetry extracted by a fit: the generators of its L-conv paths, as facts and as tables.

The facts are plain numbers, as all of a report; the tables are listed once for every renderer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from symlearn.report import schema, table

TITLE = "Symmetry extracted"


@dataclass(frozen=True)
class GeneratorRow:
    """One generator of one L-conv path.

    Attributes:
        name: Its name: "I", that of a given one, or "L1", "L2", ... for learned ones.
        learned: Whether it was learned.
        on: Whether it contributes.
        precision: Prior precision of its weights; inf where it has vanished.
        effective_params: gamma of its weights; nan where it is not known.
        n_params: Number of its weights.
        strength: ``||L|| ||W||`` relative to the sum over the path; nan where matrices over sites
            were not built.
        field_share: Share of ``||L||^2`` that a vector field explains; nan where there is no field.
        rotation_share: Share of the antisymmetric part; nan as the strength.
    """

    name: str
    learned: bool
    on: bool
    precision: float
    effective_params: float
    n_params: int
    strength: float
    field_share: float
    rotation_share: float

    def __post_init__(self) -> None:
        """Check that every field is a plain value."""
        schema.check(self)


@dataclass(frozen=True)
class KnownRow:
    """How near the learned generators come to a known one.

    Attributes:
        name: Name of the known generator.
        found: Whether most of it lies in their space, and by more than chance.
        cosine: Of its angle to their space.
        chance: Mean cosine of surrogates.
        p_value: Corrected share of surrogates that come as near.
    """

    name: str
    found: bool
    cosine: float
    chance: float
    p_value: float

    def __post_init__(self) -> None:
        """Check that every field is a plain value."""
        schema.check(self)


@dataclass(frozen=True)
class LayerGenerators:
    """The generators of one L-conv path.

    Attributes:
        layer: Name of the layer.
        path: Name of the path.
        generators: Its generators.
        known: Known generators that the learned ones were compared with; empty where they were not.
        closure_error: Norm of what brackets of the learned generators add to their space, relative
            to the brackets; nan for fewer than two.
        strengths: How strong the generators are that the function has, whatever their basis;
            singular values, the largest first.
    """

    layer: str
    path: str
    generators: tuple[GeneratorRow, ...]
    known: tuple[KnownRow, ...]
    closure_error: float
    strengths: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that every field is a plain value."""
        schema.check(self)


GENERATORS: tuple[tuple[str, str], ...] = (
    ("generator", "I is the layer's own sites; L1, L2, ... were learned, others were given."),
    ("state", "Whether the generator contributes."),
    ("precision", "Prior precision of its weights, learned from the evidence. High means off."),
    ("effective", "Effective number of its parameters, γ, and their number."),
    ("strength", "Norm of the generator times that of its weights, relative to all."),
    ("field", "Share of the generator that is a vector field: moving images, not mixing pixels."),
    ("turning", "Share of its antisymmetric part: moves that keep norms."),
)
"""Headings and meanings of the table of generators."""

KNOWN: tuple[tuple[str, str], ...] = (
    ("known generator", "A generator of affine maps of the grid."),
    ("found", "Whether most of it lies in the space of the learned ones, and by more than chance."),
    ("cosine", "Of its angle to that space; 1 is inside."),
    ("by chance", "Mean cosine of random generators as smooth and as local as the learned ones."),
    ("p", "Share of these that come as near, corrected over all known generators."),
)
"""Headings and meanings of the table of known generators."""


@dataclass(frozen=True)
class Drawn:
    """A table of the section.

    Attributes:
        title: What it shows.
        columns: Headings and their meanings; the first two are words, the others numbers.
        rows: Cells.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def titles(self) -> list[str]:
        """The headings."""
        return [title for title, _ in self.columns]

    @property
    def numbers(self) -> list[bool]:
        """Whether each column is one of numbers."""
        return [i > 1 for i in range(len(self.columns))]


def tables(layers: Iterable[LayerGenerators]) -> list[Drawn]:
    """The tables of some layers: of each its generators, then known ones where it was compared."""
    return [drawn for layer in layers for drawn in _of_layer(layer)]


def _of_layer(layer: LayerGenerators) -> list[Drawn]:
    name = table.printable(layer.layer)
    generators = tuple(
        (
            table.printable(one.name),
            "on" if one.on else "off",
            f"{one.precision:.3g}",
            f"{_unless_nan(one.effective_params, '.1f')} of {one.n_params:,}",
            *(_unless_nan(v, ".0%") for v in (one.strength, one.field_share, one.rotation_share)),
        )
        for one in layer.generators
    )
    found = [Drawn(f"{name}: generators", GENERATORS, generators)]
    if layer.known:
        known = tuple(
            (
                one.name,
                "found" if one.found else table.NONE,
                *(f"{value:.3f}" for value in (one.cosine, one.chance, one.p_value)),
            )
            for one in layer.known
        )
        error = layer.closure_error
        closure = "" if math.isnan(error) else f" (closure error {error:.2f})"
        found.append(Drawn(f"{name}: symmetry extracted{closure}", KNOWN, known))
    return found


def _unless_nan(value: float, form: str) -> str:
    return table.NONE if math.isnan(value) else format(value, form)
