"""Each path computes the map that the paper writes down."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from symlearn.basis import Basis
from symlearn.geometry import Geometry, wrap_pad
from symlearn.paths import FC, FFC, SFC, Conv, SConv
from symlearn.relaxed import dense_map
from tests.paths.cases import CIRCULAR, CONVS, geometries
from tests.paths.slow import (
    circular_geometry,
    conv_geometry,
    slow_basis,
    slow_conv,
    slow_fc,
    slow_ffc,
)

pytestmark = pytest.mark.core
SPECS = (Conv(), FC(), FFC(), SConv(), SFC())
each_path = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def case(name: str, circular: bool) -> tuple[nn.Module, Geometry, Tensor]:
    """A convolution, its geometry, and inputs."""
    make, size = CONVS[name]
    conv = make().double()
    geometry = circular_geometry(conv, size) if circular else conv_geometry(conv, size)
    return conv, geometry, torch.randn(2, geometry.in_channels, *size, dtype=torch.float64)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_conv_is_eq_3(name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = Conv().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    expected = slow_conv(path.conv.weight.detach(), x, geo)
    assert expected.abs().max() > 0
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_fc_is_eq_1(name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = FC().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    expected = slow_fc(path.linear.weight.detach(), x, geo)
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_ffc_is_eq_5(name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = FFC().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    theta1, theta2 = path.theta1.weight.detach(), path.theta2.weight.detach()
    expected = slow_ffc(theta1, theta2, x, geo)
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_sconv_is_eq_6(name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = SConv(omega=0.6).build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    phi = slow_basis(geo.kernel_size, path.conv.basis)
    filters = torch.einsum("ocm,km->ock", path.conv.weight.detach(), phi)
    filters = filters.reshape(*filters.shape[:2], *geo.kernel_size)
    expected = slow_conv(filters, x, geo)
    assert expected.abs().max() > 0
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.filters(), filters, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_sfc_is_eq_7(name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = SFC(omega=0.6).build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    expected = slow_ffc(
        path.theta1.weight.detach() @ slow_basis(geo.out_size, path.writing).T,
        path.theta2.weight.detach() @ slow_basis(geo.in_size, path.reading).T,
        x,
        geo,
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("circular", [False, True])
def test_ffc_in_both_memory_layouts(circular: bool) -> None:
    """Wide layers on small maps keep the samples last; nothing but speed may depend on it."""
    conv = nn.Conv2d(6, 5, 3, padding=1).double()
    geo = circular_geometry(conv, (2, 1)) if circular else conv_geometry(conv, (2, 1))
    x = torch.randn(3, 6, 2, 1, dtype=torch.float64, requires_grad=True)
    path = FFC().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    assert path.theta1.samples_last
    assert path.theta2.samples_last
    expected = slow_ffc(path.theta1.weight, path.theta2.weight, x, geo)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *path.parameters()])
    for last in (True, False):
        path.theta1.samples_last = path.theta2.samples_last = last
        y = path(x)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        grads = torch.autograd.grad(y.square().sum(), [x, *path.parameters()])
        torch.testing.assert_close(grads, wanted, rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(data=st.data())
def test_conv_of_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    axes = draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 2]))
    size = tuple(draw(st.integers(4, 7)) for _ in range(axes))
    options: dict[str, Any] = {
        "kernel_size": tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        "dilation": tuple(draw(st.integers(1, 2)) for _ in range(axes)),
        "padding": tuple(draw(st.integers(0, 2)) for _ in range(axes)),
        "padding_mode": draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"])),
    }
    if all(
        s + 2 * p <= d * (k - 1)
        for s, p, d, k in zip(
            size, options["padding"], options["dilation"], options["kernel_size"], strict=True
        )
    ):
        return
    make: Any = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
    conv = make(groups, 2 * groups, groups=groups, bias=False, **options).double()
    x = torch.randn(1, groups, *size, dtype=torch.float64)
    try:
        geo = conv_geometry(conv, size)
    except RuntimeError:  # the window is larger than the padded map
        return
    path = Conv().build(geo).double()
    assert path.adopt(conv)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(path(x), slow_conv(conv.weight, x, geo), rtol=0, atol=1e-12)
    full = FC().build(geo).double()
    assert full.adopt(conv)
    torch.testing.assert_close(full(x), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONVS)
def test_conv_adopts_any_convolution(name: str) -> None:
    conv, geo, x = case(name, False)
    path = Conv().build(geo).double()
    assert path.adopt(conv)
    bias = 0 if conv.bias is None else conv.bias.reshape(-1, *[1] * (x.ndim - 2))
    torch.testing.assert_close(path(x) + bias, conv(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_fc_adopts_where_the_map_is_one_matrix(name: str, circular: bool) -> None:
    conv, geo, x = case(name, circular)
    path = FC().build(geo).double()
    single_grid = not circular or all(step == 1 for step in geo.stride)
    assert path.adopt(conv) == single_grid
    if single_grid:
        expected = slow_conv(conv.get_parameter("weight").detach(), x, geo)
        torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)
    else:
        assert not path.linear.weight.any()


def test_fc_adopts_more_inputs_than_fit_in_one_chunk() -> None:
    conv = nn.Conv2d(3, 1, 3, padding=1, bias=False).double()
    path = FC().build(conv_geometry(conv, (11, 9))).double()  # 297 inputs
    assert path.adopt(conv)
    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-12)


def test_ffc_adopts_nothing() -> None:
    conv, geo, _ = case("plain", False)
    assert not FFC().build(geo).double().adopt(conv)


@pytest.mark.parametrize("s", [1e-6, 0.3, -2.0, 1e6])
def test_gauge_law(s: float) -> None:
    _, geo, x = case("stride", False)
    path = FFC().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    before = path(x)
    with torch.no_grad():
        path.theta1.weight.mul_(s)
        path.theta2.weight.div_(s)
    torch.testing.assert_close(path(x), before, rtol=1e-12, atol=1e-14)


@each_path
@pytest.mark.parametrize(("name", "circular"), geometries())
def test_paths_are_linear(spec: Any, name: str, circular: bool) -> None:
    _, geo, x = case(name, circular)
    path = spec.build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    y = torch.randn_like(x)
    torch.testing.assert_close(path(2 * x - 3 * y), 2 * path(x) - 3 * path(y), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", CIRCULAR)
def test_dense_holds_every_grid(name: str) -> None:
    """The circular convolution on each grid is a part of the one at stride one."""
    _, geo, x = case(name, True)
    path = Conv().build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(1))
    dense = dense_map([path], x)
    assert tuple(dense.shape[2:]) == geo.in_size
    axes = tuple(range(2, x.ndim))
    for phase in torch.cartesian_prod(*[torch.arange(s) for s in geo.stride]).reshape(
        -1, len(axes)
    ):
        back = tuple(-int(p) for p in phase)
        grid = (..., *(slice(None, None, s) for s in geo.stride))
        expected = dense.roll(back, axes)[grid]
        torch.testing.assert_close(path(x.roll(back, axes)), expected, rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(data=st.data())
def test_wrap_pad_pads_by_any_amount(data: st.DataObject) -> None:
    size = tuple(data.draw(st.integers(1, 4)) for _ in range(data.draw(st.integers(1, 3))))
    pads = [data.draw(st.integers(0, 9)) for _ in range(2 * len(size))]
    x = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)
    expected: Tensor = x
    for axis, (before, after) in enumerate(zip(pads[-2::-2], pads[::-2], strict=True)):
        index = torch.arange(-before, size[axis] + after) % size[axis]
        expected = expected.index_select(axis + 2, index)
    padded = wrap_pad(x, pads)
    assert torch.equal(padded, expected)
    g = torch.randn_like(padded)
    (found,), (slow,) = (
        torch.autograd.grad(v, x, g, retain_graph=True) for v in (padded, expected)
    )
    torch.testing.assert_close(found, slow)


def test_wrap_pad_agrees_with_torch() -> None:
    x = torch.randn(1, 2, 4, 5)
    assert torch.equal(wrap_pad(x, [1, 2, 3, 0]), F.pad(x, [1, 2, 3, 0], mode="circular"))
    assert wrap_pad(x, [0, 0, 0, 0]) is x


@each_path
@pytest.mark.parametrize("name", CONVS)
def test_initial_size_keeps_the_scale_of_activations(spec: Any, name: str) -> None:
    """He: with unit-variance inputs, outputs have variance 2 (where no tap reads padding).

    Of noise, a sparse path has the share that its functions span.
    """
    if spec.name == "sconv" and name in {"replicate", "large-window"}:
        pytest.skip("taps that read the same site add up, and those of a sparse filter are alike")
    make, size = CONVS[name]
    conv = make()
    geo = circular_geometry(conv, size) if name in CIRCULAR else conv_geometry(conv, size)
    powers = []
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        path = spec.build(geo)
        path.reset_parameters(generator)
        out = path(torch.randn(8, geo.in_channels, *size, generator=generator))
        powers.append(out.detach().square())
    power = torch.stack(powers).mean((0, 1, 2))
    # the sites of a sparse map differ in how many basis functions reach them
    inside = power.amax() if name not in CIRCULAR and spec.name != "sfc" else power.mean()
    assert 1.5 < float(inside) / _share(path) < 2.7


def _share(path: Any) -> float:
    bases = [m.matrix() for m in path.modules() if isinstance(m, Basis)]
    return math.prod(float(torch.linalg.matrix_rank(phi)) / len(phi) for phi in bases)


def test_building_paths_leaves_the_random_state_alone() -> None:
    _, geo, _ = case("plain", False)
    before = torch.get_rng_state()
    paths = [spec.build(geo) for spec in SPECS]
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.any() for path in paths for p in path.parameters())
