"""`ImageSet`: images and their labels, checked once, at construction.

Index letters: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

# A last axis this short is a colour axis, not a row of pixels.
_MOST_COLOURS = 4


def seeded(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator for one purpose, apart from the global state.

    The purpose is mixed into the seed, so that two variants given the same seed
    draw independent numbers: an angle must not follow from a shift.

    Args:
        seed: Any integer.
        purpose: What the numbers are for.

    Returns:
        A fresh generator on the CPU, whatever device the images are on.
    """
    text = f"{purpose}:{operator.index(seed)}".encode()
    state = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(state)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with one label each.

    Attributes:
        x: Images, float32 [N, C, H, W], all finite.
        y: Labels, int64 [N], each in 0..classes-1.
        classes: Number of classes, which may exceed the number that occur.
        name: What the set is called in reports.
    """

    x: Tensor
    y: Tensor
    classes: int
    name: str

    def __post_init__(self) -> None:
        """Check what is declared and name every failure at once.

        Raises:
            ValueError: If shapes, types, values or labels are not as declared.
        """
        if self.x.device != self.y.device:
            problems = [f"x is on {self.x.device} and y on {self.y.device}"]
        else:
            problems = _image_problems(self.x)
            problems += _label_problems(self.y, len(self.x), self.classes)
        if problems:
            raise ValueError(f"image set {self.name!r}: " + "; ".join(problems))

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.x)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The images [N, C, H, W] and the labels [N]."""
        return self.x, self.y

    def subset(self, index: Tensor | Sequence[int]) -> ImageSet:
        """Return the images at an index, in its order.

        Args:
            index: Positions in 0..N-1 [M], or a boolean mask [N].

        Returns:
            The M images chosen, with the same classes and name.

        Raises:
            IndexError: If the index is not one of these.
        """
        where = torch.as_tensor(index, device=self.x.device)
        if where.dtype == torch.bool and where.shape == (len(self),):
            where = where.nonzero().squeeze(1)
        elif where.dtype in (torch.bool, torch.float32, torch.float64):
            raise IndexError(
                f"index is {where.dtype} {list(where.shape)}; give integers [M] or a "
                f"boolean mask [{len(self)}]"
            )
        if where.dim() != 1 or len(where) == 0:
            raise IndexError(f"index has shape {list(where.shape)}; give [M], M >= 1")
        low, high = int(where.min()), int(where.max())
        if low < 0 or high >= len(self):
            raise IndexError(f"index runs {low}..{high}; accepted is 0..{len(self) - 1}")
        where = where.long()
        return replace(self, x=self.x[where], y=self.y[where])

    def split(self, *parts: float, seed: int) -> tuple[ImageSet, ...]:
        """Split into disjoint parts, stratified by class.

        Parts that add up to less than the whole leave the rest out; parts that add
        up to it are complete. Every part, and every beginning of a part, holds the
        classes in proportion.

        Args:
            *parts: All counts (integers) or all fractions of N (floats).
            seed: Determines the split.

        Returns:
            One image set per part.

        Raises:
            ValueError: If the parts are mixed, not positive or exceed the whole.
        """
        edges = _edges(parts, len(self))
        order = _stratified_order(self.y.cpu(), seeded(seed, "split"))
        return tuple(self.subset(order[start:stop]) for start, stop in pairwise(edges))

    def standardised(self, reference: ImageSet | None = None) -> ImageSet:
        """Return the images with zero mean and unit variance (appendix F.5).

        Mean and variance are one number each, over all pixels of the reference;
        give the training part as the reference of the test part. The variants of
        this package fill with 0, so standardise after them.

        Args:
            reference: Where the statistics are taken; these images by default.

        Returns:
            The standardised images.

        Raises:
            ValueError: If all pixels of the reference are equal.
        """
        source = self if reference is None else reference
        variance, mean = torch.var_mean(source.x, correction=0)
        if not float(variance) > 0:
            raise ValueError(
                f"all pixels of {source.name!r} are {float(mean):g}: there is no "
                "variance to divide by"
            )
        device = self.x.device
        return replace(self, x=(self.x - mean.to(device)) / variance.sqrt().to(device))


def from_arrays(
    x: Array | Tensor,
    y: Array | Tensor | Sequence[int],
    *,
    classes: int | None = None,
    name: str = "arrays",
) -> ImageSet:
    """Make an image set of your own arrays; they are copied.

    Args:
        x: uint8 [N, H, W, C] or [N, H, W], divided by 255; or floating
            [N, C, H, W] or [N, H, W], kept as it is.
        y: Integer labels [N] that start at 0.
        classes: Number of classes; by default the largest label plus one, and then
            every class must occur.
        name: What to call the set.

    Returns:
        The image set, on the device of x (the CPU for numpy).

    Raises:
        ValueError: If an array is none of these, not finite or out of range.
    """
    images = _to_images(_to_tensor(x, "x"))
    labels = _to_tensor(y, "y")
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    if labels.dim() != 1 or len(labels) == 0 or not whole:
        raise ValueError(
            f"y is {labels.dtype} {list(labels.shape)}; accepted are integer labels [N]"
        )
    labels = labels.to(device=images.device, dtype=torch.int64, copy=True)
    if classes is None:
        classes = int(labels.max()) + 1
        absent = sorted(set(range(classes)) - set(labels.tolist()))
        if absent:
            raise ValueError(
                f"labels run {int(labels.min())}..{classes - 1} and "
                f"{absent[:10]} never occur; labels start at 0: renumber them, or "
                "give classes= if those classes are only absent here"
            )
    return ImageSet(images, labels, classes, name)


def _image_problems(x: Tensor) -> list[str]:
    """List what is wrong with x, which should be finite float32 [N, C, H, W]."""
    shape = list(x.shape)
    if x.dim() != 4 or x.numel() == 0:
        return [f"x has shape {shape}; accepted is [N, C, H, W], none of them 0"]
    if x.dtype != torch.float32:
        return [f"x is {x.dtype}; accepted is torch.float32"]
    # aminmax propagates NaN, so it sees every value without a mask of N*C*H*W.
    low, high = torch.aminmax(x)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        bad = (~torch.isfinite(x)).flatten(1).any(dim=1).nonzero().flatten()
        return [f"{len(bad)} images hold NaN or inf, first at {bad[:5].tolist()}"]
    return []


def _label_problems(y: Tensor, images: int, classes: int) -> list[str]:
    """List what is wrong with y, which should be int64 [N] in 0..classes-1."""
    if y.dtype != torch.int64 or y.shape != (images,):
        given = f"{y.dtype} {list(y.shape)}"
        return [f"y is {given}; accepted is torch.int64 [{images}], one per image"]
    if images == 0:
        return []
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        return [f"labels run {low}..{high}; accepted is 0..{classes - 1}"]
    return []


def _to_tensor(values: Array | Tensor | Sequence[int], what: str) -> Tensor:
    """Return a detached tensor of the values."""
    if isinstance(values, Tensor):
        return values.detach()
    # A copy, because torch takes neither negative strides nor read-only memory.
    array = np.array(values)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{what} holds {array.dtype}; accepted are numbers")
    return torch.from_numpy(array)


def _to_images(x: Tensor) -> Tensor:
    """Return a copy, float32 [N, C, H, W], of any layout `from_arrays` accepts."""
    accepted = "uint8 [N, H, W, C] or [N, H, W], or floating [N, C, H, W] or [N, H, W]"
    given = f"x is {x.dtype} {list(x.shape)}"
    if x.dim() not in (3, 4) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"{given}; accepted is {accepted}")
    if x.dim() == 3:
        x = x.unsqueeze(1)
    elif x.dtype == torch.uint8:
        if x.shape[-1] > _MOST_COLOURS:
            raise ValueError(
                f"{given}, {x.shape[-1]} colours; accepted is {accepted}: for "
                "[N, C, H, W] bytes give x / 255"
            )
        x = x.permute(0, 3, 1, 2)
    elif x.shape[1] > _MOST_COLOURS >= x.shape[-1]:
        raise ValueError(
            f"{given}, which looks like [N, H, W, C]; accepted is {accepted}: put the "
            "channels second, or build ImageSet yourself if it is right"
        )
    scale = 255 if x.dtype == torch.uint8 else 1
    # The division copies, so x is never shared with the caller.
    return x.float().contiguous() / scale


def _edges(parts: Sequence[float], total: int) -> list[int]:
    """Return where the parts begin and end, [0, ..., at most total]."""
    counts = all(isinstance(part, Integral) for part in parts)
    mixed = not counts and any(isinstance(part, Integral) for part in parts)
    # Fractions such as 0.7, 0.2, 0.1 add up to 1 only up to rounding.
    whole = total if counts else 1 + 1e-9
    if not parts or mixed or not all(part > 0 for part in parts) or sum(parts) > whole:
        raise ValueError(
            f"parts {list(parts)} of {total} images; accepted are counts (integers) "
            f"that add up to at most {total}, or fractions (floats) that add up to at "
            "most 1, all positive"
        )
    sums = np.cumsum([0, *parts])
    edges = [int(edge) for edge in (sums if counts else np.rint(sums * total))]
    if any(start == stop for start, stop in pairwise(edges)):
        raise ValueError(f"parts {list(parts)} of {total} images leave a part empty")
    return edges


def _stratified_order(y: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random order [N] of which every stretch holds the classes evenly.

    Each image is put at its quantile within its own class; ties are in random order.
    """
    shuffled = torch.randperm(len(y), generator=generator)
    quantile = torch.empty(len(y), dtype=torch.float64)
    for label in y.unique():
        where = (y[shuffled] == label).nonzero().squeeze(1)
        ranks = torch.arange(len(where), dtype=torch.float64)
        quantile[where] = (ranks + 0.5) / len(where)
    return shuffled[torch.argsort(quantile, stable=True)]
