"""Lie algebra convolution: sums over generators of a group, fixed or learned (L-conv, Eq. 6).

    y[c', s'] = sum_i sum_c W_i[c', c] sum_s L_i[s', s] x[c, s]

Generators are ``I`` (the layer's own sites: at stride one the identity), fixed ones, and learned
ones of low rank, ``L_i = U_i V_i``. Each term has parameters of its own and one prior variance, so
that the evidence decides how many generators there are. Each factor is an ordinary matrix:

| factor | weight | blocks | inputs | outputs | positions |
|---|---|---|---|---|---|
| W_i of I and fixed generators | ``[C', C]`` | 1 | C | C' | output sites |
| V_i | ``[d_h, S]`` | 1 | S | d_h | C |
| W_i of learned generators | ``[C', C]`` | 1 | C | C' | d_h |
| U_i | ``[S', d_h]`` | 1 | d_h | S' | C' |

W_i of a learned generator meets the d_h numbers that V_i reads, not the S' that U_i writes: the
same map, with fewer positions. Terms are independent in the curvature, as paths are.
Index letters: ``C``, ``C'`` channels, ``S``, ``S'`` sites, ``d_h`` rank, ``n_L`` generators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from symlearn.generators.affine import FIELDS, check_dense
from symlearn.generators.closure import closure, overlap
from symlearn.generators.fixed import (
    WINDOW,
    fixed_maps,
    held_elements,
    misfits,
    over_groups,
    reads_moved,
)
from symlearn.generators.search import leading_generator
from symlearn.generators.sitemap import FixedGenerator, SiteMap
from symlearn.generators.terms import FixedTerm, LearnedTerm
from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec

_RANK = 8
_TINY = 1e-30


class LConvPath(Path):
    """Sum of terms ``L_i x W_i``.

    Args:
        geometry: Shapes of the layer.
        fixed: Maps of sites by name of the generator, with the tap each of them reads, if any.
        learned: Number of learned generators.
        rank: Their rank d_h.
        energies: Strengths in nats of the energies of closure and overlap.

    Attributes:
        terms: ``nn.ModuleDict``, name of the generator to its term.
    """

    def __init__(
        self,
        geometry: Geometry,
        fixed: Mapping[str, tuple[SiteMap, int | None]],
        learned: int,
        rank: int,
        energies: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__(geometry)
        self._energies = energies
        self.terms = nn.ModuleDict(
            {name: FixedTerm(geometry, sites, tap) for name, (sites, tap) in fixed.items()}
        )
        for i in range(1, learned + 1):
            self.terms[f"L{i}"] = LearnedTerm(geometry, rank)
        self._probe = "L1" if learned else next(iter(self.terms))

    def named_terms(self) -> dict[str, FixedTerm | LearnedTerm]:
        """Name of the generator to its term."""
        return {name: cast(Any, term) for name, term in self.terms.items()}

    def parts(self) -> dict[str, list[str]]:
        """Each generator with its factors."""
        return {
            name: [f"terms.{name}.{key}" for key, _ in term.named_parameters()]
            for name, term in self.named_terms().items()
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        flat = x.flatten(2)
        first, *others = self.terms.values()
        out: Tensor = first(flat)
        for term in others:
            out = out + term(flat)
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def energy(self) -> Tensor | None:
        """``1/2 k sum closure error^2 + 1/2 k' sum cos^2`` over pairs of learned generators."""
        learned = [t for t in self.named_terms().values() if isinstance(t, LearnedTerm)]
        if len(learned) < 2 or not any(self._energies):
            return None
        u = torch.stack([term.U.weight for term in learned])
        v = torch.stack([term.V.weight for term in learned])
        total = u.new_zeros(())
        for strength, measured in zip(self._energies, (closure, overlap), strict=True):
            if strength:
                total = total + 0.5 * strength * measured(u, v)
        return total

    def contributes(self) -> bool:
        """Whether any generator does."""
        return any(term.contributes() for term in self.named_terms().values())

    def scale(self, size: float) -> None:
        """Multiply the map by a positive number, in each term the same share in each factor."""
        with torch.no_grad():
            for term in self.named_terms().values():
                factors = term.weights()
                for p in factors:
                    p.mul_(size ** (1 / len(factors)))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Terms of equal variance, with a sum of He's size; factors of a term equal in norm."""
        for term in self.named_terms().values():
            term.draw(1 / len(self.terms), generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """``W_i = 0`` and random generators: the first gradient reaches W only, then all."""
        self.reset_parameters(generator)
        for term in self.named_terms().values():
            nn.init.zeros_(term.W.weight)

    def tested(self) -> Tensor:
        """One generator stands for all: V of the first learned one, or W of the best fixed one."""
        term = self.named_terms()[self._probe]
        weight: Tensor = term.V.weight if isinstance(term, LearnedTerm) else term.W.weight
        return weight

    def needs_direction(self) -> bool:
        """Where there is a choice: of U and W, or of the best fixed generator."""
        return len(self.terms) > 1 or self._probe == "L1"

    def propose(self, x: Tensor, g: Tensor) -> None:
        """All weights zero, but U and W of the generator that is tested at their best directions.

        Among fixed generators the one is tested whose W has the largest gradient, relative to the
        size of what it reads.
        """
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()
            if not self.needs_direction():
                return
            x, g = _unit_scale(x.flatten(2)), _unit_scale(g.flatten(2))
            term = self.named_terms()[self._probe]
            if isinstance(term, LearnedTerm):
                u, w = leading_generator(x, g, term.V.out_features)
                term.U.weight.copy_(u)
                term.W.weight.copy_(w)
            else:
                self._probe = max(self.terms, key=lambda name: self._pull(name, x, g))

    def _pull(self, name: str, x: Tensor, g: Tensor) -> float:
        """Squared gradient of a fixed term's W over the squared numbers that it reads."""
        read = cast(FixedTerm, self.terms[name]).sites(x)
        gradient = torch.einsum("ncs,nds->dc", read, g)
        return float(gradient.square().sum() / read.square().sum().clamp(min=_TINY))

    def seed(self, descent: Tensor, size: float) -> None:
        """The tested generator along the descent, balanced in norm; others random with W = 0."""
        generator = torch.Generator().manual_seed(0)
        for name, term in self.named_terms().items():
            if name != self._probe:
                term.draw(1 / len(self.terms), generator)
                nn.init.zeros_(term.W.weight)
        term = self.named_terms()[self._probe]
        if isinstance(term, FixedTerm):
            self.set_along(term.W.weight, descent, size * term.std())
            return
        with torch.no_grad():
            term.V.weight.copy_(descent)
            for p in term.weights():
                p.mul_(size ** (1 / 3) * term.norm() / p.norm().clamp(min=_TINY))

    def adopt(self, conv: nn.Module) -> bool:
        """Give each tap's filters to its shift, if all shifts of the window are generators."""
        geo = self.geometry
        taps = {
            term.tap: term
            for term in self.named_terms().values()
            if isinstance(term, FixedTerm) and term.tap is not None
        }
        if len(taps) < geo.window or reads_moved(geo):
            return False
        dense = over_groups(conv.get_parameter("weight").detach(), geo)
        self.start_at_zero(torch.Generator().manual_seed(0))
        with torch.no_grad():
            for tap, term in taps.items():
                term.W.weight.copy_(dense[..., tap])
        return True

    def filters(self) -> Tensor | None:
        """The filters, if only shifts of the window are left and channels are not in groups."""
        found, rest = self.split()
        return None if rest else found

    def split(self) -> tuple[Tensor | None, dict[str, FixedTerm | LearnedTerm]]:
        """Filters [C', C, *kernel] of the shifts of the window, and all other terms by name.

        Terms that contribute nothing are left out. No gradient goes through. There are no filters
        where there is no shift, channels are in groups, or the grid moves with the sample.
        """
        geo = self.geometry
        on = {name: term for name, term in self.named_terms().items() if term.contributes()}
        taps = {
            name: term
            for name, term in on.items()
            if isinstance(term, FixedTerm) and term.tap is not None
        }
        if not taps or geo.groups > 1 or reads_moved(geo):
            return None, on
        weight = next(self.parameters()).detach()
        found = weight.new_zeros(geo.out_channels, geo.in_channels, geo.window)
        for term in taps.values():
            found[..., term.tap] += term.W.weight.detach()
        rest = {name: term for name, term in on.items() if name not in taps}
        return found.reshape(geo.out_channels, geo.in_channels, *geo.kernel_size), rest

    def is_sparse(self) -> bool:
        """Whether a given generator that contributes is too large for a dense matrix."""
        return any(
            term.sites.index is None and term.sites.dense is None
            for term in self.named_terms().values()
            if isinstance(term, FixedTerm) and term.contributes()
        )

    def generator(self, name: str, dense: bool = False) -> Tensor:
        """The matrix L_i over sites, [S', S]; no gradient goes through.

        Args:
            name: Name of the generator.
            dense: Whether to build it for any number of sites.

        Raises:
            KeyError: For an unknown generator; the message lists those there are.
            ValueError: For more than 1024 sites, unless asked for.
        """
        terms = self.named_terms()
        if name not in terms:
            raise KeyError(f"no generator {name!r} in this path; there are {list(terms)}")
        check_dense(
            max(self.geometry.in_sites, self.geometry.out_sites), dense, f"generator {name!r}"
        )
        term = terms[name]
        if isinstance(term, FixedTerm):
            return term.sites.matrix().to(term.W.weight)
        return (term.U.weight @ term.V.weight).detach()


def _unit_scale(x: Tensor) -> Tensor:
    """Values at most one: squares must not underflow."""
    return x / x.abs().max().clamp(min=_TINY)


@dataclass(frozen=True)
class LConv(PathSpec):
    """Spec of the Lie algebra convolution ``"lconv"``: which generators, and of which rank.

    Args:
        generators: Number n_L of learned generators.
        rank: Rank d_h of the learned generators; by default 8, or the number of sites where the
            layer has fewer.
        fixed: Given generators: names of `symlearn.generators.FIELDS`, "window" for the shifts of
            the layer's window (which make the path a convolution), or `FixedGenerator` objects,
            matrices [S, S] or [S', S].
        identity: Whether ``L_0 = I`` is a generator. In a layer that changes the size of its maps
            it is the middle tap of the window; with "window", that tap is one anyway.
        dense: Whether given generators are dense matrices also beyond 1024 sites, where they are
            sparse otherwise.
        closure: Strength, in nats, of a prior that favours learned generators whose commutators are
            combinations of them and the identity: ``1/2 closure`` for each pair of unit norm with
            an error of one.
        orthogonality: Strength, in nats, of one that favours learned generators at right angles:
            ``1/2 orthogonality`` for each pair that is parallel.

    Raises:
        ValueError: For a number of generators below zero, none at all, a rank below one, names that
            are unknown or given twice, or a strength that is negative.
        TypeError: For a generator that is neither a name nor a `FixedGenerator`, or a number that
            is not whole.

    Example:
        >>> import torch, symlearn
        >>> from symlearn.paths import LConv
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 8, 8)
        >>> relaxed = symlearn.wrap(cnn, x, paths=("conv", LConv(2, fixed=("rotation",))))
        >>> list(relaxed[0].paths["lconv"].terms)
        ['I', 'rotation', 'L1', 'L2']
    """

    name: ClassVar[str] = "lconv"
    generators: int = 4
    rank: int | None = None
    fixed: tuple[str | FixedGenerator, ...] = ()
    identity: bool = True
    dense: bool = False
    closure: float = 0.0
    orthogonality: float = 0.0

    def __post_init__(self) -> None:
        given = (self.fixed,) if isinstance(self.fixed, (str, FixedGenerator)) else self.fixed
        counts = [self.generators] if self.rank is None else [self.generators, self.rank]
        if not isinstance(given, Sequence) or not all(type(count) is int for count in counts):
            raise TypeError(
                f"got generators={self.generators!r}, rank={self.rank!r}, fixed={self.fixed!r}; "
                "give two whole numbers (None for the default rank) and a tuple"
            )
        # generators come as dicts where the spec comes from JSON
        fixed = tuple(FixedGenerator.from_dict(f) if isinstance(f, Mapping) else f for f in given)
        object.__setattr__(self, "fixed", fixed)
        wrong = [f for f in fixed if not isinstance(f, (str, FixedGenerator))]
        if wrong:
            raise TypeError(f"fixed takes names or FixedGenerator objects, got {wrong}")
        known = [WINDOW, *FIELDS]
        unknown = [f for f in fixed if isinstance(f, str) and f not in known]
        if unknown:
            raise ValueError(f"unknown generators {unknown}; the names are {known}")
        names = [f if isinstance(f, str) else f.name for f in fixed]
        names += [f"L{i}" for i in range(1, self.generators + 1)] + ["I"] * self.identity
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ValueError(f"give at least one generator and no name twice; twice: {twice}")
        if self.generators < 0 or (self.rank is not None and self.rank < 1):
            raise ValueError(
                f"got {self.generators} generators of rank {self.rank}; the number must not be "
                "negative, and the rank at least 1"
            )
        strengths = (self.closure, self.orthogonality)
        if not all(0 <= strength < math.inf for strength in strengths):
            raise ValueError(
                f"closure and orthogonality are {strengths}; they must be finite and not negative"
            )

    @classmethod
    def from_text(cls, text: str) -> LConv:
        """The number of learned generators."""
        if not text.isdecimal():
            raise ValueError(
                f"'lconv:' takes a number of generators such as 'lconv:3', got {text!r}"
            )
        return cls(int(text))

    def _rank(self, geometry: Geometry) -> int:
        return self.rank or min(_RANK, geometry.in_sites, geometry.out_sites)

    def _n_fixed(self, geometry: Geometry) -> int:
        taps = geometry.window if WINDOW in self.fixed else int(self.identity)
        return taps + sum(f != WINDOW for f in self.fixed)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """A rank above the number of sites, or generators of maps of another size."""
        found, most = [], min(geometry.in_sites, geometry.out_sites)
        if self.generators and self._rank(geometry) > most:
            found.append(f"its generators have rank {self.rank}, but the layer only {most} sites")
        if self.closure and geometry.in_size != geometry.out_size:
            found.append(
                "its generators have no commutators, for the layer changes the size of maps; give "
                "closure=0"
            )
        return found + misfits(geometry, self.fixed)

    def build(self, geometry: Geometry) -> LConvPath:
        """Make the path for one layer."""
        self.check(geometry)
        fixed = fixed_maps(geometry, self.fixed, self.identity, self.dense)
        energies = self.closure, self.orthogonality
        return LConvPath(geometry, fixed, self.generators, self._rank(geometry), energies)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C`` weights per generator, and ``d_h (S + S')`` per learned one."""
        channels = geometry.in_channels * geometry.out_channels
        sites = self._rank(geometry) * (geometry.in_sites + geometry.out_sites)
        return (self._n_fixed(geometry) + self.generators) * channels + self.generators * sites

    def factor_elements(self, geometry: Geometry) -> int:
        """A pair of factors for each W, U and V."""
        mixes = geometry.in_channels**2 + geometry.out_channels**2
        sites = geometry.in_sites**2 + geometry.out_sites**2 + 2 * self._rank(geometry) ** 2
        return (self._n_fixed(geometry) + self.generators) * mixes + self.generators * sites

    def fixed_elements(self, geometry: Geometry) -> int:
        """Matrices of the given generators, dense or sparse."""
        return held_elements(geometry, self.fixed, self.dense)
