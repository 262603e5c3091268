"""Integer powers of a base matrix applied to maps, in the cheapest of three ways.

| way | when | multiply-adds per map and power |
|---|---|---|
| `PickedPowers` | A is a permutation, such as a shift | none |
| `DensePowers` | cheaper, and at most 1024 sites or asked for | S^2 |
| `SteppedPowers` | else, without any dense matrix | those of A, or of the series of exp(G) |

Index letters: ``S`` sites, ``P`` powers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.generators.affine import DENSE_SITES, check_dense
from symlearn.generators.basematrix import BaseMatrix
from symlearn.generators.powermaps import (
    NORM,
    TERMS,
    DensePowers,
    Exponential,
    FieldMap,
    PickedPowers,
    Repeated,
    SteppedPowers,
)
from symlearn.generators.sitemap import FixedGenerator, SiteMap

_SPARSE = 50  # dense multiply-adds that take as long as one of a sparse product, measured
_CONDITION = 1e12  # of a matrix whose inverse has no digits left to trust


@dataclass(frozen=True)
class PowerOptions:
    """Which powers of each base matrix a series has.

    Attributes:
        powers: K, the largest power.
        dilation: D, which all powers are multiplied by.
        negative: Whether powers run from -K, or from 0.
        dense: Whether powers may be dense matrices for any number of sites.
    """

    powers: int
    dilation: int
    negative: bool
    dense: bool

    @property
    def exponents(self) -> range:
        """The powers before dilation, in the order in which they are stacked."""
        return range(-self.powers if self.negative else 0, self.powers + 1)

    @property
    def zero(self) -> int:
        """Place of the identity among them."""
        return self.exponents.index(0)


def powers_of(
    base: BaseMatrix, size: tuple[int, ...], options: PowerOptions
) -> PickedPowers | DensePowers | SteppedPowers:
    """The powers of a base matrix on maps of a size, applied in the cheapest way.

    Args:
        base: The base matrix.
        size: Spatial size of the maps.
        options: Which powers.

    Raises:
        ValueError: If a matrix that is singular, or too large to be inverted without asking, is to
            have negative powers, or a power is not finite.
    """
    index = _permutation(base, size)
    if index is not None:
        return PickedPowers(_picked(index, options))
    if _inverts(base, options):
        what = f"the inverse of base matrix {base.name!r}"
        check_dense(math.prod(size), options.dense, what)
    up, down, cost = _steps(base, size, options.dilation)
    if _takes_matrices(base, size, options, cost):
        return _dense(base, size, options)
    return SteppedPowers(up, down if options.negative else None, options.powers)


def dense_elements(base: BaseMatrix, size: tuple[int, ...], options: PowerOptions) -> int:
    """Numbers in the dense matrices that the powers hold, without building them."""
    if _permutation(base, size) is not None:
        return 0
    cost = _steps(base, size, options.dilation)[2]
    held = _takes_matrices(base, size, options, cost)
    return held * (len(options.exponents) - 1) * math.prod(size) ** 2


def _inverts(base: BaseMatrix, options: PowerOptions) -> bool:
    return options.negative and not base.has_generator


def _takes_matrices(
    base: BaseMatrix, size: tuple[int, ...], options: PowerOptions, cost: int
) -> bool:
    """Whether powers are held as matrices: they are cheaper than steps, or cannot be stepped."""
    sites = math.prod(size)
    allowed = options.dense or sites <= DENSE_SITES
    return _inverts(base, options) or (allowed and sites**2 <= cost)


def check_invertible(base: BaseMatrix) -> None:
    """Check that a matrix given as it is has an inverse, where that needs no large dense matrix.

    Raises:
        ValueError: If it has none.
    """
    if base.matrix is None or base.exponentiate or base.matrix.shape[0] > DENSE_SITES:
        return
    _inverse(base.name, _sparse(base.matrix).matrix())


def _permutation(base: BaseMatrix, size: tuple[int, ...]) -> Tensor | None:
    """Site that the base matrix reads at each site [S], if it is a permutation."""
    sites = math.prod(size)
    shift = base.shift(size)
    if shift is not None:
        numbers = torch.arange(sites).reshape(size)
        return numbers.roll(tuple(shift.values()), tuple(shift)).flatten()
    if base.has_generator:
        return None
    index = None if base.matrix is None else _sparse(base.matrix).index
    whole = index is not None and torch.equal(index.sort().values, torch.arange(sites))
    return index if whole else None


def _picked(index: Tensor, options: PowerOptions) -> Tensor:
    """Sites that each power of a permutation reads, [P, S]."""
    rows = []
    for exponent in options.exponents:
        step = index if exponent >= 0 else index.argsort()
        power = torch.arange(len(index))
        for _ in range(abs(exponent) * options.dilation):
            power = step[power]
        rows.append(power)
    return torch.stack(rows)


def _steps(
    base: BaseMatrix, size: tuple[int, ...], dilation: int
) -> tuple[nn.Module, nn.Module | None, int]:
    """``A^D``, ``A^-D`` (None where that needs an inverse), and what one of them costs.

    The cost is in multiply-adds of dense products, per map.
    """
    if base.matrix is None:
        field = FieldMap(base.field(size))
        generator: nn.Module = field
        bound, cost = field.bound(), field.products()
    else:
        generator = _sparse(base.matrix)
        bound, cost = _bound(base.matrix), _SPARSE * len(base.matrix.values)
    if not base.has_generator:
        return Repeated(generator, dilation), None, dilation * cost
    n = max(1, math.ceil(dilation * bound / NORM))
    up, down = (Exponential(generator, t, n) for t in (dilation, -dilation))
    return up, down, n * TERMS * cost


def _sparse(matrix: FixedGenerator) -> SiteMap:
    return SiteMap(matrix.shape, *matrix.entries(), dense_up_to=0)


def _bound(matrix: FixedGenerator) -> float:
    """At least the spectral norm: ``||G||_2^2 <= ||G||_1 ||G||_inf``."""
    places, values = matrix.entries()
    zeros = values.new_zeros(matrix.shape[0])
    return math.sqrt(
        math.prod(float(zeros.index_add(0, line, values.abs()).max()) for line in places)
    )


def _dense(base: BaseMatrix, size: tuple[int, ...], options: PowerOptions) -> DensePowers:
    """Powers as matrices; negative ones by the inverse generator where there is a generator."""
    matrix = _matrix(base, size)
    signs = (1, -1) if options.negative else (1,)
    found: dict[int, Tensor] = {}
    for sign in signs:
        if base.has_generator:
            step = torch.linalg.matrix_exp(sign * options.dilation * matrix)
        else:
            root = matrix if sign > 0 else _inverse(base.name, matrix)
            step = torch.linalg.matrix_power(root, options.dilation)
        power = step
        for exponent in range(1, options.powers + 1):
            found[sign * exponent] = power
            power = power @ step
    kept = [found[exponent] for exponent in options.exponents if exponent]
    stack = torch.stack(kept)
    if not bool(stack.isfinite().all()):
        raise ValueError(
            f"powers of base matrix {base.name!r} up to {options.powers * options.dilation} are "
            "not finite; take fewer powers or a matrix closer to the identity"
        )
    return DensePowers(stack, options.zero)


def _matrix(base: BaseMatrix, size: tuple[int, ...]) -> Tensor:
    """The given matrix, or the generator, dense [S, S] in float64."""
    if base.matrix is not None:
        return _sparse(base.matrix).matrix()
    units = torch.eye(math.prod(size), dtype=torch.float64)
    columns: Tensor = FieldMap(base.field(size))(units.unsqueeze(1))
    return columns.squeeze(1).T


def _inverse(name: str, matrix: Tensor) -> Tensor:
    inverse: Tensor
    inverse, failed = torch.linalg.inv_ex(matrix)
    condition = float(torch.linalg.matrix_norm(matrix, 1) * torch.linalg.matrix_norm(inverse, 1))
    condition = math.inf if bool(failed) else condition
    if not condition <= _CONDITION:  # also true for NaN
        raise ValueError(
            f"base matrix {name!r} is singular (condition number {condition:.2g}), so that it has "
            "no negative powers; give negative=False for the powers from 0 on"
        )
    return inverse
