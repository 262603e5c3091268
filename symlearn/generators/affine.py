"""Generators of affine transformations on a grid, by Shannon-Whittaker derivatives.

A periodic signal I with n samples is continued between them by (PowerNet, Eq. 1)

    I(r) = sum_i I(i) Q(r - i)        Q(r) = 1/n [1 + 2 sum_p cos(2 pi p r / n) (+ cos(pi r))]

with p = 1 ... (n - 1) // 2, and the last term for even n only. The derivative at the samples is the
matrix ``D_ab = Q'(a - b)``, and a vector field ``Y(p) = M p + b`` on the plane has the generator
``-sum_axis diag(Y_axis) D_axis`` (Eq. 2): ``exp(t G)`` moves the content of an image along Y.

**Even sizes.** The source leaves the wave at half the sampling rate, ``(-1)^i``, out of Q for even
n, so its I(r) misses the samples. Here it has half the weight of a pair of waves, and the samples
are met. D is the same either way: this wave is flat at all samples, so D maps it to zero. Hence
for even n ``exp(D)`` shifts every wave but that one, which it leaves as it is, while a shift by one
sample turns its sign. No real D does better: the shift of an even number of samples is an odd
permutation, of determinant -1, and ``det exp(D) = exp(tr D) > 0``. Take `translation` where shifts
must be exact, odd sizes where generators must, or blur the image so that it lacks the wave.

Coordinates are pixels from the centre of the map, x to the right and y downwards; maps are
flattened row by row. Names and fields are those of `symlearn.audit`, but for translations, which
are by one pixel here, and "diagonal", which is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_SITES = 1024
"""Largest number of sites at which matrices over sites are built dense without being asked."""


@dataclass(frozen=True)
class Field:
    """The vector field ``Y(p) = M p + b``, in pixels.

    Attributes:
        matrix: M, rows (x, y).
        shift: b = (x, y).
    """

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    shift: tuple[float, float] = (0.0, 0.0)


FIELDS: dict[str, Field] = {
    "translation_x": Field(shift=(1.0, 0.0)),
    "translation_y": Field(shift=(0.0, 1.0)),
    "rotation": Field(((0.0, 1.0), (-1.0, 0.0))),
    "scaling": Field(((1.0, 0.0), (0.0, 1.0))),
    "shear": Field(((0.0, 1.0), (0.0, 0.0))),
    "stretch": Field(((1.0, 0.0), (0.0, 0.0))),
    "hyperbolic": Field(((1.0, 0.0), (0.0, -1.0))),
    "diagonal": Field(((0.0, 1.0), (1.0, 0.0))),
}
"""Vector fields by name; on signals over one axis only "translation_x" and "stretch" make sense."""
_ONE_AXIS = ("translation_x", "stretch")


def interpolation(r: Tensor, n: int) -> Tensor:
    """The kernel Q at distances r from a sample, in samples, of a signal of period n.

    Args:
        r: Distances, of any shape.
        n: Number of samples.
    """
    p = torch.arange(1, (n - 1) // 2 + 1, dtype=torch.float64, device=r.device)
    angle = 2 * math.pi / n * r.double()
    total = 1 + 2 * torch.cos(angle.unsqueeze(-1) * p).sum(-1)
    if n % 2 == 0:
        total = total + torch.cos(angle * (n // 2))
    return total / n


def _circulant(first: Tensor) -> Tensor:
    """Matrix [n, n] with entries ``first[(a - b) mod n]``."""
    n = len(first)
    sites = torch.arange(n, device=first.device)
    return first[(sites.unsqueeze(1) - sites).remainder(n)]


def derivative(n: int) -> Tensor:
    """The Shannon-Whittaker derivative ``D_ab = Q'(a - b)``, [n, n] in float64, per sample.

    It is antisymmetric, and exact for signals of period n without the wave at half the sampling
    rate, which it maps to zero.

    Args:
        n: Number of samples.

    Raises:
        ValueError: For fewer than one sample.

    Example:
        >>> import torch
        >>> from symlearn.generators import derivative
        >>> wave = torch.sin(2 * torch.pi * torch.arange(9.0, dtype=torch.float64) / 9)
        >>> round(float((derivative(9) @ wave)[0]), 6), round(2 * torch.pi / 9, 6)
        (0.698132, 0.698132)
    """
    _check_size((n,))
    p = torch.arange(1, (n - 1) // 2 + 1, dtype=torch.float64)
    r = torch.arange(n, dtype=torch.float64).unsqueeze(1)
    slopes = -(4 * math.pi / n**2) * (p * torch.sin(2 * math.pi / n * p * r)).sum(1)
    return _circulant(slopes)


def translation(n: int, distance: float) -> Tensor:
    """The matrix that moves a signal by any distance, ``Q(a - b - distance)``, [n, n] in float64.

    By whole samples it is the cyclic shift exactly, also for even n (see the module's caveat).

    Args:
        n: Number of samples.
        distance: Samples to the right.

    Raises:
        ValueError: For fewer than one sample.
    """
    _check_size((n,))
    if float(distance).is_integer():
        return torch.eye(n, dtype=torch.float64).roll(int(distance), 0)
    return _circulant(interpolation(torch.arange(n, dtype=torch.float64) - distance, n))


def check_dense(sites: int, dense: bool, what: str) -> None:
    """Refuse matrices over many sites.

    Args:
        sites: Number of sites.
        dense: Whether the user has asked for a dense matrix.
        what: Its name in the message.

    Raises:
        ValueError: For more than `DENSE_SITES` sites, unless asked for; the message says how much
            memory that would take.
    """
    if sites > DENSE_SITES and not dense:
        raise ValueError(
            f"{what} over {sites:,} sites would be a dense matrix of "
            f"{8 * sites**2 / 2**20:,.0f} MiB (at most {DENSE_SITES} sites without asking); take "
            "smaller maps, or say dense=True"
        )


def field_terms(field: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """``-Y . grad`` as one term per axis along which the vector field Y moves anything.

    Args:
        field: Y at the sites, in pixels, [*size, axes], x first.

    Returns:
        The axis, counted from the last one, the speed [*size], and the derivative [n, n] along it.
    """
    axes = field.shape[-1]
    return [
        (axis - axes, speed, derivative(field.shape[axis]))
        for axis, speed in enumerate(field.flip(-1).unbind(-1))
        if bool(speed.any())
    ]


def move(maps: Tensor, terms: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
    """``-Y . grad`` of maps [..., *size] from `field_terms`: one small matrix product per axis."""
    out = torch.zeros_like(maps)
    for axis, speed, slope in terms:
        moved = (maps.movedim(axis, -1) @ slope.to(maps).T).movedim(-1, axis)
        out = out - speed.to(maps) * moved
    return out


@dataclass(frozen=True)
class AffineGenerator:
    """The generator of one affine transformation on maps of a size, ``-Y . grad``.

    Args:
        name: One of `FIELDS`.
        size: Spatial size of the maps: (height, width), or (length,).

    Raises:
        ValueError: For an unknown name, or one that maps of this size do not have.

    Example:
        >>> import torch
        >>> from symlearn.generators import AffineGenerator
        >>> turn = AffineGenerator("rotation", (5, 5))
        >>> disc = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0], dtype=torch.float64)
        >>> disc = torch.outer(disc, disc)
        >>> turn.apply(disc).shape, bool(turn.apply(disc.T + disc)[2, 2].abs() < 1e-12)
        (torch.Size([5, 5]), True)
    """

    name: str
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_size(self.size)
        if len(self.size) > 2:
            raise ValueError(f"maps of size {self.size}: affine generators act on one or two axes")
        names = list(FIELDS) if len(self.size) == 2 else list(_ONE_AXIS)
        if self.name not in names:
            raise ValueError(
                f"unknown generator {self.name!r} of maps of size {self.size}; there are {names}"
            )

    def field(self) -> Tensor:
        """The vector field Y at the sites, in pixels: (x, y) [H, W, 2], or [length, 1]."""
        chosen, axes = FIELDS[self.name], len(self.size)
        places = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in self.size]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij")[::-1], -1)
        matrix = torch.tensor(chosen.matrix, dtype=torch.float64)[:axes, :axes]
        return grid @ matrix.T + torch.tensor(chosen.shift, dtype=torch.float64)[:axes]

    def apply(self, x: Tensor) -> Tensor:
        """``G x`` of maps [..., *size]."""
        return move(x, field_terms(self.field()))

    def entries(self) -> tuple[Tensor, Tensor]:
        """Places [2, K] (row, column) and values [K] of the nonzero entries, in float64.

        Each row holds at most the sites of its own row and column of the map.
        """
        sites = torch.arange(math.prod(self.size)).reshape(self.size)
        places, values = [], []
        for axis, speed, slope in field_terms(self.field()):
            lines = sites.movedim(axis, -1)  # [..., n]
            rows = lines.unsqueeze(-1).expand(*lines.shape, self.size[axis])
            columns = lines.unsqueeze(-2).expand_as(rows)
            block = -speed.movedim(axis, -1).unsqueeze(-1) * slope
            kept = block != 0
            places.append(torch.stack([rows[kept], columns[kept]]))
            values.append(block[kept])
        return torch.cat(places, 1), torch.cat(values)

    def matrix(self, dense: bool = False) -> Tensor:
        """``G`` as a dense matrix [S, S] in float64.

        Args:
            dense: Whether to build it for any number of sites.

        Raises:
            ValueError: For more than `DENSE_SITES` sites, unless asked for.
        """
        sites = math.prod(self.size)
        check_dense(sites, dense, f"generator {self.name!r}")
        return (
            self.apply(torch.eye(sites, dtype=torch.float64).reshape(-1, *self.size)).flatten(1).T
        )


def affine_generators(
    size: Sequence[int], names: Sequence[str] | None = None
) -> tuple[AffineGenerator, ...]:
    """Generators on maps of a size: those named, or a basis of the affine algebra.

    Args:
        size: Spatial size of the maps.
        names: Names of `FIELDS`; by default both translations, rotation, scaling, hyperbolic and
            diagonal (or "translation_x" and "stretch" on one axis).

    Raises:
        ValueError: As `AffineGenerator`.
    """
    if names is None:
        basis = [name for name in FIELDS if name not in ("shear", "stretch")]
        names = basis if len(size) == 2 else _ONE_AXIS
    return tuple(AffineGenerator(name, tuple(size)) for name in names)


def _check_size(size: Sequence[int]) -> None:
    if not size or min(size) < 1:
        raise ValueError(f"the size of a map is {tuple(size)}; it needs at least one sample")
