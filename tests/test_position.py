"""Positions of images: they move with the image, for every shift."""

from __future__ import annotations

import math

import pytest
import torch

from symlearn.position import centroid, locate
from tests.shifts import all_shifts, shifted, stress_images

pytestmark = pytest.mark.core
D = torch.float64
SIZES = [(8, 8), (16, 16), (9, 7), (6, 12), (24,), (15,), (4, 4, 4)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_move_with_the_image(size: tuple[int, ...], channels: int) -> None:
    """Moving every image's position to the origin gives the same picture for all its shifts."""
    for name, image in stress_images(size, channels).items():
        shifts = list(all_shifts(size))
        batch = torch.cat([shifted(image, by) for by in shifts])
        for offset in (0.0, 0.5, 0.123):
            where = locate(batch, offset)
            home = shifted(image, tuple((-where[0]).tolist()))
            for y, q in zip(batch.split(1), where.tolist(), strict=True):
                error = (shifted(y, tuple(-i for i in q)) - home).abs().max()
                assert error <= 1e-12, name


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_of_noise_are_counted_in_pixels(size: tuple[int, ...]) -> None:
    image = stress_images(size)["noise"]
    start = locate(image)[0]
    for by in all_shifts(size):
        expected = (start + torch.tensor(by)) % torch.tensor(size)
        assert torch.equal(locate(shifted(image, by))[0], expected)


def test_position_is_the_centroid_of_the_energy() -> None:
    """Against the definition, by loops; and an object is where it is."""
    x = torch.randn(1, 2, 6, 5, dtype=D)
    energy = sum((x[0, c] - x[0, c].mean()) ** 2 for c in range(2))
    z = sum(
        complex(energy[i, j]) * complex(math.cos(math.tau * i / 6), math.sin(math.tau * i / 6))
        for i in range(6)
        for j in range(5)
    )
    where, defined = centroid(x)
    assert bool(defined.all())
    assert float(where[0, 0]) == pytest.approx(6 / math.tau * math.atan2(z.imag, z.real))
    image = torch.zeros(1, 1, 12, 12, dtype=D)
    image[0, 0, 4:7, 8:11] = 1
    assert locate(image).tolist() == [[5, 9]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_positions_of_lower_precision_are_as_exact(dtype: torch.dtype) -> None:
    x = torch.randn(5, 2, 8, 8).to(dtype)
    assert torch.equal(locate(x.roll(3, 2)), (locate(x) + torch.tensor([3, 0])) % 8)


def test_position_of_a_sample_does_not_depend_on_its_batch() -> None:
    x = torch.cat(list(stress_images((16, 16)).values()) + [torch.randn(40, 1, 16, 16, dtype=D)])
    alone = torch.cat([locate(v) for v in x.split(1)])
    assert torch.equal(locate(x), alone)
