"""Base matrices of power series: transformations by one step, whose powers a layer sums.

Index letters: ``S`` sites of a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symlearn.generators.affine import FIELDS, AffineGenerator
from symlearn.generators.sitemap import FixedGenerator

_AXES = {"translation_x": -1, "translation_y": -2}


@dataclass(frozen=True)
class BaseMatrix:
    """A square matrix A over sites, given by its generator or as it is.

    One of `affine`, `exponential` and `of` makes it. Where a generator is known, negative powers
    are powers of ``exp(-G)``; only a matrix given as it is has to be inverted.

    Args:
        name: Name in messages.
        coefficients: Pairs (name of `symlearn.generators.FIELDS`, alpha): ``A = exp(sum_i alpha_i
            D_i)`` (PowerNet, Eq. 2). Translations alone, by whole pixels, are exact shifts for odd
            and even sizes.
        matrix: A, or its generator.
        exponentiate: Whether `matrix` is the generator.

    Raises:
        ValueError: For a matrix that is not square, an unknown name, a coefficient that is no
            finite number, or neither or both of coefficients and matrix.
        TypeError: For a matrix that is no `FixedGenerator`.

    Example:
        >>> import math, torch
        >>> from symlearn.generators import BaseMatrix
        >>> BaseMatrix.affine("quarter", rotation=math.pi / 2).coefficients
        (('rotation', 1.5707963267948966),)
        >>> BaseMatrix.of("ring", torch.eye(4).roll(1, 0)).sites
        4
    """

    name: str
    coefficients: tuple[tuple[str, float], ...] = ()
    matrix: FixedGenerator | None = None
    exponentiate: bool = False

    def __post_init__(self) -> None:
        pairs = tuple((name, value) for name, value in self.coefficients)
        object.__setattr__(self, "coefficients", pairs)
        if isinstance(self.matrix, Mapping):  # where it comes from JSON
            object.__setattr__(self, "matrix", FixedGenerator.from_dict(self.matrix))
        if not isinstance(self.matrix, FixedGenerator | None):
            raise TypeError(
                f"base matrix {self.name!r} is given as {type(self.matrix).__name__}; take "
                "BaseMatrix.of(name, tensor), .exponential(name, tensor) or .affine(name, ...)"
            )
        if bool(pairs) == (self.matrix is not None):
            raise ValueError(
                f"base matrix {self.name!r} needs coefficients of generators or a matrix, one of "
                "the two"
            )
        unknown = [name for name, _ in pairs if name not in FIELDS]
        if unknown or not all(_is_number(value) for _, value in pairs):
            raise ValueError(
                f"base matrix {self.name!r} has the coefficients {dict(pairs)}; they must be "
                f"finite numbers, and the names are {list(FIELDS)}"
            )
        if self.matrix is not None and self.matrix.shape[0] != self.matrix.shape[1]:
            raise ValueError(
                f"base matrix {self.name!r} has the shape {list(self.matrix.shape)}; only square "
                "matrices have powers"
            )

    @classmethod
    def affine(cls, name: str, **coefficients: float) -> BaseMatrix:
        """``exp(sum_i alpha_i D_i)``; rotation in radians, translations in pixels.

        Args:
            name: Name in messages.
            **coefficients: alpha by name of the generator.

        Raises:
            ValueError: As the class.
        """
        return cls(name, tuple(coefficients.items()))

    @classmethod
    def exponential(cls, name: str, generator: Tensor) -> BaseMatrix:
        """``exp(G)`` of a matrix over sites.

        Args:
            name: Name in messages, an identifier.
            generator: G [S, S].

        Raises:
            TypeError: If it is not a tensor.
            ValueError: As the class.
        """
        return cls(name, matrix=FixedGenerator.of(name, generator), exponentiate=True)

    @classmethod
    def of(cls, name: str, matrix: Tensor) -> BaseMatrix:
        """Any matrix A over sites.

        Args:
            name: Name in messages, an identifier.
            matrix: A [S, S].

        Raises:
            TypeError: If it is not a tensor.
            ValueError: As the class.
        """
        return cls(name, matrix=FixedGenerator.of(name, matrix))

    @classmethod
    def step(cls, name: str, size: tuple[int, ...]) -> BaseMatrix:
        """One of `FIELDS`, by the step that moves sites by one pixel (root mean square).

        Args:
            name: Name of the generator.
            size: Spatial size of the maps.

        Raises:
            ValueError: As `AffineGenerator`.
        """
        moves = AffineGenerator(name, size).field().square().sum(-1).mean().sqrt()
        return cls(name, ((name, 1 / float(moves) if moves > 0 else 0.0),))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BaseMatrix:
        """Inverse of `dataclasses.asdict`."""
        return cls(**data)

    @property
    def sites(self) -> int | None:
        """S, or None for one that fits maps of any size."""
        return None if self.matrix is None else self.matrix.shape[0]

    def misfit(self, size: tuple[int, ...]) -> str | None:
        """Why the matrix does not act on maps of a size; None if it does."""
        if self.sites is not None:
            if self.sites == math.prod(size):
                return None
            return (
                f"base matrix {self.name!r} is over {self.sites} sites, but the layer's maps of "
                f"size {size} have {math.prod(size)}"
            )
        try:
            # along an axis of two sites derivatives are zero
            still = not any(
                bool(speed.any()) and n > 2
                for speed, n in zip(self.field(size).unbind(-1), size[::-1], strict=True)
            )
        except ValueError as error:
            return str(error)
        if still and self.shift(size) is None:
            return f"base matrix {self.name!r} moves nothing on maps of size {size}"
        return None

    def shift(self, size: tuple[int, ...]) -> dict[int, int] | None:
        """Pixels along each axis of the map that the matrix shifts by; None if it is no shift."""
        axes = {_AXES.get(name): value for name, value in self.coefficients}
        if self.matrix is not None or None in axes:
            return None
        if not all(float(value).is_integer() for value in axes.values()):
            return None
        return {axis: int(value) for axis, value in axes.items() if axis is not None}

    @property
    def has_generator(self) -> bool:
        """Whether the matrix is the exponential of a known generator."""
        return self.matrix is None or self.exponentiate

    def field(self, size: tuple[int, ...]) -> Tensor:
        """Sum of the vector fields of the coefficients, in pixels, [*size, axes], x first.

        Raises:
            ValueError: As `AffineGenerator`.
        """
        fields = [value * AffineGenerator(name, size).field() for name, value in self.coefficients]
        return torch.stack(fields).sum(0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
