"""Truncated matrix power series: sums of integer powers of base matrices (PowerNet, Sec. 3.2).

    y[c', s'] = sum_t sum_c theta[c', c, t] (P_t x[c])[s']      P_t = A^(D i) B^(D j) ...

with t = (i, j, ...) and powers from -K to K each. Of two shifts it is a convolution with circular
padding, of a rotation one whose taps are angles. Kronecker rule: V is the identity, U stacks the
products of powers, and ``W = theta`` is an ordinary matrix:

| factor | weight | blocks | inputs | outputs | positions |
|---|---|---|---|---|---|
| theta | ``[C', C T]`` | 1 | C T | C' | output sites |

Index letters: ``C``, ``C'`` channels, ``S``, ``S'`` sites, ``T`` products of powers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvature.checking import check_count
from symlearn.generators.affine import FIELDS
from symlearn.generators.basematrix import BaseMatrix
from symlearn.generators.fixed import middle_map, over_groups, reads_moved, window_sites
from symlearn.generators.powermaps import SteppedPowers, combinations, stacked
from symlearn.generators.powers import (
    PowerOptions,
    check_invertible,
    dense_elements,
    powers_of,
)
from symlearn.generators.terms import zero_linear
from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec, check_label, he_std, normal_

_PROBES = 16
_TINY = 1e-30


class PowerPath(Path):
    """A power series of base matrices with weights for each pair of channels.

    In a layer that changes the size of its maps, powers over the input's sites are followed by the
    middle tap of the window, which picks the output's sites.

    Args:
        geometry: Shapes of the layer.
        bases: Base matrices A, B, ...
        options: Which powers of each.

    Attributes:
        bases: ``nn.ModuleList`` of the powers of each base matrix, [N, C, S] to [N, C, P, S].
        theta: The weight [C', C T], as an ``nn.Linear``.
        options: Which powers of each base matrix.
    """

    def __init__(
        self, geometry: Geometry, bases: Sequence[BaseMatrix], options: PowerOptions
    ) -> None:
        super().__init__(geometry)
        self.options = options
        powers = [powers_of(base, geometry.in_size, options) for base in bases]
        self.bases = nn.ModuleList(powers)
        self.picks = middle_map(geometry)
        self.products: int = len(options.exponents) ** len(bases)
        self.theta = zero_linear(geometry.in_channels * self.products, geometry.out_channels)
        self._taps = _taps(geometry, combinations(powers, geometry.in_sites))
        self._std = he_std(geometry.in_channels * max(self._power(), _TINY))

    def _power(self) -> float:
        """Sum over products of powers of the mean squared norm of a row, by random maps."""
        generator = torch.Generator().manual_seed(0)
        sites = (_PROBES, 1, self.geometry.in_sites)
        maps = torch.randn(sites, generator=generator, dtype=torch.float64)
        return float(self._stacked(maps).square().mean(-1).sum() / maps.square().mean(-1).sum())

    def _stacked(self, flat: Tensor) -> Tensor:
        """``U x``: maps [N, C, S] to [N, C T, S']."""
        picked: Tensor = self.picks(stacked(flat, self.bases).flatten(1, 2))
        return picked

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.theta(self._stacked(x.flatten(2)).transpose(1, 2)).transpose(1, 2)
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Gaussian weights with which the map has He's variance."""
        normal_(self.theta.weight, self._std, generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All weights zero."""
        nn.init.zeros_(self.theta.weight)

    def tested(self) -> Tensor:
        """The weight theta [C', C T]."""
        return self.theta.weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Weights at zero."""
        nn.init.zeros_(self.theta.weight)

    def seed(self, descent: Tensor, size: float) -> None:
        """Weights along the descent direction, at a fraction of the initial size."""
        self.set_along(self.theta.weight, descent, size * self._std)

    def adopt(self, conv: nn.Module) -> bool:
        """Give each tap's filters to its product of powers, if there is one for every tap."""
        geo, taps = self.geometry, self._taps
        if taps is None or reads_moved(geo) or -1 in taps[1]:
            return False
        dense = over_groups(conv.get_parameter("weight").detach(), geo)
        with torch.no_grad():
            self.theta.weight.zero_()
            weight = self.theta.weight.unflatten(1, (-1, self.products))
            for tap, product in enumerate(taps[1]):
                weight[..., product] += dense[..., tap]
        return True

    def filters(self) -> Tensor | None:
        """The filters, if all products of powers are taps of the layer's window.

        None where channels are in groups, or the grid moves with the sample.
        """
        geo, taps = self.geometry, self._taps
        if taps is None or -1 in taps[0] or geo.groups > 1 or reads_moved(geo):
            return None
        weight: Tensor = self.theta.weight.detach().unflatten(1, (-1, self.products))
        found = weight.new_zeros(geo.out_channels, geo.in_channels, geo.window)
        for product, tap in enumerate(taps[0]):
            found[..., tap] += weight[..., product]
        return found.reshape(geo.out_channels, geo.in_channels, *geo.kernel_size)

    def is_stepped(self) -> bool:
        """Whether a base matrix is applied step by step, without its powers as matrices."""
        return any(isinstance(base, SteppedPowers) for base in self.bases)


def _taps(geometry: Geometry, read: Tensor | None) -> tuple[list[int], list[int]] | None:
    """Tap of each product of powers and product of each tap, -1 for none.

    Args:
        geometry: Shapes of the layer.
        read: Site that each product reads at each site, [T, S], or None.
    """
    if read is None:
        return None
    window = window_sites(geometry)  # [K, S']
    middle = middle_map(geometry).index
    outside = read.new_full((len(read), 1), geometry.in_sites)
    products = torch.cat([read, outside], 1)[:, middle]
    same = (products.unsqueeze(1) == window).all(2)  # [T, K]
    return tuple(  # type: ignore[return-value]
        [int(row.int().argmax()) if bool(row.any()) else -1 for row in table]
        for table in (same, same.T)
    )


@dataclass(frozen=True)
class Power(PathSpec):
    """Spec of the power path ``"power"``: which base matrices, and which of their powers.

    ``"power:rotation"`` is short for ``Power("rotation")``, and ``"power:translation_x+rotation"``
    for two base matrices.

    Args:
        bases: Base matrices A, B, ..., in the order of their product: `BaseMatrix` objects, or
            names of `symlearn.generators.FIELDS` with the step that moves sites by one pixel (root
            mean square; a translation is the exact shift by one).
        powers: K, the largest power of each.
        dilation: D, which all powers are multiplied by.
        negative: Whether powers run from -K, or from 0.
        dense: Whether powers may be dense matrices beyond 1024 sites, where they are cheaper.
        label: Name of the path, where a layer has several power paths. Of paths given as text,
            such as "power:rotation" and "power:scaling", the text is the label.

    Raises:
        ValueError: For no base matrix, one given twice, an unknown name, K or D that are no whole
            numbers of at least one, a given matrix that is singular and to have negative powers, or
            a label that cannot be the name of a module.
        TypeError: For a base that is neither a name nor a `BaseMatrix`.

    Example:
        >>> import torch, symlearn
        >>> from symlearn.paths import Power
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 9, 9)
        >>> relaxed = symlearn.wrap(cnn, x, paths=("conv", "power:rotation"))
        >>> tuple(relaxed[0].paths["power"].theta.weight.shape)  # 1 channel, powers -2 to 2
        (4, 5)
    """

    name: ClassVar[str] = "power"
    bases: tuple[str | BaseMatrix, ...] = ("rotation",)
    powers: int = 2
    dilation: int = 1
    negative: bool = True
    dense: bool = False
    label: str = "power"

    def __post_init__(self) -> None:
        check_label(self.label)
        object.__setattr__(self, "name", self.label)
        several = isinstance(self.bases, Iterable) and not isinstance(self.bases, str)
        given = self.bases if several else (self.bases,)
        # base matrices come as dicts where the spec comes from JSON
        bases: tuple[Any, ...] = tuple(
            BaseMatrix.from_dict(b) if isinstance(b, Mapping) else b for b in given
        )
        object.__setattr__(self, "bases", bases)
        wrong = [b for b in bases if not isinstance(b, (str, BaseMatrix))]
        if wrong:
            raise TypeError(f"bases takes names or BaseMatrix objects, got {wrong}")
        unknown = [b for b in bases if isinstance(b, str) and b not in FIELDS]
        if unknown:
            raise ValueError(f"unknown base matrices {unknown}; the names are {list(FIELDS)}")
        names = [b if isinstance(b, str) else b.name for b in bases]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"give at least one base matrix and none twice, got {names}")
        check_count("powers", self.powers)
        check_count("dilation", self.dilation)
        for base in bases:
            if self.negative and isinstance(base, BaseMatrix):
                check_invertible(base)

    @classmethod
    def from_text(cls, text: str) -> Power:
        """Names of base matrices, joined by "+"."""
        return cls(tuple(text.split("+")))

    @property
    def options_of_powers(self) -> PowerOptions:
        """Which powers each base matrix has."""
        return PowerOptions(self.powers, self.dilation, self.negative, self.dense)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """Base matrices that do not act on the layer's input maps."""
        found = []
        for base in self.bases:
            try:
                known = BaseMatrix.step(base, geometry.in_size) if isinstance(base, str) else base
            except ValueError as error:
                found.append(str(error))
            else:
                found += [reason for reason in [known.misfit(geometry.in_size)] if reason]
        return found

    def build(self, geometry: Geometry) -> PowerPath:
        """Make the path for one layer."""
        self.check(geometry)
        return PowerPath(geometry, self._matrices(geometry), self.options_of_powers)

    def _matrices(self, geometry: Geometry) -> list[BaseMatrix]:
        size = geometry.in_size
        return [BaseMatrix.step(b, size) if isinstance(b, str) else b for b in self.bases]

    def _products(self) -> int:
        return math.prod([len(self.options_of_powers.exponents)] * len(self.bases))

    def n_params(self, geometry: Geometry) -> int:
        """``C' C T`` weights for T products of powers."""
        return geometry.out_channels * geometry.in_channels * self._products()

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors."""
        return (geometry.in_channels * self._products()) ** 2 + geometry.out_channels**2

    def fixed_elements(self, geometry: Geometry) -> int:
        """Powers that are held as dense matrices."""
        self.check(geometry)
        options, size = self.options_of_powers, geometry.in_size
        return sum(dense_elements(base, size, options) for base in self._matrices(geometry))
