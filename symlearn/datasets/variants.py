"""The paper's variants of an image set: pure functions of the images and a seed.

Section 6.1 places digits in quadrants and asks for the digit, or for the digit and
the quadrant; appendix F.5 translates and rotates. Pixels that an image leaves behind
are 0, the background of unstandardised images, so standardise afterwards. All draws
come from a local generator on the CPU: the same seed gives the same set on every
device, and the global random state is neither read nor changed.

Index letters: N images, C channels, H rows, W columns. Rows count downwards.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from symlearn.datasets.imageset import ImageSet, seeded

_MODES = ("zero", "circular")


def place(images: ImageSet, canvas: int, seed: int) -> tuple[ImageSet, Tensor]:
    """Put each image in the middle of a random quadrant of an empty canvas.

    Quadrants are 0 upper left, 1 upper right, 2 lower left, 3 lower right, each as
    likely. They differ by shifts of exactly canvas/2 pixels.

    Args:
        images: What to place, [N, C, H, W].
        canvas: Side of the square canvas in pixels, even, at least 2H and 2W.
        seed: Determines the quadrants.

    Returns:
        The placed images [N, C, canvas, canvas] with their labels, and the quadrant
        of each, int64 [N].

    Raises:
        ValueError: If the canvas is odd or an image is larger than its half.
    """
    height, width = images.x.shape[-2:]
    half = canvas // 2
    if canvas % 2 or max(height, width) > half:
        raise ValueError(
            f"images of {height}x{width} do not fit a quadrant of a {canvas}x{canvas} "
            f"canvas, {canvas / 2:g}x{canvas / 2:g}; give an even canvas of at least "
            f"{2 * max(height, width)}, or shrink() the images"
        )
    generator = seeded(seed, "place")
    quadrant = torch.randint(4, (len(images),), generator=generator)
    quadrant = quadrant.to(images.x.device)
    top, left = (half - height) // 2, (half - width) // 2
    x = images.x.new_zeros(*images.x.shape[:2], canvas, canvas)
    for q in range(4):
        chosen = quadrant == q
        row, column = top + half * (q // 2), left + half * (q % 2)
        x[chosen, :, row : row + height, column : column + width] = images.x[chosen]
    return replace(images, x=x, name=f"{images.name}-placed"), quadrant


def digit_task(images: ImageSet, seed: int, canvas: int | None = None) -> ImageSet:
    """Return the task that is invariant to translation: name the digit (section 6.1).

    Args:
        images: What to place.
        seed: Determines the quadrants.
        canvas: Side of the canvas; twice that of the images by default.

    Returns:
        The placed images with the labels they had.
    """
    placed, _ = place(images, _canvas(images, canvas), seed)
    return replace(placed, name=f"{images.name}-digit")


def quadrant_task(images: ImageSet, seed: int, canvas: int | None = None) -> ImageSet:
    """Return the task that is not: name the digit and the quadrant (section 6.1).

    The pictures are those of `digit_task` with the same seed; only the labels differ.

    Args:
        images: What to place.
        seed: Determines the quadrants.
        canvas: Side of the canvas; twice that of the images by default.

    Returns:
        The placed images with labels `label + classes * quadrant`: for 10 digits,
        `y % 10` is the digit and `y // 10` the quadrant.
    """
    placed, quadrant = place(images, _canvas(images, canvas), seed)
    return replace(
        placed,
        y=images.y + images.classes * quadrant,
        classes=4 * images.classes,
        name=f"{images.name}-quadrant",
    )


def translated(images: ImageSet, seed: int, *, max_shift: int = 8, mode: str = "zero") -> ImageSet:
    """Shift each image by random whole pixels along both axes (appendix F.5).

    Args:
        images: What to shift.
        seed: Determines the shifts.
        max_shift: Shifts are uniform in -max_shift..max_shift, both ends included.
        mode: "zero" loses what leaves the image, "circular" lets it come back.

    Returns:
        The shifted images with the labels they had.

    Raises:
        ValueError: If max_shift is negative or could shift an image wholly out.
    """
    side = min(images.x.shape[-2:])
    if max_shift < 0 or (mode == "zero" and max_shift >= side):
        raise ValueError(
            f"max_shift {max_shift} for images of side {side}; accepted is "
            f"0..{side - 1}, or more with mode='circular'"
        )
    size = (len(images), 2)
    generator = seeded(seed, "translated")
    shifts = torch.randint(-max_shift, max_shift + 1, size, generator=generator)
    x = shift_images(images.x, shifts, mode)
    return replace(images, x=x, name=f"{images.name}-translated")


def rotated(images: ImageSet, seed: int, *, max_degrees: float = 180.0) -> ImageSet:
    """Rotate each image by a random angle, by default on the full circle (F.5).

    Args:
        images: What to rotate.
        seed: Determines the angles.
        max_degrees: Angles are uniform in [-max_degrees, max_degrees), at most 180.

    Returns:
        The rotated images with the labels they had.

    Raises:
        ValueError: If max_degrees is not in 0..180.
    """
    if not 0 <= max_degrees <= 180:
        raise ValueError(f"max_degrees is {max_degrees}; accepted is 0..180")
    generator = seeded(seed, "rotated")
    unit = torch.rand(len(images), generator=generator, dtype=torch.float64)
    x = rotate_images(images.x, (2 * unit - 1) * max_degrees)
    return replace(images, x=x, name=f"{images.name}-rotated")


def permuted(images: ImageSet, seed: int) -> ImageSet:
    """Rearrange the pixels of all images in one random way: a control.

    No neighbourhood survives, so no translation or rotation is left to find. Give
    the training and the test images the same seed.

    Args:
        images: What to rearrange.
        seed: Determines the permutation, which all channels share.

    Returns:
        The rearranged images with the labels they had.
    """
    pixels = images.x.shape[-2] * images.x.shape[-1]
    order = torch.randperm(pixels, generator=seeded(seed, "permuted"))
    x = images.x.flatten(2)[:, :, order.to(images.x.device)]
    x = x.reshape(images.x.shape)
    return replace(images, x=x, name=f"{images.name}-permuted")


def shrink(images: ImageSet, crop: int, size: int) -> ImageSet:
    """Crop the middle of each image and reduce it by averaging areas.

    `shrink(mnist5k(), 20, 8)` cuts MNIST's empty margin and leaves the size of the
    UCI digits. Where size does not divide crop, neighbouring areas overlap by the
    pixel they share, as in `torch.nn.functional.adaptive_avg_pool2d`.

    Args:
        images: What to reduce, [N, C, H, W].
        crop: Side of the square middle that is kept, at most H and W.
        size: Side of the result, at most crop.

    Returns:
        The reduced images [N, C, size, size] with the labels they had.

    Raises:
        ValueError: If not 1 <= size <= crop <= H, W.
    """
    height, width = images.x.shape[-2:]
    if not 1 <= size <= crop <= min(height, width):
        raise ValueError(
            f"crop {crop} and size {size} for images of {height}x{width}; accepted is "
            f"1 <= size <= crop <= {min(height, width)}"
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    middle = images.x[..., top : top + crop, left : left + crop]
    x = functional.adaptive_avg_pool2d(middle, size)
    return replace(images, x=x, name=f"{images.name}-{size}x{size}")


def shift_images(x: Tensor, shifts: Tensor, mode: str = "zero") -> Tensor:
    """Shift each image by its own whole number of pixels.

    Args:
        x: Images [N, C, H, W].
        shifts: Integers [N, 2], pixels down and pixels right. With "circular", row n
            is `torch.roll(x[n], tuple(shifts[n]), dims=(-2, -1))`.
        mode: "zero" or "circular".

    Returns:
        The shifted images [N, C, H, W].

    Raises:
        ValueError: If the mode or the shifts are not as stated.
    """
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}; accepted are {list(_MODES)}")
    if shifts.shape != (len(x), 2) or shifts.is_floating_point():
        given = f"{shifts.dtype} {list(shifts.shape)}"
        raise ValueError(f"shifts are {given}; accepted are integers [{len(x)}, 2]")
    images, channels, height, width = x.shape
    shifts = shifts.to(x.device)
    # Where pixel (i, j) of image n comes from: rows [N, 1, H, 1], columns [N, 1, 1, W].
    rows = (torch.arange(height, device=x.device) - shifts[:, :1])[:, None, :, None]
    columns = (torch.arange(width, device=x.device) - shifts[:, 1:])[:, None, None, :]
    image = torch.arange(images, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[:, None, None]
    shifted = x[image, channel, rows % height, columns % width]
    if mode == "circular":
        return shifted
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return shifted.masked_fill_(~inside, 0.0)


def rotate_images(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image about its centre by its own angle, bilinearly.

    Args:
        x: Images [N, C, H, W].
        degrees: Angles [N], counter-clockwise as the image is seen; 90 is
            `torch.rot90(x, 1, dims=(-2, -1))` for square images, up to rounding.

    Returns:
        The rotated images [N, C, H, W], 0 where they see past the edge.

    Raises:
        ValueError: If there is not one finite angle per image.
    """
    if degrees.shape != (len(x),) or not bool(torch.isfinite(degrees).all()):
        raise ValueError(
            f"degrees have shape {list(degrees.shape)} or are not finite; accepted is "
            f"one angle per image, [{len(x)}]"
        )
    angle = degrees.to(torch.float64) * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    # The grid runs over -1..1 on both axes, so the aspect ratio undoes the stretch.
    aspect = x.shape[-2] / x.shape[-1]
    zero = torch.zeros_like(cos)
    rows = [cos, -sin * aspect, zero, sin / aspect, cos, zero]
    theta = torch.stack(rows, dim=1).reshape(-1, 2, 3).to(x.device, x.dtype)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _canvas(images: ImageSet, canvas: int | None) -> int:
    """Return the side of a canvas twice the size of the images, unless given."""
    return 2 * max(images.x.shape[-2:]) if canvas is None else canvas
