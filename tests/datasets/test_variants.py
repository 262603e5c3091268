"""Laws of the variants: what each may change, and what is uniform and independent."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from symlearn import datasets
from symlearn.datasets import ImageSet
from symlearn.datasets.imageset import seeded
from tests.datasets.made import dots, numbered

pytestmark = pytest.mark.core

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
VARIANTS: dict[str, Callable[[ImageSet, int], ImageSet]] = {
    "place": lambda images, seed: datasets.place(images, 24, seed)[0],
    "digit_task": datasets.digit_task,
    "quadrant_task": datasets.quadrant_task,
    "translated": lambda images, seed: datasets.translated(images, seed, max_shift=3),
    "circular": lambda images, seed: datasets.translated(images, seed, mode="circular"),
    "rotated": datasets.rotated,
    "permuted": datasets.permuted,
}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return datasets.digits()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("device", DEVICES)
def test_a_variant_is_a_pure_function_of_images_and_seed(name: str, device: str) -> None:
    images = numbered(40, size=12, channels=2)
    here = ImageSet(images.x.to(device), images.y.to(device), images.classes, images.name)
    state = torch.get_rng_state()
    first, again, other = (VARIANTS[name](here, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(here.x.cpu(), images.x)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)
    assert first.x.device == first.y.device == here.x.device
    reference = VARIANTS[name](images, 5)
    torch.testing.assert_close(first.x.cpu(), reference.x, rtol=1e-4, atol=1e-3)
    assert torch.equal(first.y.cpu(), reference.y)
    assert first.name.startswith("numbered-")


def test_place_puts_the_image_in_its_quadrant_and_nothing_elsewhere(digits: ImageSet) -> None:
    placed, quadrant = datasets.place(digits, 20, seed=0)
    assert placed.x.shape == (1797, 1, 20, 20)
    assert torch.equal(placed.y, digits.y)
    for x, q, original in zip(placed.x, quadrant.tolist(), digits.x, strict=True):
        row, column = 10 * (q // 2), 10 * (q % 2)
        corner = x[:, row : row + 10, column : column + 10]
        assert torch.equal(corner[:, 1:9, 1:9], original)
        assert float(x.sum()) == pytest.approx(float(original.sum()))


def test_the_quadrants_are_uniform_and_independent_of_the_label() -> None:
    images = numbered(8000)
    _, quadrant = datasets.place(images, 16, seed=0)
    # Four standard errors of a count with probability 1/4; a fixed seed, so no flakes.
    assert (quadrant.bincount() - 2000).abs().max() <= 4 * (8000 * 3 / 16) ** 0.5
    table = (images.y * 4 + quadrant).bincount(minlength=40)
    assert (table - 200).abs().max() <= 4 * 200**0.5


def test_both_tasks_share_their_pictures_and_only_the_labels_differ(digits: ImageSet) -> None:
    digit, both = datasets.digit_task(digits, 7), datasets.quadrant_task(digits, 7)
    placed, quadrant = datasets.place(digits, 16, 7)
    assert torch.equal(digit.x, both.x)
    assert torch.equal(digit.x, placed.x)
    assert (digit.classes, both.classes) == (10, 40)
    assert torch.equal(digit.y, digits.y)
    assert torch.equal(both.y % 10, digits.y)
    assert torch.equal(both.y // 10, quadrant)
    assert len(both.y.unique()) == 40
    assert not torch.equal(both.x, datasets.quadrant_task(digits, 8).x)
    assert datasets.digit_task(digits, 7, canvas=32).x.shape[-1] == 32


def test_moving_to_another_quadrant_is_a_circular_shift_by_half_the_canvas() -> None:
    images = ImageSet(torch.rand(1, 1, 8, 8).expand(64, -1, -1, -1), torch.zeros(64).long(), 1, "")
    placed, quadrant = datasets.place(images, 22, seed=0)
    back = torch.stack([-11 * (quadrant // 2), -11 * (quadrant % 2)], dim=1)
    home = datasets.shift_images(placed.x, back, "circular")
    assert torch.equal(home, home[:1].expand_as(home))
    assert not torch.equal(placed.x, home)


@pytest.mark.parametrize("canvas", [14, 15, 17])
def test_an_image_larger_than_half_the_canvas_is_refused(canvas: int) -> None:
    message = rf"images of 8x8 do not fit a quadrant of a {canvas}x{canvas} canvas.*at least 16"
    with pytest.raises(ValueError, match=message):
        datasets.place(numbered(3), canvas, 0)


def shifts_of(images: ImageSet) -> Tensor:
    """Where the dots went, [N, 2]."""
    size = images.x.shape[-1]
    flat = images.x.flatten(1).argmax(dim=1)
    return torch.stack([flat // size, flat % size], dim=1) - size // 2


def test_translations_are_uniform_on_both_axes_with_both_ends() -> None:
    shifts = shifts_of(datasets.translated(dots(17000), seed=0))
    for axis in shifts.T:
        counts = (axis + 8).bincount()
        assert len(counts) == 17
        assert (counts - 1000).abs().max() <= 4 * 1000**0.5
    assert abs(float(torch.corrcoef(shifts.T.double())[0, 1])) <= 4 / 17000**0.5


def test_one_seed_gives_each_purpose_its_own_stream() -> None:
    shift, again, angle = (
        torch.rand(4000, generator=seeded(0, purpose)) for purpose in ("shift", "shift", "angle")
    )
    assert torch.equal(shift, again)
    assert abs(float(torch.corrcoef(torch.stack([shift, angle]))[0, 1])) <= 4 / 4000**0.5
    with pytest.raises(TypeError, match="float"):
        seeded(0.5, "shift")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["circular", "zero"])
def test_translations_obey_roll_or_its_zero_padded_kin(mode: str) -> None:
    images = numbered(30, size=9, channels=2)
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(-9, 10, (30, 2), generator=generator)
    moved = datasets.shift_images(images.x, shifts, mode)
    for x, (down, right), result in zip(images.x, shifts.tolist(), moved, strict=True):
        rolled = torch.roll(x, (down, right), dims=(-2, -1))
        padded = pad(x, (9, 9, 9, 9))[:, 9 - down : 18 - down, 9 - right : 18 - right]
        assert torch.equal(result, rolled if mode == "circular" else padded)


def test_a_shift_that_could_lose_the_image_is_refused(digits: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"max_shift 8 for images of side 8; accepted is 0\.\.7"):
        datasets.translated(digits, 0)
    with pytest.raises(ValueError, match="max_shift -1"):
        datasets.translated(digits, 0, max_shift=-1, mode="circular")
    with pytest.raises(ValueError, match="mode is 'wrap'; accepted are .'zero', 'circular'"):
        datasets.translated(digits, 0, max_shift=1, mode="wrap")
    with pytest.raises(ValueError, match=r"accepted are integers \[3, 2\]"):
        datasets.shift_images(digits.x[:3], torch.zeros(3, 2))


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [8, 9])
def test_quarter_turns_are_those_of_rot90(turns: int, size: int) -> None:
    x = torch.rand(5, 3, size, size)
    turned = datasets.rotate_images(x, torch.full((5,), 90.0 * turns))
    torch.testing.assert_close(turned, torch.rot90(x, turns, (-2, -1)), rtol=0, atol=1e-5)


def test_half_turns_of_oblong_images_and_no_stretch_in_between() -> None:
    x = torch.rand(2, 1, 6, 10)
    half = datasets.rotate_images(x, torch.full((2,), 180.0))
    torch.testing.assert_close(half, x.flip(-1, -2), rtol=0, atol=1e-5)
    row = torch.zeros(1, 1, 21, 41)
    row[:, :, 10, 12:29] = 1
    quarter = datasets.rotate_images(row, torch.tensor([90.0]))
    expected = torch.zeros_like(row)
    expected[:, :, 2:19, 20] = 1
    torch.testing.assert_close(quarter, expected, rtol=0, atol=1e-5)


def test_each_image_turns_by_its_own_angle_and_back() -> None:
    axis = torch.linspace(-2, 2, 33)
    bump = torch.exp(-((axis[:, None] - 0.4) ** 2 + axis[None] ** 2))
    x = bump.expand(12, 1, 33, 33)
    angles = torch.arange(12) * 30.0
    there = datasets.rotate_images(x, angles)
    assert float((there[0] - there[1]).abs().max()) > 0.1
    back = datasets.rotate_images(there, -angles)
    inner = (..., slice(8, 25), slice(8, 25))
    torch.testing.assert_close(back[inner], x[inner], rtol=0, atol=0.02)


def test_rotations_are_uniform_on_the_full_circle() -> None:
    images = dots(4000, size=33)
    images.x[:, :, 16, 16] = 0
    images.x[:, :, 15:18, 27:30] = 1
    x = datasets.rotated(images, seed=0).x[:, 0]
    axis = torch.arange(33.0) - 16
    mass = x.sum((1, 2))
    angle = torch.atan2(-(x.sum(2) @ axis) / mass, (x.sum(1) @ axis) / mass)
    counts = torch.histc(angle, 12, -torch.pi, torch.pi)
    assert (counts - 4000 / 12).abs().max() <= 4 * (4000 / 12) ** 0.5
    limited = datasets.rotated(images, seed=0, max_degrees=0)
    torch.testing.assert_close(limited.x, images.x, rtol=0, atol=1e-5)


def test_a_wrong_angle_is_refused() -> None:
    images = numbered(3)
    with pytest.raises(ValueError, match=r"max_degrees is 181; accepted is 0\.\.180"):
        datasets.rotated(images, 0, max_degrees=181)
    for degrees in (torch.zeros(2), torch.full((3,), torch.nan)):
        with pytest.raises(ValueError, match="one angle per image"):
            datasets.rotate_images(images.x, degrees)


def test_permuted_moves_every_image_and_channel_alike_and_loses_nothing() -> None:
    images = numbered(20, channels=3)
    mixed = datasets.permuted(images, seed=0)
    ramp = ImageSet(torch.arange(64.0).expand(1, 1, 64).reshape(1, 1, 8, 8), images.y[:1], 10, "r")
    order = datasets.permuted(ramp, seed=0).x.flatten().long()
    assert sorted(order.tolist()) == list(range(64))
    assert order.tolist() != list(range(64))
    assert torch.equal(mixed.x.flatten(2), images.x.flatten(2)[:, :, order])


def test_shrink_averages_the_middle() -> None:
    images = numbered(4, size=28)
    small = datasets.shrink(images, 20, 5)
    blocks = images.x[..., 4:24, 4:24].unflatten(-1, (5, 4)).unflatten(-3, (5, 4))
    torch.testing.assert_close(small.x, blocks.mean((-1, -3)))
    flat = ImageSet(torch.full((1, 1, 28, 28), 0.7), torch.zeros(1).long(), 1, "flat")
    torch.testing.assert_close(datasets.shrink(flat, 20, 8).x, torch.full((1, 1, 8, 8), 0.7))
    assert datasets.quadrant_task(datasets.shrink(images, 20, 8), 0).x.shape == (4, 1, 16, 16)
    assert torch.equal(datasets.shrink(images, 28, 28).x, images.x)


@pytest.mark.parametrize(("crop", "size"), [(29, 8), (8, 20), (20, 0)])
def test_a_crop_that_does_not_fit_is_refused(crop: int, size: int) -> None:
    with pytest.raises(ValueError, match="accepted is 1 <= size <= crop <= 28"):
        datasets.shrink(numbered(2, size=28), crop, size)
