"""The symmetry extracted by a fit: which generators are left, and what they are like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import curvature
import priors
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
from symlearn.report.text import draw_lines

if TYPE_CHECKING:
    from symlearn.fit.result import FitResult

_BATCH = 256


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


@dataclass(frozen=True)
class LayerSymmetry:
    """The generators of one layer's L-conv path.

    Attributes:
        layer: Name of the layer.
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
    generators: tuple[GeneratorFacts, ...]
    likeness: tuple[Likeness, ...]
    closure_error: float
    strengths: tuple[float, ...]
    fields: tuple[VectorField, ...]


class ExtractedSymmetry(tuple[LayerSymmetry, ...]):
    """The layers with an L-conv path that is on; print it for a table."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n\n".join(part for layer in self for part in _tables(layer)) or "no generators"


def extract(
    result: FitResult,
    x: Tensor | None = None,
    *,
    known: Sequence[str] | Mapping[str, Tensor] | None = None,
    order: Tensor | None = None,
    draws: int = 199,
    seed: int = 0,
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
    for name, layer in relaxed_layers(result.model).items():
        for key, path in layer.named_paths().items():
            if isinstance(path, LConvPath) and path.enabled:
                moment = None if x is None else second_moment(result.model, layer, x)
                reader = _Reader(result, name, key, path, order)
                found.append(reader.read(moment, known, draws, seed))
    return ExtractedSymmetry(found)


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

    @property
    def _small(self) -> bool:
        """Whether matrices over sites can be built."""
        geometry = self.path.geometry
        return max(geometry.in_sites, geometry.out_sites) <= DENSE_SITES

    @property
    def _square(self) -> bool:
        """Whether generators map the sites to themselves, and can be looked at."""
        return self._small and self.path.geometry.in_size == self.path.geometry.out_size

    @property
    def _readable(self) -> bool:
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
        moment = None if moment is None or not self._square else self._unscrambled(moment)
        facts = tuple(self._facts(n, n in on, norms[n] / total, moment) for n in terms)
        learned = [n for n in terms if n in on and not isinstance(terms[n], FixedTerm)]
        alike: tuple[Likeness, ...] = ()
        fields: tuple[VectorField, ...] = ()
        closure, form = math.nan, None
        if learned and self._small:
            given = torch.stack([self._matrix(n) for n in learned])
            form = canonical(given, torch.stack([terms[n].W.weight for n in learned]))
        if form is not None and self._readable:
            size = self.path.geometry.in_size
            alike = likeness(
                form.matrices, size, known, second_moment=moment, draws=draws, seed=seed
            )
            scaled = form.matrices * form.strengths.reshape(-1, 1, 1)
            fields = tuple(vector_field(matrix, size, moment) for matrix in scaled)
        if form is not None and self._square and len(form.matrices) > 1:
            closure = _closure(form.matrices)
        strengths = () if form is None else tuple(form.strengths.tolist())
        return LayerSymmetry(self.layer, facts, alike, closure, strengths, fields)

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
        if self._readable:
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


def _tables(layer: LayerSymmetry) -> list[str]:
    """Tables of one layer: its generators, and what the learned ones are like."""
    generators = [
        (
            one.name,
            "on" if one.on else "off",
            f"{one.precision:.3g}",
            f"{one.effective_params:.1f} of {one.n_params:,}",
            _percent(one.strength),
            _percent(math.nan if one.field is None else one.field.share),
            _percent(one.rotation_share),
        )
        for one in layer.generators
    ]
    titles = ("generator", "state", "precision", "effective", "strength", "field", "turning")
    parts = [_table(f"{layer.layer}: generators", titles, generators)]
    if layer.likeness:
        known = [
            (
                one.name,
                "found" if one.found else "–",
                f"{one.cosine:.3f}",
                f"{one.chance:.3f}",
                f"{one.p_value:.3f}",
            )
            for one in layer.likeness
        ]
        closure = "" if math.isnan(layer.closure_error) else f" (closure {layer.closure_error:.2f})"
        title = f"{layer.layer}: symmetry extracted{closure}"
        parts.append(_table(title, ("known generator", "", "cosine", "by chance", "p"), known))
    return parts


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = draw_lines(titles, rows, [i > 1 for i in range(len(titles))])
    return "\n".join([title, *(line.rstrip() for line in lines)])
