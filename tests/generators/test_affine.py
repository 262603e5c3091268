"""Shannon-Whittaker derivatives and affine generators on a grid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from symlearn.audit.transforms import TRANSFORMATIONS, Affine
from symlearn.generators import (
    FIELDS,
    AffineGenerator,
    affine_generators,
    derivative,
    interpolation,
    translation,
)

pytestmark = pytest.mark.core
SIZES = (1, 2, 3, 4, 7, 8)


def waves(n: int) -> Tensor:
    """Real waves below half the sampling rate, and the constant, [n', n]."""
    r = torch.arange(n, dtype=torch.float64)
    p = torch.arange((n - 1) // 2 + 1, dtype=torch.float64).unsqueeze(1)
    return torch.cat([torch.cos(2 * math.pi * p * r / n), torch.sin(2 * math.pi * p * r / n)])


@pytest.mark.parametrize("n", SIZES)
def test_interpolation_meets_the_samples(n: int) -> None:
    r = torch.arange(-n, 2 * n, dtype=torch.float64)
    expected = (r.remainder(n) == 0).double()
    torch.testing.assert_close(interpolation(r, n), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_the_derivative_is_that_of_the_kernel(n: int) -> None:
    """Against automatic differentiation of Q, entry by entry."""
    r = (torch.arange(n)[:, None] - torch.arange(n)).double().requires_grad_()
    (slopes,) = torch.autograd.grad(interpolation(r, n).sum(), r)
    torch.testing.assert_close(derivative(n), slopes, rtol=0, atol=1e-12)
    torch.testing.assert_close(derivative(n), -derivative(n).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_the_exponential_shifts_waves(n: int) -> None:
    moved = torch.linalg.matrix_exp(-derivative(n)) @ waves(n).T
    torch.testing.assert_close(moved, waves(n).T.roll(1, 0), rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_odd_sizes_give_the_shift_itself(n: int) -> None:
    shift = torch.linalg.matrix_exp(-derivative(n))
    torch.testing.assert_close(shift, translation(n, 1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_even_sizes_leave_the_fastest_wave(n: int) -> None:
    fastest = (-1.0) ** torch.arange(n, dtype=torch.float64)
    shift = torch.linalg.matrix_exp(-derivative(n))
    torch.testing.assert_close(shift @ fastest, fastest, rtol=0, atol=1e-12)
    torch.testing.assert_close(translation(n, 1) @ fastest, -fastest, rtol=0, atol=0)
    assert float(torch.linalg.det(shift)) > 0 > float(torch.linalg.det(translation(n, 1)))


@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("distance", [1.0, -2.0, 0.3, 2.75])
def test_translations_move_waves_and_add_up(n: int, distance: float) -> None:
    r = torch.arange(n, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * (r - distance) / n)
    expected = torch.cos(2 * math.pi * r / n)
    torch.testing.assert_close(translation(n, distance) @ expected, wave, rtol=0, atol=1e-12)
    twice = translation(n, distance) @ waves(n).T
    twice = translation(n, distance) @ twice
    torch.testing.assert_close(twice, translation(n, 2 * distance) @ waves(n).T)


@pytest.mark.parametrize("size", [(5, 7), (4, 6)])
@pytest.mark.parametrize("name", FIELDS)
def test_generators_are_those_of_the_audit(name: str, size: tuple[int, int]) -> None:
    """Fourier derivatives of `symlearn.audit` are another implementation."""
    x = torch.randn(3, *size, dtype=torch.float64)
    options: dict[str, Any] = {"resampling": "fourier", "padding": "circular"}
    if name in TRANSFORMATIONS:
        known: Any = replace(TRANSFORMATIONS[name], **options)  # type: ignore[type-var]
    else:
        known = Affine(name, FIELDS[name].matrix, **options)
    expected = known.generator(x)
    if name.startswith("translation"):  # by one size of the map there
        expected = expected / (size[1] if name.endswith("x") else size[0])
    generator = AffineGenerator(name, size)
    torch.testing.assert_close(generator.apply(x), expected, rtol=0, atol=1e-11)
    dense = generator.matrix()
    torch.testing.assert_close((x.flatten(1) @ dense.T).reshape_as(x), expected, rtol=0, atol=1e-11)
    places, values = generator.entries()
    found = torch.zeros_like(dense).index_put_(tuple(places), values, accumulate=True)
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-13)


def test_rotation_turns_a_blurred_bar() -> None:
    """A quarter turn of a smooth map, against the clock, by the exponential."""
    n = 21
    y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) - 10] * 2, indexing="ij")
    bar = torch.exp(-((x / 3.5) ** 2) - (y / 2.0) ** 2) * (1 + 0.3 * x / 3)
    turn = torch.linalg.matrix_exp(math.pi / 2 * AffineGenerator("rotation", (n, n)).matrix())
    turned = (turn @ bar.flatten()).reshape(n, n)
    torch.testing.assert_close(turned, bar.rot90(1), rtol=0, atol=2e-3)
    assert (turned - bar).abs().max() > 0.3


def test_one_axis() -> None:
    x = torch.randn(2, 7, dtype=torch.float64)
    names = [g.name for g in affine_generators((7,))]
    assert names == ["translation_x", "stretch"]
    moved, stretched = (g.apply(x) for g in affine_generators((7,)))
    torch.testing.assert_close(moved, -x @ derivative(7).T)
    places = torch.arange(7, dtype=torch.float64) - 3
    torch.testing.assert_close(stretched, -places * (x @ derivative(7).T))


def test_the_affine_basis_is_independent() -> None:
    basis = torch.stack([g.matrix().flatten() for g in affine_generators((6, 5))])
    assert len(basis) == 6
    assert int(torch.linalg.matrix_rank(basis)) == 6


def test_large_maps_are_not_built_dense() -> None:
    large = AffineGenerator("rotation", (64, 64))
    with pytest.raises(ValueError, match=r"4,096 sites .* 128 MiB .* dense=True"):
        large.matrix()
    places, values = large.entries()
    assert len(values) == places.shape[1] < 2 * 64**3
    x = torch.randn(64, 64, dtype=torch.float64)
    sparse = torch.sparse_coo_tensor(
        places, values, (4096, 4096), check_invariants=True
    ) @ x.reshape(-1, 1)
    torch.testing.assert_close(sparse.reshape(64, 64), large.apply(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: derivative(0), "at least one sample"),
        (lambda: translation(0, 1.0), "at least one sample"),
        (lambda: AffineGenerator("rotaton", (3, 3)), r"unknown generator 'rotaton'.*'rotation'"),
        (lambda: AffineGenerator("rotation", (3,)), r"there are \['translation_x', 'stretch'\]"),
        (lambda: AffineGenerator("rotation", (3, 3, 3)), "one or two axes"),
        (lambda: affine_generators((3, 0)), "at least one sample"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
