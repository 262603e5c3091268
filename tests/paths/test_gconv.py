"""Group convolution: the paper's map, exactly equivariant."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.groupconv import GroupConv2d, GroupFilter
from symlearn.groups import act_on_features, named
from symlearn.paths import GConv
from symlearn.paths.gconv import FACTORS
from tests.paths.overgroup import inputs, layer, path

pytestmark = pytest.mark.core
D = torch.float64
GROUPS = ("vertical", "horizontal", "p2", "p4", "p4m")
each_factor = pytest.mark.parametrize("factor", FACTORS)


def turned(matrix: Any, u: tuple[int, int]) -> tuple[int, int]:
    """A group element applied to a position about the centre."""
    return (matrix[0][0] * u[0] + matrix[0][1] * u[1], matrix[1][0] * u[0] + matrix[1][1] * u[1])


def slow_gconv(weight: Tensor, x: Tensor, geo: Geometry, pointwise: bool = False) -> Tensor:
    """``y[c', g', x'] = sum_{c, h, u} W[c', c, h, u] f[c, g' h, x' + g' u]`` on a circular map."""
    group, size, half = named(geo.group), geo.in_size, geo.kernel_size[0] // 2
    c_out, c_in = weight.shape[:2]
    per_out = c_out // geo.groups
    f = x.reshape(len(x), -1, 1 if geo.lifts else group.order, *size)
    y = x.new_zeros(len(x), c_out, group.order, *size)
    taps = range(-half, half + 1)
    for o, c, g, a, b in itertools.product(
        range(c_out), range(c_in), range(group.order), taps, taps
    ):
        channel = o // per_out * c_in + c
        du, dv = turned(group.elements[g], (a, b))
        for h in range(weight.shape[2]):
            w = weight[o, c, h, a + half, b + half]
            source = 0 if geo.lifts else int(group.table[g, h])
            for i, j in itertools.product(range(size[0]), range(size[1])):
                where = ((i + du) % size[0], (j + dv) % size[1])
                y[:, o, g, i, j] += w * f[(slice(None), channel, source, *where)]
    return y.flatten(1, 2)


@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("factor", ["full", "pointwise"])
def test_one_filter_is_the_papers_map(factor: str, groups: int, lifts: bool) -> None:
    geo = layer("p4", lifts, groups=groups, channels=(1, 2), size=(3, 3))
    gconv, x = path(geo, factor), inputs(geo)
    (weight,) = gconv.parameters()
    torch.testing.assert_close(gconv(x), slow_gconv(weight.detach(), x, geo), rtol=0, atol=1e-12)


def test_reflections_on_a_map_that_is_not_square() -> None:
    geo = layer("horizontal", size=(3, 4))
    gconv, x = path(geo), inputs(geo)
    (weight,) = gconv.parameters()
    torch.testing.assert_close(gconv(x), slow_gconv(weight.detach(), x, geo), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_separable_filters_are_products(groups: int, lifts: bool) -> None:
    """The full filter is ``v[c', c, h] w[c, h^-1 u]`` (and ``v = m[c', c] q[c, h]``)."""
    geo = layer("p4m", lifts, groups=groups, channels=(2, 2), size=(4, 4))
    group, x = named("p4m"), inputs(geo)
    for factor in ("separable", "depthwise-separable"):
        gconv = path(geo, factor)
        spatial, *rest = (p.detach() for p in gconv.parameters())
        if factor == "separable":
            v = rest[0].flatten(2)
        else:
            channel = torch.arange(4).reshape(2, 2) if groups == 2 else torch.arange(2)[None]
            q = rest[0].reshape(-1, group.order)[channel]  # [B, C/B, |G|]
            v = rest[1].reshape(groups, -1, rest[1].shape[1], 1) * q[:, None]
            v = v.flatten(0, 1)
        full = torch.zeros(*v.shape, 3, 3, dtype=D)
        for o, c, h in itertools.product(*(range(n) for n in v.shape)):
            w = spatial[o // (len(v) // groups) * v.shape[1] + c, 0, 0]
            full[o, c, h] = v[o, c, h] * group.act(w, h)
        if lifts:
            full = full.sum(2, keepdim=True)
        expected = slow_gconv(full, x, geo)
        torch.testing.assert_close(gconv(x), expected, rtol=0, atol=1e-12, msg=factor)


def assert_equivariant(gconv: Any, geo: Geometry, tolerance: float = 1e-10) -> None:
    """``f(g . x) = g . f(x)`` for every element and several shifts."""
    x = inputs(geo, seed=3)
    y = gconv(x)
    assert y.abs().max() > 0
    for g in range(named(geo.group).order):
        for shift in ((0, 0), (1, 0), (2, 3)):
            moved = act_on_features(x, geo.group, g, not geo.lifts).roll(shift, (2, 3))
            wanted = act_on_features(y, geo.group, g, True).roll(shift, (2, 3))
            torch.testing.assert_close(gconv(moved), wanted, rtol=0, atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(
    group=st.sampled_from(GROUPS),
    factor=st.sampled_from(FACTORS),
    lifts=st.booleans(),
    size=st.integers(3, 6),
    groups=st.integers(1, 2),
    window=st.sampled_from([1, 3]),
    dilation=st.integers(1, 2),
    circular=st.booleans(),
)
def test_every_element_and_shift(
    group: str, factor: str, lifts: bool, circular: bool, dilation: int, **options: Any
) -> None:
    size = options.pop("size")
    if dilation == 2:
        size += 2
    mode = {} if circular else {"padding_mode": "circular"}
    options |= {"size": (size, size), "dilation": dilation, "circular": circular} | mode
    geo = layer(group, lifts, **options)
    assert_equivariant(path(geo, factor), geo)


@each_factor
def test_equivariant_after_training(factor: str) -> None:
    geo = layer("p4", size=(6, 6))
    gconv = path(geo, factor)
    optimiser = torch.optim.Adam(gconv.parameters(), lr=0.1)
    x, target = inputs(geo, 8), torch.randn(8, geo.out_channels, 6, 6, dtype=D)
    losses = []
    for _ in range(5):
        loss = (gconv(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert_equivariant(gconv, geo)


def test_the_check_of_equivariance_can_fail() -> None:
    geo = layer("p4")
    gconv, plain = path(geo), geo.build_conv().double()
    nn.init.normal_(plain.weight)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: plain(F.pad(x, (1, 1, 1, 1), mode="circular")), geo)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: gconv(x) * torch.nan, geo)


@each_factor
@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("circular", [False, True])
def test_filters_are_those_of_the_convolution(
    factor: str, lifts: bool, groups: int, circular: bool
) -> None:
    geo = layer("p4", lifts, (6, 6), groups, circular=circular, stride=2)
    gconv, x = path(geo, factor), inputs(geo)
    filters = gconv.filters()
    assert filters is not None
    assert not filters.requires_grad
    padded = F.pad(x, (1, 0, 1, 0), mode="circular") if circular else F.pad(x, (1, 1, 1, 1))
    expected = F.conv2d(padded, filters, stride=2, groups=groups)
    torch.testing.assert_close(gconv(x), expected, rtol=0, atol=1e-12)
    # and back: the filters are recognised, others are not
    conv = geo.build_conv().double()
    conv.weight.data.copy_(filters)
    other = GConv(factor=factor).build(geo).double()
    if not (lifts and "separable" in factor):  # a sum over the group hides its factors
        assert other.adopt(conv)
        torch.testing.assert_close(other(x), gconv(x), rtol=0, atol=1e-12)
    nn.init.normal_(conv.weight)
    assert not other.adopt(conv)


@each_factor
@pytest.mark.parametrize("lifts", [False, True])
def test_the_boundary_of_the_convolution_is_kept(factor: str, lifts: bool) -> None:
    for mode in ("zeros", "reflect", "replicate"):
        geo = layer("p4m", lifts, (4, 4), circular=False, padding_mode=mode)
        gconv, x = path(geo, factor), inputs(geo)
        conv = geo.build_conv().double()
        conv.weight.data.copy_(gconv.filters())
        torch.testing.assert_close(gconv(x), conv(x), rtol=0, atol=1e-12)


def test_inner_biases_are_not_part_of_a_convolution() -> None:
    geo = layer("p4")
    gconv = path(geo, "separable", inner_bias=True)
    assert gconv.filters() is not None
    assert gconv.contributes()
    nn.init.ones_(gconv.convs["spatial"].bias)
    assert gconv.filters() is None
    assert_equivariant(gconv, geo)
    gconv.reset_parameters(torch.Generator().manual_seed(0))
    assert not gconv.convs["spatial"].bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "p6"}, "unknown group 'p6'"),
        ({"factor": "half"}, r"unknown factor 'half'; choose one of \['full', 'separable'"),
        ({"inner_bias": True}, "'full' filter is one piece"),
    ],
)
def test_wrong_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GConv(**options)


def test_layers_that_do_not_suit() -> None:
    geo = layer("p4")
    cases: dict[str, Geometry] = {
        r"not over a group; call symlearn.lift\(model, group\)": replace(geo, group=None),
        r"square maps, got size \(5, 6\)": replace(geo, in_size=(5, 6)),
        r"window \(2, 2\) must be odd": replace(geo, kernel_size=(2, 2)),
        r"window \(3, 5\) must be the same": replace(geo, kernel_size=(3, 5), padding="same"),
        r"stride \(1, 2\) must be the same": replace(geo, stride=(1, 2)),
        r"dilation \(1, 2\) must be the same": replace(geo, dilation=(1, 2), padding="same"),
        r"padding \(0, 0\) puts the window off the centre": replace(geo, padding=(0, 0)),
        r"3 spatial axes": replace(geo, kernel_size=(3, 3, 3)),
    }
    for message, wrong in cases.items():
        for call in (GConv().build, GConv().n_params, GConv().factor_elements):
            with pytest.raises(ValueError, match=message):
                call(wrong)
    with pytest.raises(ValueError, match="over the group 'p4', not 'p4m'"):
        GConv("p4m").build(geo)


def test_escnn_has_the_same_filters() -> None:
    """escnn's regular p4 convolution, expanded to a plain one, is one of ours."""
    reason = "escnn is not installed (or does not import): no second opinion on p4"
    pytest.importorskip("escnn", reason=reason, exc_type=ImportError)
    from escnn import gspaces
    from escnn import nn as enn

    space = gspaces.rot2dOnR2(4)
    regular = enn.FieldType(space, 2 * [space.regular_repr])
    theirs = enn.R2Conv(regular, regular, 3, padding=1, bias=False, padding_mode="circular")
    weight = theirs.expand_parameters()[0].detach()
    ours = GroupConv2d(GroupFilter(layer("p4", channels=(2, 2))))
    with torch.no_grad():
        ours.weight.copy_(ours.project(weight))
    torch.testing.assert_close(ours.dense(), weight, rtol=0, atol=1e-6)
