"""Symmetric convolution: averaged filters, commuting with the group, and the projected rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import curvature
import curvature.testing
import symlearn
from symlearn.geometry import Geometry
from symlearn.groups import named
from symlearn.groups.windows import invariant_filters
from symlearn.paths import SymConv
from tests.paths.slow import circular_geometry, conv_geometry, slow_conv

pytestmark = pytest.mark.core
D = torch.float64
GROUPS = ("trivial", "vertical", "horizontal", "p2", "p4", "p4m")
# orbits of a 3x3 and of a 5x5 window
ORBITS = {
    "trivial": (9, 25),
    "vertical": (6, 15),
    "horizontal": (6, 15),
    "p2": (5, 13),
    "p4": (3, 7),
    "p4m": (3, 6),
}


def made(group: str, conv: nn.Module, size: Any, circular: bool = False) -> tuple[Any, Tensor]:
    """A path with random weights, and inputs for it."""
    geo = circular_geometry(conv, size) if circular else conv_geometry(conv, size)
    path = SymConv(group).build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(0))
    return path, torch.randn(3, geo.in_channels, *size, dtype=D)


@pytest.mark.parametrize("group", GROUPS)
def test_the_basis_spans_the_averaged_filters(group: str) -> None:
    g = named(group)
    for i, k in enumerate((3, 5)):
        basis = invariant_filters(g, (k, k))
        orbits = ORBITS[group][i]
        torch.testing.assert_close(basis.T @ basis, torch.eye(orbits, dtype=D))
        # the projection on the basis is the mean over the group
        filters = torch.randn(4, k, k, dtype=D)
        mean = torch.stack([g.act(filters, e) for e in range(g.order)]).mean(0)
        projected = (filters.flatten(1) @ basis @ basis.T).reshape(filters.shape)
        torch.testing.assert_close(projected, mean, rtol=0, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(
    group=st.sampled_from(GROUPS),
    size=st.integers(3, 7),
    groups=st.integers(1, 2),
    dilation=st.integers(1, 2),
    window=st.sampled_from([1, 3]),
    circular=st.booleans(),
)
def test_commutes_with_the_group(
    group: str, size: int, groups: int, dilation: int, window: int, circular: bool
) -> None:
    conv = nn.Conv2d(
        2 * groups, 2 * groups, window, padding="same", dilation=dilation, groups=groups
    )
    path, x = made(group, conv, (size, size), circular)
    y, g = path(x), named(group)
    assert y.abs().max() > 0
    for e in range(g.order):
        torch.testing.assert_close(path(g.act(x, e)), g.act(y, e), rtol=0, atol=1e-12)
    if circular:
        torch.testing.assert_close(path(x.roll((1, 2), (2, 3))), y.roll((1, 2), (2, 3)))


@pytest.mark.parametrize("circular", [False, True])
def test_a_strided_layer_is_the_convolution_with_its_filters(circular: bool) -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    path, x = made("p4", conv, (6, 4), circular)
    assert path.filters().shape == (6, 2, 3, 3)
    torch.testing.assert_close(
        path(x), slow_conv(path.filters(), x, path.geometry), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("circular", [False, True])
def test_the_rule_projects_the_convolutions_factor(group: str, circular: bool) -> None:
    conv = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
    path, x = made(group, conv, (6, 6), circular)
    curvature.testing.assert_rule(path.conv, x if not circular else F.pad(x, (1, 0, 1, 0)))
    net = nn.Sequential(path, nn.Tanh(), nn.Flatten())
    plain = path.geometry.build_conv().double()
    plain.weight.data.copy_(path.filters())
    pad = nn.CircularPad2d((1, 0, 1, 0)) if circular else nn.Identity()
    dense = nn.Sequential(pad, plain, nn.Tanh(), nn.Flatten())
    y = torch.zeros(3, 4 * 9, dtype=D)
    mine = curvature.kronecker(net, (x, y), "gaussian")["0.conv.weight"]
    theirs = curvature.kronecker(dense, (x, y), "gaussian")["1.weight"]
    phi = torch.block_diag(*[path.conv.basis.matrix()] * 2)
    torch.testing.assert_close(
        mine.inputs.matrix, phi.T @ theirs.inputs.matrix @ phi, rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(mine.outputs.matrix, theirs.outputs.matrix, rtol=1e-10, atol=1e-10)
    held = mine.inputs.matrix.numel() + mine.outputs.matrix.numel()
    spec = SymConv(group)
    assert held == spec.factor_elements(path.geometry)
    assert path.tested().numel() == spec.n_params(path.geometry) == 4 * 2 * ORBITS[group][0]


def test_adopts_symmetric_filters_only() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    path, x = made("p4", conv, (5, 5))
    conv.double().weight.data.copy_(path.filters())
    other, _ = made("p4", conv, (5, 5))
    assert other.adopt(conv)
    torch.testing.assert_close(other(x), conv(x))
    conv.weight.data[0, 0, 0, 0] += 1e-3
    assert not other.adopt(conv)
    # so that wrapping keeps the function
    cnn = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    image = torch.randn(2, 1, 6, 6)
    relaxed = symlearn.wrap(cnn, image, paths=("symconv", "conv"))
    assert torch.equal(relaxed(image), cnn(image))
    assert relaxed[0].path("conv").contributes()
    assert not relaxed[0].path("symconv").contributes()
    with pytest.raises(ValueError, match="can hold the pretrained weights"):
        symlearn.wrap(cnn, image, paths=("symconv",))


def test_energy_of_a_fresh_filter() -> None:
    conv = nn.Conv2d(64, 128, 5, padding=2)
    path, _ = made("p4m", conv, (6, 6))
    energy = path.filters().square().sum((1, 2, 3)).mean()
    assert float(energy) == pytest.approx(2, rel=0.05)


def test_layers_that_do_not_suit() -> None:
    cases: dict[str, nn.Module] = {
        r"window \(2, 2\) must be odd": nn.Conv2d(1, 1, 2),
        r"window \(3, 5\) must be the same": nn.Conv2d(1, 1, (3, 5)),
        r"1 spatial axes.*acts on two": nn.Conv1d(1, 1, 3),
    }
    for message, conv in cases.items():
        geo = Geometry.of(conv, (8,) * (conv.weight.ndim - 2), (6,) * (conv.weight.ndim - 2))
        for call in (SymConv().build, SymConv().n_params, SymConv().factor_elements):
            with pytest.raises(ValueError, match=message):
                call(geo)
    assert SymConv("vertical").unsuited(conv_geometry(nn.Conv2d(1, 1, (3, 2)), (5, 5))) == []
    with pytest.raises(ValueError, match="unknown group 'p5'"):
        SymConv("p5")
    cnn = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, (3, 1)))
    with pytest.raises(ValueError, match=r"(?s)1, path 'symconv': .*odd.*2, path 'symconv': "):
        symlearn.wrap(cnn, torch.zeros(1, 1, 9, 9), paths=("conv", "symconv"))
