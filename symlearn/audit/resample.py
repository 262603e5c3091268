"""Reading maps between their sites: interpolation, padding and slopes.

Positions are in pixels: the site in row i and column j is at (i, j), rows are counted downwards,
and the map ends half a pixel beyond its outer sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDINGS = ("reflection", "circular", "zeros")
"""What lies outside a map: its mirror image at the edge, the map again, or zeros."""

_KEYS = -0.5  # Keys' choice: the only cubic kernel of this form that reproduces slopes


@dataclass(frozen=True)
class _Kernel:
    """Weights of the sites around a position.

    Attributes:
        offsets: Sites read, from the one at or before the position.
        weights: Fraction of a pixel past that site -> weights of the offsets.
    """

    offsets: tuple[int, ...]
    weights: Callable[[Tensor], Sequence[Tensor]]


def _linear(f: Tensor) -> tuple[Tensor, ...]:
    return 1 - f, f


def _cubic(f: Tensor) -> tuple[Tensor, ...]:
    def near(s: Tensor) -> Tensor:
        return ((_KEYS + 2) * s - (_KEYS + 3)) * s * s + 1

    def far(s: Tensor) -> Tensor:
        return (((s - 5) * s + 8) * s - 4) * _KEYS

    return far(1 + f), near(f), near(1 - f), far(2 - f)


_KERNELS = {
    "bilinear": _Kernel((0, 1), _linear),
    "bicubic": _Kernel((-1, 0, 1, 2), _cubic),
}
RESAMPLINGS = (*_KERNELS, "fourier")
"""How a map is continued between its sites; "fourier" is exact for band-limited circular maps."""


def check(resampling: str, padding: str) -> None:
    """Check the names of a resampling and a padding.

    Raises:
        ValueError: For an unknown name, or Fourier series of maps that are not circular.
    """
    if resampling not in RESAMPLINGS or padding not in PADDINGS:
        raise ValueError(
            f"got resampling {resampling!r} and padding {padding!r}; the resamplings are "
            f"{list(RESAMPLINGS)}, the paddings {list(PADDINGS)}"
        )
    if resampling == "fourier" and padding != "circular":
        raise ValueError(
            f"a Fourier series is periodic, got padding {padding!r}; take padding='circular'"
        )


def _inside(index: Tensor, size: int, padding: str) -> tuple[Tensor, Tensor | None]:
    """Sites that stand for any integer positions, and which of them count (None for all)."""
    if padding == "circular":
        return index.remainder(size), None
    if padding == "reflection":
        folded = index.remainder(2 * size)
        return torch.minimum(folded, 2 * size - 1 - folded), None
    return index.clamp(0, size - 1), (index >= 0) & (index < size)


def sample(x: Tensor, rows: Tensor, columns: Tensor, resampling: str, padding: str) -> Tensor:
    """Values of maps at given positions.

    Args:
        x: Maps [..., H, W].
        rows: Positions in pixels, [H', W'].
        columns: Positions in pixels, [H', W'].
        resampling: "bilinear" or "bicubic" (Keys, a = -1/2).
        padding: One of `PADDINGS`.

    Returns:
        Values [..., H', W'].
    """
    kernel = _KERNELS[resampling]
    top, left = rows.floor(), columns.floor()
    down = kernel.weights((rows - top).to(x.dtype))
    right = kernel.weights((columns - left).to(x.dtype))
    out = x.new_zeros(*x.shape[:-2], *rows.shape)
    flat = x.flatten(-2)
    for i, by_row in zip(kernel.offsets, down, strict=True):
        row, row_counts = _inside(top.long() + i, x.shape[-2], padding)
        for j, by_column in zip(kernel.offsets, right, strict=True):
            column, column_counts = _inside(left.long() + j, x.shape[-1], padding)
            weight = by_row * by_column
            if row_counts is not None and column_counts is not None:
                weight = weight * (row_counts & column_counts)
            out = out + weight * flat[..., row * x.shape[-1] + column]
    return out


def slopes(x: Tensor, resampling: str, padding: str) -> tuple[Tensor, Tensor]:
    """Derivatives of maps along rows and columns at the sites, per pixel, each [..., H, W].

    Bilinear interpolation has a kink at each site; the mean of the slopes on either side is taken.
    This is a central difference, and Keys' bicubic kernel has the same slope there.

    Args:
        x: Maps [..., H, W].
        resampling: One of `RESAMPLINGS`.
        padding: One of `PADDINGS`.
    """
    slope = _spectral if resampling == "fourier" else _central
    return slope(x, -2, padding), slope(x, -1, padding)


def _central(x: Tensor, axis: int, padding: str) -> Tensor:
    size = x.shape[axis]
    here = torch.arange(size, device=x.device)
    sides = []
    for step in (1, -1):
        index, counts = _inside(here + step, size, padding)
        side = x.index_select(axis, index)
        if counts is not None:
            side = side * (counts if axis == -1 else counts.unsqueeze(-1))
        sides.append(side)
    return (sides[0] - sides[1]) / 2


def _spectral(x: Tensor, axis: int, padding: str) -> Tensor:
    frequency = frequencies(x.shape[axis], x.device)
    return _filtered(x, axis, 2j * torch.pi / x.shape[axis] * frequency)


def frequencies(size: int, device: torch.device | None = None) -> Tensor:
    """Cycles per map of each Fourier mode, [size]; the mode at half the rate has no direction: 0.

    Args:
        size: Sites along the axis.
        device: Device of the result.
    """
    modes: Tensor = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device=device)
    if size % 2 == 0:
        modes[size // 2] = 0
    return modes


def shift_fourier(x: Tensor, rows: float, columns: float) -> Tensor:
    """Move circular maps by any distance, exactly for band-limited maps.

    Args:
        x: Maps [..., H, W].
        rows: Pixels downwards.
        columns: Pixels to the right.
    """
    for axis, distance in ((-2, rows), (-1, columns)):
        size = x.shape[axis]
        angle = 2 * torch.pi * distance / size
        factor = torch.exp(-1j * angle * frequencies(size, x.device))
        if size % 2 == 0:
            # the part of a wave at half the sampling rate that the sites can show
            factor[size // 2] = torch.cos(torch.tensor(torch.pi * distance, dtype=torch.float64))
        x = _filtered(x, axis, factor)
    return x


def shift(x: Tensor, rows: float, columns: float, resampling: str, padding: str) -> Tensor:
    """Move maps by any distance; by whole pixels exactly.

    Args:
        x: Maps [..., H, W].
        rows: Pixels downwards.
        columns: Pixels to the right.
        resampling: One of `RESAMPLINGS`.
        padding: One of `PADDINGS`.
    """
    if resampling == "fourier":
        return shift_fourier(x, rows, columns)
    axes = [
        torch.arange(n, dtype=torch.float64, device=x.device) - d
        for n, d in zip(x.shape[-2:], (rows, columns), strict=True)
    ]
    down, right = torch.meshgrid(*axes, indexing="ij")
    return sample(x, down, right, resampling, padding)


def _filtered(x: Tensor, axis: int, factor: Tensor) -> Tensor:
    """Multiply the Fourier series along an axis by factors."""
    wide = x if x.dtype == torch.float64 else x.float()
    spectrum = torch.fft.fft(wide, dim=axis)
    factor = factor.to(spectrum.dtype)
    factor = factor if axis == -1 else factor.unsqueeze(-1)
    out: Tensor = torch.fft.ifft(spectrum * factor, dim=axis).real.to(x.dtype)
    return out
