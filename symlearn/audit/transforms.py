"""One-parameter groups of image transformations, and their generators.

``act(x, t)`` is the group element at parameter t, ``generator(x)`` its derivative at t = 0. Both
work on the last two axes. A spatial transformation moves the content of an image along a vector
field Y: ``act(x, t)(p) = x(Phi^{-t}(p))`` with the flow Phi of Y, so that
``generator(x) = -Y . grad x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from symlearn.audit import resample

Matrix = tuple[tuple[float, float], tuple[float, float]]
_ZERO: Matrix = ((0.0, 0.0), (0.0, 0.0))


class Transformation(ABC):
    """A one-parameter group that acts on maps [..., H, W].

    Attributes:
        name: Name in tables.
        unit: What a parameter of one means.
        spatial: Whether it moves content; feature maps then follow the image. Otherwise it changes
            values of the image, and feature maps need not follow.
    """

    name: str
    unit: str
    spatial: ClassVar[bool]

    @abstractmethod
    def act(self, x: Tensor, t: float) -> Tensor:
        """The group element at parameter t, applied to maps [..., H, W]."""

    @abstractmethod
    def generator(self, x: Tensor) -> Tensor:
        """Derivative of `act` at t = 0, linear or affine in the maps, [..., H, W]."""


@dataclass(frozen=True)
class Affine(Transformation):
    """The flow of the vector field ``Y(p) = M p + b`` over an image plane.

    Coordinates p = (x, y) are in pixels from the centre of the map, x to the right and y downwards;
    a feature map has its own pixels, and its edges are the image's.

    Args:
        name: Name in tables.
        matrix: M, rows (x, y).
        shift: b = (x, y), in widths and heights of the map.
        unit: What a parameter of one means.
        resampling: "bilinear", "bicubic", or "fourier" (whose group elements are translations
            only; its generators are exact for all fields).
        padding: "reflection" (at the edge), "circular" or "zeros".

    Raises:
        ValueError: For an unknown resampling or padding.

    Example:
        >>> import torch
        >>> from symlearn.audit.transforms import TRANSFORMATIONS
        >>> ramp = torch.arange(5.0).expand(5, 5)
        >>> TRANSFORMATIONS["translation_x"].generator(ramp)[2, 1:4]
        tensor([-5., -5., -5.])
    """

    name: str
    matrix: Matrix = _ZERO
    shift: tuple[float, float] = (0.0, 0.0)
    unit: str = "1"
    resampling: str = "bilinear"
    padding: str = "reflection"
    spatial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        resample.check(self.resampling, self.padding)

    def _positions(self, x: Tensor) -> Tensor:
        """Coordinates (x, y) of the sites from the centre, [H, W, 2] in float64."""
        axes = [
            torch.arange(n, dtype=torch.float64, device=x.device) - (n - 1) / 2
            for n in x.shape[-2:]
        ]
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([columns, rows], -1)

    def field(self, x: Tensor) -> Tensor:
        """The vector field Y at the sites of maps [..., H, W], in pixels, [H, W, 2] as (x, y)."""
        matrix = torch.tensor(self.matrix, dtype=torch.float64, device=x.device)
        return self._positions(x) @ matrix.T + self._offset(x)

    def _offset(self, x: Tensor) -> Tensor:
        """The constant part b of the field, in pixels of the map."""
        height, width = x.shape[-2:]
        b = [self.shift[0] * width, self.shift[1] * height]
        return torch.tensor(b, dtype=torch.float64, device=x.device)

    def generator(self, x: Tensor) -> Tensor:
        """``-Y . grad x``, [..., H, W]."""
        out = torch.zeros_like(x)
        y = self.field(x).to(x.dtype)
        for slope, speed in zip(
            resample.slopes(x, self.resampling, self.padding), (y[..., 1], y[..., 0]), strict=True
        ):
            out = out - speed * slope
        return out

    def act(self, x: Tensor, t: float) -> Tensor:
        """Move the content of maps [..., H, W] along the flow for a time t.

        Raises:
            ValueError: With Fourier resampling, if the transformation is not a translation.
        """
        if self.resampling == "fourier":
            if self.matrix != _ZERO:
                raise ValueError(
                    f"{self.name}: Fourier series move maps by translations only; take "
                    "resampling='bilinear' or 'bicubic' for finite transformations"
                )
            right, down = (t * self._offset(x)).tolist()
            return resample.shift_fourier(x, down, right)
        height, width = x.shape[-2:]
        back = self._backward_flow(x, t)
        columns, rows = back[..., 0] + (width - 1) / 2, back[..., 1] + (height - 1) / 2
        return resample.sample(x, _settled(rows), _settled(columns), self.resampling, self.padding)

    def _backward_flow(self, x: Tensor, t: float) -> Tensor:
        """``Phi^{-t}`` of the sites, [H, W, 2]: the exponential of the homogeneous field."""
        field = torch.zeros(3, 3, dtype=torch.float64, device=x.device)
        field[:2, :2] = torch.tensor(self.matrix)
        field[:2, 2] = self._offset(x)
        flow = torch.linalg.matrix_exp(-t * field)
        back: Tensor = self._positions(x) @ flow[:2, :2].T + flow[:2, 2]
        return back


def _settled(positions: Tensor) -> Tensor:
    """Positions within rounding error of a site moved onto it."""
    nearest = positions.round()
    return torch.where((positions - nearest).abs() < 1e-9, nearest, positions)


@dataclass(frozen=True)
class Brightness(Transformation):
    """Adds t to all values: ``x + t``."""

    name: str = "brightness"
    unit: str = "one unit of the input added"
    spatial: ClassVar[bool] = False

    def act(self, x: Tensor, t: float) -> Tensor:
        """``x + t``."""
        return x + t

    def generator(self, x: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(x)


@dataclass(frozen=True)
class Contrast(Transformation):
    """Stretches values about the mean of each channel: ``m + e^t (x - m)``."""

    name: str = "contrast"
    unit: str = "e-fold stretch about a channel's mean"
    spatial: ClassVar[bool] = False

    def act(self, x: Tensor, t: float) -> Tensor:
        """``m + e^t (x - m)``."""
        mean = x.mean((-2, -1), keepdim=True)
        return mean + torch.tensor(t, dtype=torch.float64).exp().to(x) * (x - mean)

    def generator(self, x: Tensor) -> Tensor:
        """``x - m``."""
        return x - x.mean((-2, -1), keepdim=True)


TRANSFORMATIONS: dict[str, Transformation] = {
    t.name: t
    for t in (
        Affine("translation_x", shift=(1.0, 0.0), unit="width of the image"),
        Affine("translation_y", shift=(0.0, 1.0), unit="height of the image"),
        # against the clock, as in symlearn.groups: what is on the right moves up
        Affine("rotation", ((0.0, 1.0), (-1.0, 0.0)), unit="radian"),
        Affine("scaling", ((1.0, 0.0), (0.0, 1.0)), unit="e-fold enlargement"),
        Affine("shear", ((0.0, 1.0), (0.0, 0.0)), unit="tangent of the angle"),
        Affine("stretch", ((1.0, 0.0), (0.0, 0.0)), unit="e-fold enlargement of the width"),
        Affine("hyperbolic", ((1.0, 0.0), (0.0, -1.0)), unit="e-fold exchange of height for width"),
        Brightness(),
        Contrast(),
    )
}
"""The ready transformations by name."""


def as_transformations(
    transforms: str | Transformation | Iterable[str | Transformation],
    resampling: str = "bilinear",
    padding: str = "reflection",
) -> tuple[Transformation, ...]:
    """Turn names and objects into transformations; objects keep their own resampling.

    Args:
        transforms: Names, or `Transformation` objects, or a mixture.
        resampling: Resampling of those given by name.
        padding: Padding of those given by name.

    Raises:
        ValueError: For an unknown name, resampling or padding, a name given twice, or none at all.
        TypeError: For something that is neither a name nor a transformation.
    """
    single = isinstance(transforms, (str, Transformation)) or not isinstance(transforms, Iterable)
    given: tuple[Any, ...] = (transforms,) if single else tuple(transforms)  # type: ignore[arg-type]
    wrong = [t for t in given if not isinstance(t, (str, Transformation))]
    if wrong:
        raise TypeError(f"transforms must be names or Transformation objects, got {wrong}")
    unknown = [t for t in given if isinstance(t, str) and t not in TRANSFORMATIONS]
    if unknown:
        raise ValueError(
            f"unknown transformations {unknown}; the names are {list(TRANSFORMATIONS)}"
        )
    found = []
    for t in given:
        known = TRANSFORMATIONS[t] if isinstance(t, str) else t
        if isinstance(t, str) and isinstance(known, Affine):
            known = replace(known, resampling=resampling, padding=padding)
        found.append(known)
    names = [t.name for t in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"give at least one transformation and no name twice, got {names}")
    return tuple(found)
