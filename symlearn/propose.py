"""One table of what might be built into a network: by the evidence, and by what it ignores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from curvature import Data, Likelihood
from symlearn.audit import (
    Candidate,
    Invariances,
    LinearInvariances,
    invariances,
    linear_invariances,
)
from symlearn.audit.linear import MOST_NUMBERS
from symlearn.generators import FIELDS
from symlearn.paths import PATHS, Emlp, PathSpec, as_specs
from symlearn.progress import Progress
from symlearn.report.document import Document
from symlearn.report.text import draw_lines
from symlearn.screen import SAMPLES, ScreenRow, screen
from symlearn.select import Selection

NONE = "–"
NETWORK = "(network)"
_NAMED = 0.8  # cosine with a generator from which a direction is called by its name
_KEPT_BY = {
    "translation_x": ("conv",),
    "translation_y": ("conv",),
    "rotation": ("gconv", "symconv", "lconv", "power:rotation"),
}
_MIXTURES = ("lconv", "power")  # take any generator


@dataclass(frozen=True)
class Proposal:
    """One row of the table.

    Attributes:
        layer: Name of the layer, or "(network)".
        path: The path, or several that keep the transformation, separated by commas.
        because: "evidence" or "invariance".
        direction: For an invariance, the transformation in words.
        gain: Nats by which the score test prefers the path to its absence; nan for an invariance.
        n_params: Weights the path would add, 0 for an invariance.
        ratio: Change of the outputs along the direction, relative to moves along those of other
            images; nan for the evidence.
        p_value: Of the ratio; nan for the evidence.
        proposed: Whether the gain is positive, or the direction was found.
    """

    layer: str
    path: str
    because: str
    direction: str
    gain: float
    n_params: int
    ratio: float
    p_value: float
    proposed: bool


@dataclass(frozen=True)
class Proposals(Document):
    """The table: paths by their gain, then directions by their ratio.

    Attributes:
        rows: The rows.
        left_out: Path -> why no layer can have it beside its own.
        n_images: Inputs that the invariances were measured on.
        level: Largest p-value of an invariance that is proposed.
    """

    FORMAT = "symlearn.proposals/1"

    rows: tuple[Proposal, ...]
    left_out: dict[str, str]
    n_images: int
    level: float

    @property
    def proposed(self) -> tuple[Proposal, ...]:
        """The rows that are proposed."""
        return tuple(row for row in self.rows if row.proposed)

    def __str__(self) -> str:
        body = [
            [
                row.layer,
                row.path,
                row.direction or NONE,
                _number(row.gain, "+.1f"),
                _number(row.ratio, ".3f"),
                _number(row.p_value, ".3f"),
                "yes" if row.proposed else "no",
            ]
            for row in self.rows
        ]
        titles = ["layer", "path", "unchanged along", "gain (nats)", "ratio", "p", "proposed"]
        right = [False, False, False, True, True, True, False]
        lines = [line.rstrip() for line in draw_lines(titles, body, right)]
        lines += [f"not tested: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def _number(value: float, form: str) -> str:
    return NONE if value != value else format(value, form)


def propose(
    model: nn.Module,
    data: Data,
    *,
    paths: str | PathSpec | Iterable[str | PathSpec] | None = None,
    layers: Selection = None,
    likelihood: str | Likelihood = "categorical",
    samples: int = SAMPLES,
    images: int = 300,
    draws: int = 99,
    level: float = 0.05,
    seed: int = 0,
    progress: bool | None = None,
) -> Proposals:
    """Propose what to build into a network: paths that pay, and transformations it ignores.

    Two independent measurements of a trained network in one table. `symlearn.screen` says which
    absent paths the labels ask for; `symlearn.audit.invariances` (for inputs [N, d] of few numbers
    `linear_invariances`) says along which transformations the outputs stay the same, with the
    paths that commute with these. Both rank; a fit decides.

    Args:
        model: A trained network with outputs [N, K], plain or relaxed. It is not changed.
        data: Labelled data, best held out from training.
        paths: Paths to test; by default all that there are.
        layers: Which convolutions of a plain network to test; as for `symlearn.wrap`.
        likelihood: Name or object.
        samples: Samples for the evidence; 0 for all.
        images: Most inputs for the invariances.
        draws: Draws of each null distribution.
        level: Largest p-value of an invariance that is proposed.
        seed: Of all random choices.
        progress: Whether to show progress; None on terminals only.

    Raises:
        ValueError: If the data are no pairs of inputs and labels, or the network's outputs are not
            [N, K].
        NoDerivativeError: If the network cannot be differentiated.

    Example:
        >>> import symlearn, torch
        >>> net = symlearn.models.small_cnn(2, in_channels=1, width=2)
        >>> x, y = torch.randn(40, 1, 16, 16), torch.arange(40) % 2
        >>> table = symlearn.propose(net, (x, y), paths=("ffc", "gconv"), draws=19)
        >>> sorted({row.because for row in table.rows}), list(table.left_out)
        (['evidence', 'invariance'], ['gconv'])
    """
    specs = as_specs(tuple(PATHS) if paths is None else paths)
    inputs = _inputs(model, data, images)
    directions = _directions(model, inputs, draws, level, seed, progress)
    rows, left_out = list[ScreenRow](), dict[str, str]()
    options: dict[str, Any] = {"layers": layers, "likelihood": likelihood, "samples": samples}
    with Progress(progress, "paths", len(specs)) as bar:
        for spec in specs:
            try:
                rows += screen(model, data, paths=spec, seed=seed, **options)
            except ValueError as error:
                left_out[spec.name] = " ".join(str(error).split())
            bar.advance()
    if len(left_out) == len(specs) and len(set(left_out.values())) == 1:
        left_out = {", ".join(left_out): next(iter(left_out.values()))}
    ranked = sorted(rows, key=lambda row: -row.gain)
    return Proposals(
        (*map(_by_evidence, ranked), *_by_invariance(directions)), left_out, len(inputs), level
    )


def _inputs(model: nn.Module, data: Data, limit: int) -> Tensor:
    """The first inputs of the data."""
    found: list[Tensor] = []
    for x, _ in curvature.batches(data, model):
        found.append(x[: limit - sum(map(len, found))])
        if sum(map(len, found)) >= limit:
            break
    return torch.cat(found).detach()


def _directions(
    model: nn.Module, x: Tensor, draws: int, level: float, seed: int, progress: bool | None
) -> Invariances | LinearInvariances:
    if x.ndim == 2 and x.shape[1] <= MOST_NUMBERS:
        return linear_invariances(model, x, draws=draws, level=level, seed=seed, progress=progress)
    return invariances(model, x, draws=draws, level=level, seed=seed, progress=progress)


def _by_evidence(row: ScreenRow) -> Proposal:
    nan = float("nan")
    return Proposal(row.layer, row.path, "evidence", "", row.gain, row.n_params, nan, nan, row.pays)


def _by_invariance(found: Invariances | LinearInvariances) -> Sequence[Proposal]:
    if isinstance(found, Invariances):
        return [
            _unchanged(", ".join(kept_by(c)), in_words(c), c.ratio, c.p_value, c in found.found)
            for c in found.directions
        ]
    quiet = found.found or found.directions[:1]
    words = f"{len(found.found)} matrices" + signature(found)
    ratio, p = max(c.ratio for c in quiet), max(c.p_value for c in quiet)
    return [_unchanged(Emlp.name, words, ratio, p, bool(found.found))]


def _unchanged(path: str, direction: str, ratio: float, p: float, proposed: bool) -> Proposal:
    nan = float("nan")
    return Proposal(NETWORK, path, "invariance", direction, nan, 0, ratio, p, proposed)


def kept_by(candidate: Candidate) -> tuple[str, ...]:
    """Names of paths that commute with a transformation, exactly or by a finite subgroup."""
    name, cosine = max(candidate.cosines.items(), key=lambda item: abs(item[1]))
    if abs(cosine) < _NAMED:
        return _MIXTURES
    return _KEPT_BY.get(name, ("lconv", f"power:{name}" if name in FIELDS else "power"))


def in_words(candidate: Candidate) -> str:
    """The largest generators of a direction, with the cosines of the moves along them."""
    largest = sorted(candidate.cosines.items(), key=lambda item: -abs(item[1]))
    if abs(largest[0][1]) >= _NAMED:
        largest = largest[:1]
    return ", ".join(f"{name} {cosine:+.2f}" for name, cosine in largest[:3])


def signature(found: LinearInvariances) -> str:
    """The group of the quadratic form that the matrices preserve, if there is one alone."""
    metric = found.metric()
    if metric is None:
        return ""
    values = torch.linalg.eigvalsh(metric[0])
    positive = int((values > 0).sum())
    negative = len(values) - positive
    return f": SO({positive}, {negative})" if negative else f": SO({positive})"
