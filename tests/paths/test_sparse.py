"""Sparse paths: curvature by projection, fits of filters, the limit of constant maps, errors."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import curvature
import symlearn
from curvature.testing import assert_rule
from symlearn.basis import Basis, BasisOptions
from symlearn.basisconv import BasisConv
from symlearn.fit import Fitting
from symlearn.paths import FFC, SFC, Conv, SConv
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_cnn
from tests.oracles import assert_near, loop_ggn
from tests.paths.cases import CONVS
from tests.paths.layers import drawn, geometry, network, samples
from tests.paths.slow import conv_geometry

pytestmark = pytest.mark.core
OMEGA = {"control": "omega"}


@st.composite
def sparse_convs(draw: Any) -> tuple[nn.Module, BasisOptions, tuple[int, ...]]:
    """A convolution, anchors for its window, and the size of a (non-square) map for it."""
    axes, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))

    def several(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    make: Any = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
    conv = make(
        2 * groups,
        groups * draw(st.integers(1, 2)),
        several(1, 3),
        stride=several(1, 3),
        dilation=several(1, 2),
        padding=several(0, 2),
        groups=groups,
        padding_mode=draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"])),
        bias=False,
    )
    taps = conv.weight[0, 0].numel()
    anchors = draw(st.integers(1, taps))
    return conv, BasisOptions(anchors, draw(st.floats(0.3, 1.5))), several(5, 8)


@settings(max_examples=40)
@given(given=sparse_convs())
def test_sconv_rule_states_the_jacobian_and_projects_the_convolutions(
    given: tuple[nn.Module, BasisOptions, tuple[int, ...]],
) -> None:
    """Chain rule: ``A = Phi^T A_conv Phi`` for each pair of channels (paper, App. C.2)."""
    conv, options, size = given
    conv = conv.double()
    geo = conv_geometry(conv, size)
    x = torch.randn(3, geo.in_channels, *size, dtype=torch.float64)
    mine = BasisConv(geo, Basis(geo.kernel_size, options)).double()
    assert_rule(mine, x)
    rule, dense = curvature.rule_for(mine), curvature.rule_for(conv)
    assert rule is not None
    assert dense is not None
    phi = torch.kron(torch.eye(geo.in_channels // geo.groups).double(), mine.basis.matrix())
    projected = phi.T @ dense.input_gram(conv, x) @ phi
    assert_near(rule.input_gram(mine, x), projected, 1e-12)
    assert_near(rule.input_gram(mine, x), curvature.Rule.input_gram(rule, mine, x), 1e-12)
    g = torch.randn(3, geo.out_channels, *geo.out_size, dtype=torch.float64)
    assert torch.equal(rule.grads(mine, g), dense.grads(conv, g))


@pytest.mark.parametrize("name", ["plain", "stride", "groups", "one-d", "three-d"])
def test_factors_are_the_dense_paths_factors_projected(name: str) -> None:
    make, size = CONVS[name]
    geo = conv_geometry(make(), size)
    data = samples(geo, 6)
    sconv, sfc = drawn(SConv(), geo), drawn(SFC(), geo)
    conv, ffc = Conv().build(geo).double(), FFC().build(geo).double()
    phi, phi1, phi2 = (b.matrix() for b in (sconv.conv.basis, sfc.writing, sfc.reading))
    with torch.no_grad():
        conv.conv.weight.copy_(sconv.filters())
        ffc.theta1.weight.copy_(sfc.theta1.weight @ phi1.T)
        ffc.theta2.weight.copy_(sfc.theta2.weight @ phi2.T)
    found = {
        key: curvature.kronecker(network(path, geo), data)
        for key, path in {"sconv": sconv, "conv": conv, "sfc": sfc, "ffc": ffc}.items()
    }

    def factors(path: str, tensor: str) -> tuple[Tensor, Tensor]:
        block: Any = found[path][f"0.{tensor}.weight"]
        return block.inputs.matrix, block.outputs.matrix

    per_channel = torch.kron(torch.eye(geo.in_channels // geo.groups).double(), phi)
    (a, g), (dense_a, dense_g) = factors("sconv", "conv"), factors("conv", "conv")
    assert_near(a, per_channel.T @ dense_a @ per_channel, 1e-10)
    assert_near(g, dense_g, 1e-10)
    (a, g), (dense_a, dense_g) = factors("sfc", "theta1"), factors("ffc", "theta1")
    assert_near(a, dense_a, 1e-10)
    assert_near(g, phi1.T @ dense_g @ phi1, 1e-10)
    (a, g), (dense_a, dense_g) = factors("sfc", "theta2"), factors("ffc", "theta2")
    assert_near(a, phi2.T @ dense_a @ phi2, 1e-10)
    assert_near(g, dense_g, 1e-10)


@pytest.mark.parametrize("spec", [SConv(), SConv(2, omega=0.7)], ids=str)
def test_sconv_is_exact_for_one_sample_and_one_position(spec: SConv) -> None:
    geo = conv_geometry(nn.Conv2d(2, 3, (3, 2)), (3, 2))
    assert geo.out_sites == 1
    net, data = network(drawn(spec, geo), geo), samples(geo, 1)
    (block,) = curvature.kronecker(net, data).values()
    assert_near(block.to_dense(), loop_ggn(net, data, "categorical"))


@pytest.mark.parametrize("n", [1, 7])
def test_sconv_is_exact_for_a_linear_network(n: int) -> None:
    """One position and Gaussian noise: the output factor is the same for every sample."""
    geo = conv_geometry(nn.Conv2d(2, 3, (3, 2)), (3, 2))
    net = nn.Sequential(drawn(SConv(), geo), nn.Flatten())
    x, _ = samples(geo, n)
    data = (x, torch.zeros(n, 3, dtype=torch.float64))
    (block,) = curvature.kronecker(net, data, "gaussian").values()
    assert_near(block.to_dense(), loop_ggn(net, data, "gaussian"))


def test_sfc_is_exact_for_one_channel() -> None:
    """One sample, or a linear network with Gaussian noise whose output factors do not vary."""
    geo = geometry(1, 1, (4, 3))
    net, data = network(drawn(SFC(), geo), geo), samples(geo, 1)
    found, exact = curvature.kronecker(net, data), loop_ggn(net, data, "categorical")
    half = len(exact) // 2
    for i, part in enumerate((slice(0, half), slice(half, None)), start=1):
        assert_near(found[f"0.theta{i}.weight"].to_dense(), exact[part, part])
    net = nn.Sequential(net[0], nn.Flatten())
    x, _ = samples(geo, 5)
    data = (x, torch.zeros(5, 12, dtype=torch.float64))
    found, exact = curvature.kronecker(net, data, "gaussian"), loop_ggn(net, data, "gaussian")
    for i, part in enumerate((slice(0, half), slice(half, None)), start=1):
        assert_near(found[f"0.theta{i}.weight"].to_dense(), exact[part, part])


@pytest.mark.parametrize("spec", [SConv(**OMEGA), SFC(**OMEGA, learn_anchors=True)], ids=str)
def test_curvature_of_a_layer(spec: Any) -> None:
    """PSD, of the parameters' shapes, the same for every batch size; omega's is exact."""
    geo = geometry()
    net, data = network(drawn(spec, geo), geo), samples(geo, 5)
    found = curvature.kronecker(net, data)
    parts = [curvature.kronecker(net, data, batch_size=n) for n in (1, 2)]
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    exact = loop_ggn(net, data, "categorical").diagonal()
    start = 0
    for name, p in ((n, p) for n, p in net.named_parameters() if p.requires_grad):
        mine = exact[start : (start := start + p.numel())]
        if "anchors" in name:
            assert name in found.coverage.names("fixed")
            assert name not in found
            continue
        block = found[name]
        assert block.to_dense().shape == (sizes[name], sizes[name])
        assert block.eigenvalues.min() >= 0
        assert not block.eigenvalues.requires_grad
        for part in parts:
            assert_near(part[name].to_dense(), block.to_dense(), 1e-10)
        if "omega" in name:
            assert name in found.coverage.names("diagonal")
            assert_near(block.eigenvalues, mine)
            assert mine.abs().max() > 0


def test_a_filter_carries_over_exactly_with_as_many_anchors_as_taps() -> None:
    for name in ("plain", "groups", "one-d", "pointwise", "three-d"):
        make, size = CONVS[name]
        conv = make()
        geo = conv_geometry(conv, size)
        path = SConv(1.0).build(geo)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert path.adopt(conv), name
        torch.testing.assert_close(path.filters(), conv.weight.detach(), rtol=0, atol=1e-5)


def test_a_fit_is_the_nearest_filter() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    geo = conv_geometry(conv, (4, 4))
    path = SConv().build(geo).double()
    error = path.from_dense(conv.weight)
    rest = path.filters() - conv.weight.detach()
    assert 0.1 < error < 1
    assert error == pytest.approx(float(rest.norm() / conv.weight.detach().norm()))
    # what is left over is orthogonal to every basis function
    assert (rest.flatten(2) @ path.conv.basis.matrix()).abs().max() < 1e-12
    assert path.from_dense(torch.zeros_like(conv.weight)) == 0
    assert not path.filters().any()


def test_too_few_anchors_hold_a_filter_only_where_allowed() -> None:
    torch.manual_seed(0)
    cnn, x = tiny_cnn(), torch.randn(2, 1, 8, 8)
    with pytest.raises(ValueError, match="can hold the pretrained weights"):
        symlearn.wrap(cnn, x, paths=("sconv", "sfc"))
    with pytest.raises(ValueError, match="can hold the pretrained weights"):
        symlearn.wrap(cnn, x, paths=(SConv(fit_tolerance=0.01),))
    with pytest.warns(UserWarning, match=r"5 anchors hold .*\[4, 1, 3, 3\].*relative error of 0\."):
        relaxed = symlearn.wrap(cnn, x, paths=(SConv(fit_tolerance=1.0), "sfc"), layers="0")
    layer = relaxed_layers(relaxed)["0"]
    assert layer.path("sconv").contributes()
    assert not layer.path("sfc").contributes()
    exact = symlearn.wrap(cnn, x, paths=(SConv(anchors=9), "sfc"))
    torch.testing.assert_close(exact(x), cnn(x), rtol=0, atol=1e-5)
    both = symlearn.wrap(cnn, x, paths=("conv", "sconv"))
    assert not relaxed_layers(both)["0"].path("sconv").contributes()
    assert torch.equal(both(x), cnn(x))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_wrong_tolerance(tolerance: float) -> None:
    with pytest.raises(ValueError, match="fit_tolerance is"):
        SConv(fit_tolerance=tolerance)


def test_without_a_lengthscale_maps_are_constant() -> None:
    """omega = 0: S-FC is the same at all output sites, and sees the sum of each map only."""
    geo = geometry(2, 3, (4, 5))
    path = drawn(SFC(**OMEGA), geo)
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    assert path(x).flatten(2).std(2).min() > 1e-3
    with torch.no_grad():
        for omega in (path.reading.omega, path.writing.omega):
            omega.zero_()
    y = path(x).flatten(2)
    assert y.abs().max() > 1e-3
    torch.testing.assert_close(y, y[..., :1].expand_as(y), rtol=0, atol=1e-12)
    torch.testing.assert_close(path(x.roll((1, 2), (2, 3))).flatten(2), y, rtol=0, atol=1e-12)


def test_a_prior_without_variance_makes_the_path_stationary() -> None:
    """sigma -> 0 of the prior on omega: the MAP omega goes to zero, the anchor values do not."""
    model = symlearn.wrap(tiny_cnn(), torch.zeros(1, 1, 8, 8), paths=("conv", SFC(**OMEGA)))
    layer = relaxed_layers(model)["2"]
    layer.path("sfc").reset_parameters(torch.Generator().manual_seed(0))
    options = {"progress": False, "grow": False, "burn_in": 0.5, "epochs": 80}
    fitting = Fitting(model, blobs(60), symlearn.FitConfig(**options))
    assert fitting.state.prior.groups["2.sfc.omega"] == (
        "2.paths.sfc.reading.omega",
        "2.paths.sfc.writing.omega",
    )
    fitting.state.prior.set_precision("2.sfc.omega", 1e8)
    fitting.state.sync_precisions()
    for _ in range(20):
        fitting.advance()
    path: Any = layer.path("sfc")
    assert path.contributes()
    assert max(float(b.omega.detach()) for b in (path.reading, path.writing)) < 1e-3
    y = path(torch.randn(2, 4, 4, 4)).flatten(2).detach()
    torch.testing.assert_close(y, y.mean(2, keepdim=True).expand_as(y), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SConv(10), r"'sconv' does not suit.*window has 9 positions \(3x3\).*from 1 to 9"),
        (SFC(17), r"'sfc' does not suit.*input has 16 positions \(4x4\).*output has 16"),
        (FFC(over_group=True), r"'ffc' does not suit.*not over a group.*symlearn.lift"),
        (SFC(over_group=True), r"'sfc' does not suit.*not over a group"),
    ],
    ids=str,
)
def test_layers_that_do_not_suit(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec.build(geometry())
