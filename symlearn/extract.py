"""The symmetry extracted by a fit: which generators are left, and what they are like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import curvature
import priors
from symlearn.fit.data import until
from symlearn.fit.facts import part_groups
from symlearn.generators import (
    DENSE_SITES,
    Likeness,
    VectorField,
    canonical,
    likeness,
    spectrum,
    structure,
    unscrambled,
    vector_field,
)
from symlearn.generators.terms import FixedTerm
from symlearn.paths import LConvPath
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.report import symmetry, text
from symlearn.report.symmetry import GeneratorRow, KnownRow, LayerGenerators

if TYPE_CHECKING:
    from symlearn.fit.result import FitResult

_BATCH = 256
# what a fit extracts by itself: the fewest draws that can find a generator, maps that take seconds
_DRAWS, _SITES, _IMAGES = 119, 256, 500


@dataclass(frozen=True)
class GeneratorFacts:
    """One generator of one L-conv path.

    Attributes:
        name: Its name: "I", that of a given one, or "L1", "L2", ... for learned ones.
        learned: Whether it was learned.
        on: Whether it contributes.
        precision: Prior precision of its weights; inf where it has vanished.
        effective_params: gamma of its weights; nan if the result keeps no curvature.
        n_params: Number of its weights.
        strength: ``||L|| ||W||``, relative to the sum over the path; nan on maps of more than 1024
            sites, where no matrices over sites are built.
        field: The vector field it is nearest to; None on such maps, and for layers that change the
            size of maps.
        rotation_share: Share of its antisymmetric part; nan where there is no field.
    """

    name: str
    learned: bool
    on: bool
    precision: float
    effective_params: float
    n_params: int
    strength: float
    field: VectorField | None
    rotation_share: float

    def row(self) -> GeneratorRow:
        """The numbers, for the report."""
        share = math.nan if self.field is None else self.field.share
        size = self.effective_params, self.n_params, self.strength
        return GeneratorRow(
            self.name, self.learned, self.on, self.precision, *size, share, self.rotation_share
        )


@dataclass(frozen=True)
class LayerSymmetry:
    """The generators of one layer's L-conv path.

    Attributes:
        layer: Name of the layer.
        path: Name of the path.
        generators: Its generators.
        likeness: How near the learned ones come to known ones; empty where it was not compared.
        closure_error: Norm of what brackets of the learned generators add to their space, relative
            to the brackets; nan for fewer than two.
        strengths: Singular values of ``sum_i vec(L_i) vec(W_i)^T`` over the learned generators: how
            many the function has, whatever their basis.
        fields: The vector fields that the generators of that basis, times their strengths, are
            nearest to; empty where there are none.
    """

    layer: str
    path: str
    generators: tuple[GeneratorFacts, ...]
    likeness: tuple[Likeness, ...]
    closure_error: float
    strengths: tuple[float, ...]
    fields: tuple[VectorField, ...]

    def facts(self) -> LayerGenerators:
        """What a report keeps of it."""
        known = tuple(
            KnownRow(one.name, one.found, one.cosine, one.chance, one.p_value)
            for one in self.likeness
        )
        rows = tuple(one.row() for one in self.generators)
        name = self.layer, self.path
        return LayerGenerators(*name, rows, known, self.closure_error, self.strengths)


class ExtractedSymmetry(tuple[LayerSymmetry, ...]):
    """The layers with an L-conv path that is on; print it for a table."""

    __slots__ = ()

    def __str__(self) -> str:
        drawn = symmetry.tables(layer.facts() for layer in self)
        return "\n\n".join("\n".join(text.draw_table(one)) for one in drawn) or "no generators"


def extract(
    result: FitResult,
    x: Tensor | None = None,
    *,
    known: Sequence[str] | Mapping[str, Tensor] | None = None,
    order: Tensor | None = None,
    draws: int = 199,
    seed: int = 0,
    most_sites: int = DENSE_SITES,
) -> ExtractedSymmetry:
    """Read the generators of a fitted network's L-conv paths.

    Args:
        result: The fit.
        x: Images [N, C, *size]: generators are then read by what they do to them; to all maps alike
            without.
        known: Generators to compare with, see `symlearn.generators.likeness`.
        order: Permutation of the pixels, if the images were scrambled as ``x[..., order]`` before:
            generators are then read on the original images. For layers at the input's size.
        draws: Surrogates of each comparison.
        seed: Of the surrogates.
        most_sites: Largest maps for which matrices over sites are built. Time grows with the
            square of the number of sites or faster, and with the draws: minutes for 28x28 pixels.

    Raises:
        ValueError: As `symlearn.generators.likeness`, or if the order does not fit a layer.

    Example:
        >>> import torch, symlearn
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Flatten())
        >>> x, y = torch.randn(20, 1, 4, 4), torch.randn(20, 32)
        >>> relaxed = symlearn.wrap(net, x, paths=("lconv",), init="fresh")
        >>> config = symlearn.FitConfig(epochs=1, likelihood="gaussian", progress=False)
        >>> (layer,) = symlearn.extract(symlearn.fit(relaxed, (x, y), config), x)
        >>> " ".join(generator.name for generator in layer.generators)
        'I L1 L2 L3 L4'
    """
    found = []
    for name, key, layer, path in _paths(result.model):
        reader = _Reader(result, name, key, path, order, most_sites)
        moment = None
        if x is not None and reader.readable:
            moment = second_moment(result.model, layer, x)
        found.append(reader.read(moment, known, draws, seed))
    return ExtractedSymmetry(found)


def extracted_after_fit(result: FitResult, batches: Iterable[tuple[Tensor, Tensor]]) -> FitResult:
    """The result of an evidence fit, its report with the symmetry extracted if there is one.

    Nothing is read off maps of more than 256 sites, which would take longer than the fit of a
    small network, and nothing where the fit checks no images.

    Args:
        result: The fit.
        batches: Training images [N, C, *size], of which 500 at most are taken.
    """
    report, wanted = result.report, result.config.check_images > 0
    if not wanted or report.objective != "evidence" or not any(_paths(result.model)):
        return result
    x = torch.cat([x for x, _ in until(batches, _IMAGES)])[:_IMAGES]
    try:
        found = extract(result, x, draws=_DRAWS, most_sites=_SITES)
    except ValueError as error:  # such as maps that are not finite: keep what was fitted
        report = replace(report, meta={**report.meta, "symmetry": f"not extracted: {error}"})
    else:
        report = report.with_symmetry(tuple(layer.facts() for layer in found))
    return replace(result, report=report)


def _paths(model: nn.Module) -> Iterator[tuple[str, str, RelaxedLayer, LConvPath]]:
    """L-conv paths that are on, with the names of their layers and their own."""
    for name, layer in relaxed_layers(model).items():
        for key, path in layer.named_paths().items():
            if isinstance(path, LConvPath) and path.enabled:
                yield name, key, layer, path


def second_moment(model: nn.Module, layer: RelaxedLayer, x: Tensor) -> Tensor:
    """``E x x^T`` over the sites of a layer's input, mean over samples and channels, [S, S].

    Args:
        model: The network.
        layer: A relaxed layer of it.
        x: Inputs of the network.
    """
    sites = layer.geometry.in_sites
    total, seen = torch.zeros(sites, sites, dtype=torch.float64), 0

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal total, seen
        flat = args[0].detach().reshape(-1, sites).double().cpu()
        total, seen = total + flat.T @ flat, seen + len(flat)

    handle = layer.register_forward_pre_hook(note)
    try:
        with torch.no_grad(), curvature.evaluating(model):
            for part in x.split(_BATCH):
                model(part)
    finally:
        handle.remove()
    return total / max(seen, 1)


@dataclass(frozen=True)
class _Reader:
    """Reads the generators of one path."""

    result: FitResult
    layer: str
    key: str
    path: LConvPath
    order: Tensor | None
    most_sites: int

    @property
    def _small(self) -> bool:
        """Whether matrices over sites can be built."""
        geometry = self.path.geometry
        return max(geometry.in_sites, geometry.out_sites) <= min(self.most_sites, DENSE_SITES)

    @property
    def _square(self) -> bool:
        """Whether generators map the sites to themselves, and can be looked at."""
        return self._small and self.path.geometry.in_size == self.path.geometry.out_size

    @property
    def readable(self) -> bool:
        """Whether generators have vector fields."""
        return self._square and len(self.path.geometry.in_size) <= 2

    def read(
        self,
        moment: Tensor | None,
        known: Sequence[str] | Mapping[str, Tensor] | None,
        draws: int,
        seed: int,
    ) -> LayerSymmetry:
        """All facts of the path."""
        terms = self.path.named_terms()
        on = {name for name, term in terms.items() if term.contributes()}
        norms = {
            n: float(self._matrix(n).norm() * t.W.weight.detach().norm())
            if self._small
            else math.nan
            for n, t in terms.items()
        }
        total = math.fsum(norms.values()) or 1.0
        moment = None if moment is None else self._unscrambled(moment)
        facts = tuple(self._facts(n, n in on, norms[n] / total, moment) for n in terms)
        learned = [n for n in terms if n in on and not isinstance(terms[n], FixedTerm)]
        alike: tuple[Likeness, ...] = ()
        fields: tuple[VectorField, ...] = ()
        closure, form = math.nan, None
        if learned and self._small:
            given = torch.stack([self._matrix(n) for n in learned])
            form = canonical(given, torch.stack([terms[n].W.weight for n in learned]))
        if form is not None and self.readable:
            size = self.path.geometry.in_size
            alike = likeness(
                form.matrices, size, known, second_moment=moment, draws=draws, seed=seed
            )
            scaled = form.matrices * form.strengths.reshape(-1, 1, 1)
            fields = tuple(vector_field(matrix, size, moment) for matrix in scaled)
        if form is not None and self._square and len(form.matrices) > 1:
            closure = _closure(form.matrices)
        strengths = () if form is None else tuple(form.strengths.tolist())
        return LayerSymmetry(self.layer, self.key, facts, alike, closure, strengths, fields)

    def _matrix(self, name: str) -> Tensor:
        matrix = self.path.generator(name).cpu().double()
        return self._unscrambled(matrix) if self._square else matrix

    def _unscrambled(self, matrix: Tensor) -> Tensor:
        return matrix if self.order is None else unscrambled(matrix, self.order)

    def _facts(self, name: str, on: bool, strength: float, moment: Tensor | None) -> GeneratorFacts:
        prior, found = self.result.prior, self.result.curvature
        groups = part_groups(prior, (self.layer, self.key), self.path, name)
        logs = [math.log(prior.group_precision(group)) for group in groups]
        term = self.path.named_terms()[name]
        gamma = math.nan
        if found is not None:
            measured = [g for g in groups if all(m in found for m in prior.groups[g])]
            gamma = math.fsum(priors.effective_parameters(found, prior, g) for g in measured)
        field = None
        if self.readable:
            field = vector_field(self._matrix(name), self.path.geometry.in_size, moment)
        return GeneratorFacts(
            name,
            not isinstance(term, FixedTerm),
            on,
            math.exp(math.fsum(logs) / len(logs)) if on else math.inf,
            gamma,
            sum(p.numel() for p in term.weights()),
            strength,
            field,
            spectrum(self._matrix(name)).rotation_share if self._square else math.nan,
        )


def _closure(matrices: Tensor) -> float:
    """Root mean square of the closure error over pairs."""
    errors = structure(matrices, identity=True).closure_error
    n = len(errors)
    return float((errors.square().sum() / (n * (n - 1))).sqrt())
