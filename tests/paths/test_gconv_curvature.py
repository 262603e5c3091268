"""Group convolution: curvature of its factors, and how the path appears and disappears."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
import curvature.testing
from curvature.gram import gram
from symlearn.groupconv import GroupConv2d, GroupFilter
from symlearn.groups import named
from symlearn.paths import FFC, Conv, GConv
from symlearn.paths.gconv import FACTORS, GConvPath
from symlearn.relaxed import RelaxedLayer
from tests.paths.overgroup import inputs, layer, path

pytestmark = pytest.mark.core
D = torch.float64
each_factor = pytest.mark.parametrize("factor", FACTORS)


@pytest.mark.parametrize("group", ["vertical", "p4", "p4m"])
@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("pointwise", [False, True])
def test_the_rule_of_one_filter(group: str, lifts: bool, pointwise: bool) -> None:
    for groups, options in ((1, {"padding_mode": "reflect"}), (2, {"stride": 2, "dilation": 2})):
        geo = layer(group, lifts, (6, 6), groups, circular=False, **options)
        conv = GroupConv2d(GroupFilter(geo, pointwise, bias=True)).double()
        x = inputs(geo)
        curvature.testing.assert_rule(conv, x)
        rule = curvature.rule_for(conv)
        # positions are sites times elements, and the shorter sum is the same
        a = rule.inputs(conv, x)
        sites = geo.out_sites
        assert a.shape[:3] == (2, sites * named(group).order, groups)
        torch.testing.assert_close(rule.input_gram(conv, x), gram(a))


def net(gconv: GConvPath) -> nn.Sequential:
    """A path and a nonlinear head without weights of its own."""
    return nn.Sequential(gconv, nn.Tanh(), nn.Flatten())


@each_factor
def test_factors_are_positive_and_do_not_depend_on_batches(factor: str) -> None:
    geo = layer("p4", size=(3, 3), channels=(2, 1))
    gconv, x = path(geo, factor), inputs(geo, 6)
    y = torch.randn(6, geo.out_channels * 9, dtype=D)
    whole = curvature.kronecker(net(gconv), (x, y), "gaussian")
    parts = curvature.kronecker(net(gconv), [(x[:1], y[:1]), (x[1:], y[1:])], "gaussian")
    assert len(whole) == len(list(gconv.parameters()))
    held = 0
    for name, block in whole.items():
        dense = block.to_dense()
        assert float(torch.linalg.eigvalsh(dense).min()) > -1e-10
        torch.testing.assert_close(parts[name].to_dense(), dense)
        held += block.inputs.matrix.numel() + block.outputs.matrix.numel()
    assert held == GConv(factor=factor).factor_elements(geo)


def test_exact_where_kfac_is() -> None:
    """One sample, one position: a 1x1 map and the trivial group; each factor given the others."""
    for factor in FACTORS:
        geo = layer("trivial", size=(1, 1), window=1, channels=(1, 2))
        gconv, x = path(geo, factor), inputs(geo, 1)
        data = (x, torch.zeros(1, 2, dtype=D))
        found = curvature.kronecker(net(gconv), data, "gaussian")
        exact = curvature.dense_ggn(net(gconv), data, "gaussian")
        start = 0
        for name, p in net(gconv).named_parameters():
            part = slice(start, start + p.numel())
            start = part.stop
            torch.testing.assert_close(found[name].to_dense(), exact[part, part])


def test_factors_follow_from_the_dense_convolution() -> None:
    """Both are sums over positions of the map that turns a filter into the dense filters."""
    geo = layer("p4", size=(4, 4), channels=(2, 2))
    gconv = path(geo)
    conv = gconv.convs["conv"]
    plain = geo.build_conv().double()
    plain.weight.data.copy_(conv.dense().detach())
    x = F.pad(inputs(geo, 3), (1, 1, 1, 1), mode="circular")
    y = torch.randn(3, geo.out_channels * 16, dtype=D)
    heads = [nn.Sequential(m, nn.Tanh(), nn.Flatten()) for m in (conv, plain)]
    mine, dense = (curvature.kronecker(h, (x, y), "gaussian")["0.weight"] for h in heads)
    order, c_in, c_out = 4, 2, 2
    # output g': the rows of the inputs that the filter's entries meet there
    size = order * 9
    a = dense.inputs.matrix[0].reshape(c_in, size, c_in, size)
    g = dense.outputs.matrix[0].reshape(c_out, order, c_out, order)
    expected_a = sum(a[:, taps][:, :, :, taps] for taps in conv.taps).reshape(c_in * size, -1)
    expected_g = g.diagonal(dim1=1, dim2=3).sum(-1)
    torch.testing.assert_close(mine.inputs.matrix[0], expected_a, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mine.outputs.matrix[0], expected_g, rtol=1e-10, atol=1e-10)
    positions = 3 * 16 * order
    wanted = torch.kron(expected_g, expected_a) / positions
    torch.testing.assert_close(mine.to_dense(), wanted, rtol=1e-10, atol=1e-10)


@each_factor
@pytest.mark.parametrize("lifts", [False, True])
def test_predicted_number_of_weights(factor: str, lifts: bool) -> None:
    for bias in (False, True) if "separable" in factor else (False,):
        spec = GConv(factor=factor, inner_bias=bias)
        geo = layer("p4m", lifts, groups=2)
        assert spec.n_params(geo) == sum(p.numel() for p in spec.build(geo).parameters())


@each_factor
def test_life_of_the_path(factor: str) -> None:
    geo = layer("p4", size=(4, 4))
    gconv, x = path(geo, factor), inputs(geo, 20)
    g = torch.randn(20, geo.out_channels, 4, 4, dtype=D)
    out = gconv(x)
    gconv.scale(0.5)
    torch.testing.assert_close(gconv(x), out / 2)
    gconv.start_at_zero(torch.Generator().manual_seed(0))
    assert not gconv(x).any()
    assert not gconv.contributes()
    gconv.propose(x, g)
    assert not gconv(x).any()
    (gconv(x) * g).sum().backward()
    descent = -gconv.tested().grad
    assert descent.abs().max() > 0
    gconv.seed(descent, 0.1)
    assert gconv.contributes()
    assert float((gconv(x) * g).sum().detach()) < 0
    gconv.switch_off()
    assert gconv.filters() is not None
    assert not gconv.filters().any()


@pytest.mark.parametrize("factor", ["separable", "depthwise-separable"])
@pytest.mark.parametrize("lifts", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_proposed_directions_have_the_largest_gradient(
    factor: str, lifts: bool, groups: int
) -> None:
    """Of all unit directions, per input channel, those of a path that made the gradient too."""
    geo = layer("p4", lifts, (6, 6), groups, channels=(2, 3))
    gconv, x = path(geo, factor), inputs(geo, 100)
    g = path(geo, factor, 1)(x).detach() + torch.randn(100, geo.out_channels, 6, 6, dtype=D)

    def gradients() -> Tensor:
        """Norm of the tested weight's gradient for each input channel."""
        nn.init.zeros_(gconv.tested())
        (grad,) = torch.autograd.grad((gconv(x) * g).sum(), gconv.tested())
        per_channel = grad.reshape(groups, -1, grad.shape[1], grad[0, 0].numel())
        return per_channel.transpose(1, 2).flatten(2).norm(dim=2).flatten()

    gconv.propose(x, g)
    proposed = gradients()
    for seed in range(1, 8):
        other = path(geo, factor, seed)
        for mine, theirs in zip(gconv.factors()[:-1], other.factors()[:-1], strict=True):
            mine.data.copy_(F.normalize(theirs.detach().flatten(1), dim=1).reshape(mine.shape))
        assert (gradients() <= proposed * (1 + 1e-12)).all()


def test_scale_of_a_fresh_path() -> None:
    """He: unit inputs give outputs of mean square 2."""
    for factor in FACTORS:
        geo = layer("p4", size=(8, 8), channels=(16, 32))
        squares = [path(geo, factor, s)(inputs(geo, 4)).square().mean() for s in range(3)]
        assert float(torch.stack(squares).mean()) == pytest.approx(2, rel=0.2), factor


def test_output_variance_does_not_grow_with_the_number_of_paths() -> None:
    geo = layer("p4", size=(4, 4), channels=(8, 16))
    x, variances = inputs(geo, 32), {}
    for specs in ((Conv(),), (GConv(factor="separable"),), (Conv(), FFC(), GConv(factor="full"))):
        made = RelaxedLayer(geo, specs, bias=False).double()
        made.reset_parameters(torch.Generator().manual_seed(0))
        variances[len(specs)] = float(made(x).square().mean())
    assert variances[3] == pytest.approx(variances[1], rel=0.3)
