"""Factored and sparse paths on features over a group (paper, App. A)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import curvature
import symlearn
from symlearn.geometry import Geometry, OverGroup
from symlearn.paths import FFC, SFC
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import tiny_cnn
from tests.oracles import assert_near, loop_ggn
from tests.paths.layers import drawn, network, samples
from tests.paths.slow import conv_geometry, slow_ffc

pytestmark = pytest.mark.core


def over(group: str, lifts: bool) -> Geometry:
    """A layer from 2 to 3 channels over a group, on a map that is halved."""
    order = symlearn.groups.named(group).order
    c_in = 2 if lifts else 2 * order
    conv = nn.Conv2d(c_in, 3 * order, 3, stride=2, padding=1).double()
    OverGroup(group, lifts).put_on(conv)
    return conv_geometry(conv, (4, 4))


@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("group", ["vertical", "p4"])
@pytest.mark.parametrize("make", [FFC, SFC])
def test_positions_over_a_group_are_pairs(make: Any, group: str, lifts: bool) -> None:
    """``sum_c theta1(c', c, g', x') sum_{g, x} x(c, g, x) theta2(c', c, g, x)`` (paper, App. A)."""
    geo = over(group, lifts)
    order = symlearn.groups.named(group).order
    spec = make(over_group=True)
    path = drawn(spec, geo)
    first = 1 if lifts else order
    sizes = (2, 8) if make is SFC else (4, 16)
    assert path.theta1.weight.shape == (3, 2, order * sizes[0])
    assert path.theta2.weight.shape == (3, 2, first * sizes[1])
    assert spec.n_params(geo) == sum(p.numel() for p in path.parameters())
    theta1, theta2 = path.theta1.weight.detach(), path.theta2.weight.detach()
    if make is SFC:  # one element at a time
        theta1 = theta1.unflatten(2, (order, -1)) @ path.writing.matrix().T
        theta2 = theta2.unflatten(2, (first, -1)) @ path.reading.matrix().T
    # maps of |G| * H rows: the group as one more axis
    grid = Geometry(2, 3, (first, 4, 4), (order, 2, 2), (1,) * 3, (1,) * 3, (0,) * 3, (1,) * 3)
    x, _ = samples(geo, 2)
    expected = slow_ffc(theta1, theta2, x.reshape(2, 2, first, 4, 4), grid)
    assert expected.abs().max() > 0
    torch.testing.assert_close(path(x), expected.reshape(2, 3 * order, 2, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [FFC, SFC])
def test_curvature_over_a_group(make: Any) -> None:
    geo = over("p4", False)
    spec = make(over_group=True)
    net, data = network(drawn(spec, geo), geo), samples(geo, 4)
    found = curvature.kronecker(net, data)
    held = sum(f.matrix.numel() for b in found.values() for f in (b.inputs, b.outputs))
    assert held == spec.factor_elements(geo)
    one = (data[0][:1], data[1][:1])
    block: Any = curvature.kronecker(net, one)["0.theta2.weight"]
    exact = loop_ggn(net, one, "categorical")
    theta1, theta2 = net[0].theta1.weight, net[0].theta2.weight
    index = torch.arange(theta2.numel()).reshape(theta2.shape)[:, 0].reshape(-1)
    whole = exact[theta1.numel() :, theta1.numel() :]
    assert_near(block.to_dense()[index][:, index], whole[index][:, index])


@pytest.mark.parametrize("make", [FFC, SFC])
def test_initial_size_over_a_group(make: Any) -> None:
    """He: unit-variance features give outputs of variance 2 on average.

    Of noise, a sparse path has the shares that its functions span.
    """
    geo, powers = over("p4", False), []
    for seed in range(200):
        x, _ = samples(geo, 4)
        powers.append(drawn(make(over_group=True), geo, seed)(x).detach().square().mean())
    share = 0.25 if make is SFC else 1.0  # half of what is read, and of what is written
    assert 1.6 * share < float(torch.stack(powers).mean()) < 2.4 * share


def test_wrap_of_a_lifted_network() -> None:
    lifted = symlearn.lift(tiny_cnn(), "p4")
    x = torch.randn(2, 1, 8, 8)
    model = symlearn.wrap(lifted, x, paths=("conv", FFC(over_group=True)))
    torch.testing.assert_close(model(x), lifted(x))
    sizes = [tuple(m.path("ffc").tested().shape) for m in relaxed_layers(model).values()]
    assert sizes == [(4, 1, 64), (8, 4, 64)]
