"""The power path: its map, its special cases, and the three ways in which powers are applied."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symlearn.generators import BaseMatrix
from symlearn.generators.powermaps import (
    DensePowers,
    Exponential,
    FieldMap,
    PickedPowers,
    SteppedPowers,
)
from symlearn.generators.powers import PowerOptions, dense_elements, powers_of
from symlearn.paths import Power
from symlearn.testing import assert_path
from tests.paths.cases import SHIFTS, SPIRAL
from tests.paths.layers import drawn, geometry, samples
from tests.paths.slow import circular_geometry, conv_geometry

pytestmark = pytest.mark.core
D: dict[str, Any] = {"dtype": torch.float64}


def slow_derivative(n: int) -> Tensor:
    """Closed form of Q'(a - b): cosecants for odd n, cotangents for even n."""
    out = torch.zeros(n, n, **D)
    for a, b in itertools.permutations(range(n), 2):
        angle, sign = math.pi * (a - b) / n, (-1) ** (a - b)
        out[a, b] = sign * math.pi / n / (math.sin(angle) if n % 2 else math.tan(angle))
    return out


def slow_base(base: str | BaseMatrix, size: tuple[int, int], power: int) -> Tensor:
    """A power of a base matrix, by eigenvalues of its generator, entry by entry."""
    height, width = size
    if base in SHIFTS:
        out = torch.zeros(height * width, height * width, **D)
        for i, j in itertools.product(range(height), range(width)):
            di, dj = (power, 0) if base == "translation_y" else (0, power)
            out[i * width + j, (i - di) % height * width + (j - dj) % width] = 1
        return out
    known = BaseMatrix.step(base, size) if isinstance(base, str) else base
    slope = slow_derivative(height), slow_derivative(width)
    generator = torch.zeros(height, width, height, width, **D)
    for i, j in itertools.product(range(height), range(width)):
        y, x = i - (height - 1) / 2, j - (width - 1) / 2
        fields = {"rotation": (y, -x), "scaling": (x, y), "translation_x": (1, 0)}
        for name, value in known.coefficients:
            across, down = fields[name]
            generator[i, j, i] -= value * across * slope[1][j]
            generator[i, j, :, j] -= value * down * slope[0][i]
    values, vectors = torch.linalg.eig(generator.reshape(height * width, -1))
    exponential = torch.diag((power * values).exp())
    return (vectors @ exponential @ torch.linalg.inv(vectors)).real


CASES: dict[str, Power] = {
    "rotation": Power(),
    "scaling": Power("scaling", powers=1),
    "shifts": Power(SHIFTS, powers=1),
    "dilated": Power(("translation_x", "rotation"), powers=1, dilation=2),
    "from zero": Power(("rotation", "translation_y"), powers=2, negative=False),
    "spiral": Power(SPIRAL, powers=2),
    "half a pixel": Power(BaseMatrix.affine("half", translation_x=0.5), powers=1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["plain", "strided", "circular"])
def test_the_map_is_the_power_series(name: str, kind: str) -> None:
    """Sum over powers of every base matrix, product by product, channel by channel."""
    spec, size = CASES[name], (5, 6)
    stride = 1 if kind == "plain" else (1, 2)
    conv = nn.Conv2d(2, 3, 3, stride=stride, padding=1)
    geo = (circular_geometry if kind == "circular" else conv_geometry)(conv, size)
    path = drawn(spec, geo)
    x = torch.randn(2, 2, *size, **D)
    expected = torch.zeros(2, 3, 30, **D)
    lowest = -spec.powers if spec.negative else 0
    exponents = itertools.product(range(lowest, spec.powers + 1), repeat=len(spec.bases))
    theta = path.theta.weight.detach().reshape(3, 2, -1)
    for t, powers in enumerate(exponents):
        product = torch.eye(30, **D)
        for base, power in zip(spec.bases, powers, strict=True):
            product = product @ slow_base(base, size, spec.dilation * power)
        moved = x.flatten(2) @ product.T
        for o, c in itertools.product(range(3), range(2)):
            expected[:, o] += theta[o, c, t] * moved[:, c]
    expected = expected.reshape(2, 3, *size)
    if kind != "plain":
        expected = expected[..., ::2]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_laws_of_a_path(name: str) -> None:
    assert_path(CASES[name], [geometry(2, 3, (3, 5))])


def test_laws_of_a_path_in_layers_of_all_kinds() -> None:
    assert_path(Power(SHIFTS, powers=1))


@pytest.mark.parametrize("bases", [SHIFTS, SHIFTS[::-1]])
@pytest.mark.parametrize("dilation", [1, 2])
def test_two_shifts_are_a_circular_convolution(bases: tuple[str, ...], dilation: int) -> None:
    conv = nn.Conv2d(
        3, 4, 5, padding=2 * dilation, dilation=dilation, padding_mode="circular", bias=False
    ).double()
    geo = conv_geometry(conv, (9, 10))
    path = Power(bases, powers=2, dilation=dilation).build(geo).double()
    assert path.adopt(conv)
    x = torch.randn(2, 3, 9, 10, **D)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-10)
    theta = path.theta.weight.detach().reshape(4, 3, 5, 5)
    if bases != SHIFTS:
        theta = theta.transpose(2, 3)
    # power i reads i sites before, tap k reads k - 2 sites behind
    torch.testing.assert_close(theta.flip(2, 3), conv.weight.detach(), rtol=0, atol=0)
    found = path.filters()
    torch.testing.assert_close(found, conv.weight.detach(), rtol=0, atol=0)


def test_one_shift_is_a_circular_convolution_of_signals() -> None:
    conv = nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular", bias=False).double()
    path = Power("translation_x", powers=1).build(conv_geometry(conv, (8,))).double()
    assert path.adopt(conv)
    x = torch.randn(2, 2, 8, **D)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-10)


def test_taps_that_meet_on_a_small_map_add_up() -> None:
    conv = nn.Conv2d(1, 2, 5, padding=2, padding_mode="circular", bias=False).double()
    path = Power(SHIFTS, powers=2).build(conv_geometry(conv, (4, 3))).double()
    assert path.adopt(conv)
    x = torch.randn(2, 1, 4, 3, **D)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-12)
    found = path.filters()
    assert found is not None
    with torch.no_grad():
        conv.weight.copy_(found)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "conv", "adopts", "is_one"),
    [
        (Power(), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), False, False),
        (Power(SHIFTS, 1), nn.Conv2d(2, 2, 3, padding=1), False, False),
        (Power(SHIFTS, 1), nn.Conv2d(2, 2, 5, padding=2, padding_mode="circular"), False, True),
        (Power(SHIFTS, 2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), True, False),
        (
            Power(SHIFTS, 1),
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, padding_mode="circular"),
            *(True, False),
        ),
    ],
    ids=["rotation", "zero-padding", "large-window", "small-window", "groups"],
)
def test_which_convolutions_it_can_hold_or_be(
    spec: Power, conv: nn.Module, adopts: bool, is_one: bool
) -> None:
    conv = conv.double()
    geo = conv_geometry(conv, (8, 8))
    path = drawn(spec, geo)
    x = torch.randn(2, 2, 8, 8, **D)
    filters = path.filters()
    assert (filters is not None) == is_one
    if filters is not None:
        out = path(x)
        with torch.no_grad():
            conv.weight.copy_(filters)  # type: ignore[operator, union-attr]
            conv.bias.zero_()  # type: ignore[operator, union-attr]
        torch.testing.assert_close(conv(x), out, rtol=0, atol=1e-12)
    assert path.adopt(conv) == adopts
    if adopts:
        bias = conv.get_parameter("bias").detach().reshape(1, -1, 1, 1)
        torch.testing.assert_close(path(x), conv(x).detach() - bias, rtol=0, atol=1e-12)


def test_moving_grids_are_no_convolution() -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    path = drawn(Power(SHIFTS, powers=1), circular_geometry(conv, (6, 6)))
    assert path.filters() is None
    assert not path.adopt(conv.double())


@pytest.mark.parametrize("n", [15, 16])
def test_rotation_turns_about_the_centre(n: int) -> None:
    """Four steps of an eighth of a half turn are a quarter turn of a smooth image."""
    base = BaseMatrix.affine("step", rotation=math.pi / 8)
    powers = powers_of(base, (n, n), PowerOptions(4, 1, True, False))
    places = torch.arange(n, **D) - (n - 1) / 2
    blob = torch.exp(
        -((places - 2.3) ** 2).unsqueeze(0) / 4 - (places + 1.1).square().unsqueeze(1) / 4
    )
    turned = powers(blob.reshape(1, 1, -1))[0, 0].reshape(9, n, n)
    torch.testing.assert_close(turned[8], torch.rot90(blob, 1), rtol=0, atol=2e-3)
    torch.testing.assert_close(turned[0], torch.rot90(blob, -1), rtol=0, atol=2e-3)
    assert (turned[8] - torch.rot90(blob, -1)).abs().max() > 0.5
    torch.testing.assert_close(turned[4], blob, rtol=0, atol=0)


def test_even_sizes_shift_exactly_by_whole_pixels_only() -> None:
    """The wave at half the sampling rate: whole shifts turn its sign, generators leave it."""
    wave = (-1.0) ** torch.arange(8, **D).reshape(1, 1, -1)
    options = PowerOptions(1, 1, True, False)
    whole = powers_of(BaseMatrix.step("translation_x", (8,)), (8,), options)
    half = powers_of(BaseMatrix.affine("half", translation_x=0.5), (8,), options)
    assert isinstance(whole, PickedPowers)
    assert isinstance(half, DensePowers)
    torch.testing.assert_close(whole(wave)[0], torch.cat([-wave, wave, -wave], 1))
    torch.testing.assert_close(half(wave)[0], wave.expand(1, 3, 8))


def test_negative_powers_take_the_inverse_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("inverted a matrix")

    for name in ("inv", "inv_ex", "solve", "lu_factor"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    generator = torch.diag(torch.tensor([-30.0, 0.0, 30.0], **D))  # condition number e^60
    base = BaseMatrix.exponential("stiff", generator)
    powers = powers_of(base, (3,), PowerOptions(1, 1, True, False))
    moved = powers(torch.ones(1, 1, 3, **D))[0, 0]
    expected = torch.stack([-generator.diag(), 0 * generator.diag(), generator.diag()]).exp()
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=0)
    with pytest.raises(AssertionError, match="inverted"):
        Power(BaseMatrix.of("plain", torch.eye(3) * 2))


def test_stepped_powers_are_dense_ones() -> None:
    field = BaseMatrix.step("rotation", (5, 6)).field((5, 6))
    dense = powers_of(BaseMatrix.step("rotation", (5, 6)), (5, 6), PowerOptions(2, 3, True, False))
    assert isinstance(dense, DensePowers)
    steps = math.ceil(3 * FieldMap(field).bound() / 2)
    up, down = (Exponential(FieldMap(field), t, steps) for t in (3, -3))
    stepped = SteppedPowers(up, down, 2).double()
    x = torch.randn(2, 3, 30, **D, requires_grad=True)
    torch.testing.assert_close(stepped(x), dense(x), rtol=0, atol=1e-11)
    weights = torch.randn(2, 3, 5, 30, **D)
    found = [torch.autograd.grad((p(x) * weights).sum(), x)[0] for p in (stepped, dense)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-11)
    single = stepped.float()(x.detach().float())
    torch.testing.assert_close(single, dense(x).detach().float(), rtol=0, atol=1e-5)


def test_large_maps_hold_no_dense_matrix() -> None:
    size, options = (33, 32), PowerOptions(1, 1, True, False)
    base = BaseMatrix.affine("half", translation_x=0.5)
    powers = powers_of(base, size, options)
    assert isinstance(powers, SteppedPowers)
    assert max(b.numel() for b in powers.buffers()) <= 33 * 32
    rows = powers_of(base, (32,), options)
    assert isinstance(rows, DensePowers)
    x = torch.randn(1, 1, *size, **D)
    expected = rows(x[0]).transpose(1, 2)  # each row of the map is a channel there
    moved = powers(x.flatten(2)).unflatten(3, size)
    torch.testing.assert_close(moved[0], expected, rtol=0, atol=1e-11)


def test_which_way_is_cheapest() -> None:
    """Steps for translations by half a pixel even where matrices may be dense; not for turns."""
    asked, size = PowerOptions(2, 1, True, True), (33, 32)
    half = BaseMatrix.affine("half", translation_x=0.5)
    turn = BaseMatrix.affine("turn", rotation=0.5)
    assert dense_elements(half, size, asked) == 0
    assert dense_elements(turn, size, asked) == 4 * (33 * 32) ** 2
    assert dense_elements(turn, size, PowerOptions(2, 1, True, False)) == 0
    assert dense_elements(turn, (32, 32), PowerOptions(2, 1, True, False)) == 4 * 1024**2
    assert dense_elements(BaseMatrix.step("translation_x", size), size, asked) == 0


@pytest.mark.parametrize("exponentiate", [False, True])
def test_sparse_matrices_are_stepped_where_that_is_cheaper(exponentiate: bool) -> None:
    sites = 1100 if exponentiate else 300
    ring = 0.5 * torch.eye(sites, **D) + 0.25 * torch.eye(sites, **D).roll(1, 0)
    make = BaseMatrix.exponential if exponentiate else BaseMatrix.of
    powers = powers_of(make("ring", ring), (sites,), PowerOptions(2, 2, exponentiate, False))
    assert isinstance(powers, SteppedPowers)
    x = torch.randn(2, 1, sites, **D)
    # a circulant matrix has the waves as eigenvectors
    values = torch.fft.fft(ring[:, 0])
    for p, found in zip(range(-2 * exponentiate, 3), powers(x).unbind(2), strict=True):
        factor = (2 * p * values).exp() if exponentiate else values ** (2 * p)
        expected = torch.fft.ifft(torch.fft.fft(x) * factor).real
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_given_matrices_and_permutations() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(6, **D) + 0.2 * torch.randn(6, 6, generator=generator, **D)
    order = torch.randperm(6, generator=generator)
    permutation = torch.eye(6, **D)[order]
    options, x = PowerOptions(2, 1, True, False), torch.randn(1, 1, 6, **D)
    for given, way in ((matrix, DensePowers), (permutation, PickedPowers)):
        powers = powers_of(BaseMatrix.of("given", given), (2, 3), options)
        assert isinstance(powers, way)
        for p, found in zip(range(-2, 3), powers(x)[0, 0], strict=True):
            expected = torch.linalg.matrix_power(given, p) @ x[0, 0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_a_step_moves_sites_by_one_pixel() -> None:
    places = torch.cartesian_prod(torch.arange(5.0) - 2, torch.arange(6.0) - 2.5)
    ((name, angle),) = BaseMatrix.step("rotation", (5, 6)).coefficients
    assert name == "rotation"
    assert angle == pytest.approx(float(places.square().sum(1).mean()) ** -0.5)
    assert BaseMatrix.step("translation_x", (5, 6)).coefficients == (("translation_x", 1.0),)
    graph = BaseMatrix.of("graph", torch.ones(3, 3))
    assert Power(graph, negative=False).bases == (graph,)  # has powers from 0 on


def test_fresh_weights_have_hes_variance() -> None:
    for spec in (Power("rotation"), Power("scaling", powers=1), Power(SHIFTS, powers=1)):
        geo = geometry(8, 32, (6, 6))
        x, _ = samples(geo, 200)
        size = float(drawn(spec, geo)(x).detach().square().mean())
        assert 1.3 < size < 2.9, spec  # 2, as of a convolution
