"""Laws of image sets: what is checked, how they split and standardise, users' arrays."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from symlearn import datasets
from symlearn.datasets import ImageSet
from tests.datasets.made import numbered, numbers

pytestmark = pytest.mark.core


def test_an_image_set_has_a_length_and_a_pair_and_is_no_sequence() -> None:
    images = numbered(5)
    assert len(images) == 5
    assert images.pair[0] is images.x
    assert images.pair[1] is images.y
    with pytest.raises(TypeError):
        iter(images)  # type: ignore[call-overload]
    with pytest.raises(AttributeError):
        images.name = "other"  # type: ignore[misc]


def test_every_failure_of_an_image_set_is_named_at_once() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[1, 0, 1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"1 images hold NaN or inf, first at \[1\]; labels run"):
        ImageSet(x, torch.tensor([0, 1, 2]), 2, "bad")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2).long(), r"accepted is \[N, C, H, W\]"),
        (torch.zeros(0, 1, 3, 3), torch.zeros(0).long(), "none of them 0"),
        (torch.zeros(2, 1, 3, 3).double(), torch.zeros(2).long(), "x is torch.float64"),
        (torch.full((2, 1, 3, 3), torch.inf), torch.zeros(2).long(), "2 images hold NaN or inf"),
        (torch.full((2, 1, 3, 3), -torch.inf), torch.zeros(2).long(), "2 images hold NaN or inf"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(3).long(), r"y is torch.int64 \[3\]"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2), "y is torch.float32"),
        (torch.zeros(2, 1, 3, 3), torch.tensor([-1, 0]), r"labels run -1\.\.0"),
        (torch.zeros(2, 1, 3, 3), torch.tensor([0, 2]), r"accepted is 0\.\.1"),
    ],
)
def test_a_wrong_image_set_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSet(x, y, 2, "bad")


def test_images_and_labels_on_two_devices_are_refused() -> None:
    y = torch.zeros(2, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="x is on cpu and y on meta"):
        ImageSet(torch.zeros(2, 1, 2, 2), y, 1, "two")


def test_subset_takes_positions_or_a_mask() -> None:
    images = numbered(6)
    assert numbers(images.subset([4, 1, 1])) == [4, 1, 1]
    assert numbers(images.subset(torch.tensor([2, 0]))) == [2, 0]
    assert numbers(images.subset(images.y >= 4)) == [4, 5]


@pytest.mark.parametrize(
    "index",
    [[-1], [6], [], [[0, 1]], [0.5], torch.tensor([True]), torch.zeros(6, dtype=torch.bool)],
)
def test_a_wrong_index_is_refused(index: list[int]) -> None:
    with pytest.raises(IndexError, match="index"):
        numbered(6).subset(index)


@pytest.mark.parametrize("parts", [(0.5, 0.5), (0.7, 0.2, 0.1), (1000, 700, 97), (100, 200)])
def test_a_split_is_disjoint_stratified_and_of_the_size_asked(parts: tuple[float, ...]) -> None:
    n = 1797
    images = numbered(n)
    split = images.split(*parts, seed=3)
    sizes = [part if isinstance(part, int) else round(part * n) for part in parts]
    assert all(abs(len(part) - size) <= 1 for part, size in zip(split, sizes, strict=True))
    taken = [number for part in split for number in numbers(part)]
    assert len(taken) == len(set(taken)) == sum(map(len, split))
    if sum(parts) in (1, n):
        assert sorted(taken) == list(range(n))
    for part in split:
        assert torch.equal(part.y, torch.tensor(numbers(part)) % 10)
        expected = images.y.bincount() * len(part) / n
        assert (part.y.bincount(minlength=10) - expected).abs().max() <= 1


def test_a_sorted_set_is_shuffled_by_a_split() -> None:
    images = ImageSet(torch.rand(100, 1, 2, 2), torch.arange(10).repeat_interleave(10), 10, "s")
    (part,) = images.split(1.0, seed=0)
    assert not torch.equal(part.y, images.y)
    assert part.y[:50].bincount().tolist() == [5] * 10


def test_a_split_keeps_a_rare_class_in_both_halves() -> None:
    y = torch.zeros(1000, dtype=torch.int64)
    y[:2] = 1
    for seed in range(10):
        halves = ImageSet(torch.rand(1000, 1, 1, 1), y, 2, "rare").split(0.5, 0.5, seed=seed)
        assert [int((half.y == 1).sum()) for half in halves] == [1, 1]


def test_a_split_depends_on_its_seed_alone() -> None:
    images = numbered(200)
    first, again, other = (numbers(images.split(100, seed=seed)[0]) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "parts",
    [(), (0.5, 100), (150, 51), (0.6, 0.5), (0, 100), (-0.1, 0.5), (float("nan"),), (0.001, 0.5)],
)
def test_a_wrong_split_is_refused(parts: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="of 200 images"):
        numbered(200).split(*parts, seed=0)


def test_standardised_uses_the_statistics_of_its_reference() -> None:
    train, test = numbered(300, channels=3).split(200, 100, seed=0)
    own = train.standardised().x.double()
    assert abs(float(own.mean())) <= 1e-6
    assert abs(float(own.var(correction=0)) - 1) <= 1e-5
    mean, std = train.x.double().mean(), train.x.double().std(correction=0)
    expected = ((test.x.double() - mean) / std).float()
    torch.testing.assert_close(test.standardised(train).x, expected)
    assert abs(float(test.standardised(train).x.mean())) > 1e-3


def test_constant_images_have_no_variance_to_divide_by() -> None:
    images = ImageSet(torch.full((4, 1, 2, 2), 0.3), torch.zeros(4).long(), 1, "flat")
    with pytest.raises(ValueError, match="all pixels of 'flat' are 0.3"):
        images.standardised()


# A user's own arrays


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_from_arrays_reads_bytes_hwc_and_floats_chw(convert: Callable[..., np.ndarray]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    y = [0, 1, 2, 0, 1, 2]
    floats = pixels.transpose(0, 3, 1, 2).astype(np.float64) / 255
    one, two = (datasets.from_arrays(convert(x), convert(y)) for x in (pixels, floats))
    assert one.x.shape == (6, 3, 5, 4)
    assert one.classes == 3
    torch.testing.assert_close(one.x, two.x)
    assert datasets.from_arrays(convert(pixels[..., 0]), y).x.shape == (6, 1, 5, 4)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_from_arrays_copies(convert: Callable[..., np.ndarray]) -> None:
    x, y = convert(np.zeros((3, 1, 2, 2), np.float32)), convert(np.array([0, 1, 1]))
    images = datasets.from_arrays(x, y)
    x += 1
    y += 7
    assert float(images.x.abs().max()) == 0
    assert images.y.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], "8 colours.*for .N, C, H, W. bytes give"),
        (np.zeros((2, 8, 8, 3)), [0, 1], "looks like .N, H, W, C."),
        (np.zeros((2, 8, 8), np.int64), [0, 1], "x is torch.int64"),
        (np.zeros((2, 8)), [0, 1], r"x is torch.float64 \[2, 8\]"),
        (np.full((2, 8, 8), np.nan), [0, 1], "2 images hold NaN"),
        (np.full((2, 8, 8), 1e300), [0, 1], "2 images hold NaN or inf"),
        (np.zeros((2, 8, 8)), [0.0, 1.0], "accepted are integer labels"),
        (np.zeros((2, 8, 8)), [True, False], "accepted are integer labels"),
        (np.zeros((2, 8, 8)), ["cat", "dog"], "accepted are numbers"),
        (np.zeros((2, 8, 8)), [[0], [1]], "accepted are integer labels"),
        (np.zeros((2, 8, 8)), [0, 1, 1], r"accepted is torch.int64 \[2\]"),
        (np.zeros((2, 8, 8)), [1, 2], r"\[0\] never occur; labels start at 0"),
        (np.zeros((2, 8, 8)), [-1, 0], r"labels run -1\.\.0"),
    ],
)
def test_from_arrays_refuses_what_it_would_misread(
    x: np.ndarray, y: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.from_arrays(x, y)


def test_from_arrays_reads_flipped_and_read_only_memory() -> None:
    x = np.random.default_rng(0).random((4, 1, 3, 5)).astype(np.float32)
    x.setflags(write=False)
    images = datasets.from_arrays(x[..., ::-1], np.array([3, 2, 1, 0])[::-1])
    assert torch.equal(images.x, torch.tensor(x.copy()).flip(-1))
    assert images.y.tolist() == [0, 1, 2, 3]


def test_from_arrays_takes_an_absent_class_when_told_so() -> None:
    images = datasets.from_arrays(np.zeros((2, 8, 8)), np.array([1, 2], np.uint16), classes=10)
    assert (images.classes, images.y.tolist()) == (10, [1, 2])
