"""Group elements and generators of image transformations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from symlearn.audit import TRANSFORMATIONS, Affine, as_transformations
from symlearn.audit.resample import PADDINGS, shift
from symlearn.groups import named

pytestmark = pytest.mark.core
AFFINE = [t for t in TRANSFORMATIONS.values() if isinstance(t, Affine)]
each_affine = pytest.mark.parametrize("transform", AFFINE, ids=lambda t: t.name)


def maps(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


def waves(size: int) -> Tensor:
    """A real band-limited map without content at half the sampling rate."""
    spectrum = torch.fft.fft2(maps(size, size))
    spectrum[..., size // 2, :] = spectrum[..., :, size // 2] = 0
    return torch.fft.ifft2(spectrum).real


@each_affine
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
def test_the_generator_is_the_mean_slope_of_the_action(
    transform: Affine, padding: str, resampling: str
) -> None:
    transform = replace(transform, padding=padding, resampling=resampling)
    x, t = maps(6, 5), 1e-6
    slope = (transform.act(x, t) - transform.act(x, -t)) / (2 * t)
    torch.testing.assert_close(transform.generator(x), slope, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["translation_x", "translation_y"])
def test_fourier_translations_are_exact(name: str) -> None:
    (transform,) = as_transformations(name, "fourier", "circular")
    x, t = waves(8), 1e-5
    slope = (transform.act(x, t) - transform.act(x, -t)) / (2 * t)
    torch.testing.assert_close(transform.generator(x), slope, rtol=0, atol=1e-6)
    there = transform.act(transform.act(x, 0.3), -0.3)
    torch.testing.assert_close(there, x, rtol=0, atol=1e-12)
    whole = transform.act(x, 2 / 8)
    torch.testing.assert_close(whole, x.roll(2, -1 if name[-1] == "x" else -2), rtol=0, atol=1e-12)


def test_shifts_by_whole_pixels_are_exact() -> None:
    x = maps(5, 7)
    for resampling in ("bilinear", "bicubic"):
        moved = shift(x, 2, -3, resampling, "circular")
        torch.testing.assert_close(moved, x.roll((2, -3), (-2, -1)), rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["reflection", "zeros"])
@each_affine
def test_bilinear_elements_are_those_of_grid_sample(transform: Affine, padding: str) -> None:
    transform = replace(transform, padding=padding)
    x, t = maps(7, 7), 0.37
    field = torch.zeros(3, 3, dtype=torch.float64)
    # grid_sample's plane is two wide
    field[:2, :2], field[:2, 2] = torch.tensor(transform.matrix), 2 * torch.tensor(transform.shift)
    back = torch.linalg.matrix_exp(-t * field)[:2]
    grid = F.affine_grid(back.expand(2, -1, -1), [2, 3, 7, 7], align_corners=False)
    expected = F.grid_sample(x, grid, padding_mode=padding, align_corners=False)
    torch.testing.assert_close(transform.act(x, t), expected, rtol=0, atol=1e-10)


def test_a_quarter_turn_is_that_of_the_grid_groups() -> None:
    x = maps(6, 6)
    turned = TRANSFORMATIONS["rotation"].act(x, torch.pi / 2)
    torch.testing.assert_close(turned, named("p4").act(x, 1), rtol=0, atol=1e-12)


def test_photometric_generators() -> None:
    x, t = maps(4, 4), 1e-6
    for name in ("brightness", "contrast"):
        transform = TRANSFORMATIONS[name]
        slope = (transform.act(x, t) - transform.act(x, -t)) / (2 * t)
        torch.testing.assert_close(transform.generator(x), slope, rtol=0, atol=1e-8)


def test_bad_names_are_errors() -> None:
    with pytest.raises(ValueError, match=r"turning.*translation_x"):
        as_transformations(("turning",))
    with pytest.raises(TypeError, match="names or Transformation objects"):
        as_transformations((3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no name twice"):
        as_transformations(("shear", "shear"))
    with pytest.raises(ValueError, match=r"nearest.*bicubic.*circular"):
        as_transformations("shear", "nearest")
    with pytest.raises(ValueError, match="padding='circular'"):
        as_transformations("shear", "fourier")
    (rotation,) = as_transformations("rotation", "fourier", "circular")
    with pytest.raises(ValueError, match="translations only"):
        rotation.act(maps(4, 4), 0.1)
