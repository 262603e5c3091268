"""Each path's curvature rule states the Jacobian, and F-FC's factors are small blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import KroneckerBlocks
from symlearn.paths import FC, FFC, SFC, Conv, LConv, SConv
from symlearn.relaxed import RelaxedLayer
from tests.paths.cases import CONVS, geometries
from tests.paths.slow import circular_geometry, conv_geometry

pytestmark = pytest.mark.core
SPECS = (Conv(), FC(), FFC(), LConv(2), SConv(), SFC())


def relaxed(name: str, circular: bool, bias: bool = True) -> tuple[RelaxedLayer, Tensor]:
    """A relaxed layer with random weights in all paths, and inputs for it."""
    make, size = CONVS[name]
    conv = make()
    geometry = circular_geometry(conv, size) if circular else conv_geometry(conv, size)
    layer = RelaxedLayer(geometry, SPECS, bias).double()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer, torch.randn(3, geometry.in_channels, *size, dtype=torch.float64)


def jacobians(layer: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Per-sample gradients of a random nonlinear scalar: from the rules, and from autograd."""
    ruled = {m: curvature.rule_for(m) for m in layer.modules()}
    modules = {m: rule for m, rule in ruled.items() if rule is not None}
    calls: list[curvature.Call] = []
    with curvature.watch(list(modules), calls.append):
        out = layer(x)
    weights = torch.randn_like(out)
    value = (out.tanh() * weights).flatten(1).sum(1)
    grads = torch.autograd.grad(value.sum(), [c.edge for c in calls], retain_graph=True)
    names = {id(p): n for n, p in layer.named_parameters()}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for call, g in zip(calls, grads, strict=True):
        rule = modules[call.module]
        outer = rule.grads(call.module, g)  # [N, R, B, O]
        for short in filter(None, (rule.weight, rule.bias)):
            p = getattr(call.module, short)
            if p is None:
                continue
            if short == rule.weight:
                inputs = rule.inputs(call.module, call.inputs)
                blocks = torch.einsum("nrbo,nrbi->nboi", outer, inputs)
                mine = torch.stack([rule.from_blocks(b) for b in blocks])
            else:
                mine = outer.sum(1).reshape(len(x), *p.shape)
            slow = [torch.autograd.grad(v, p, retain_graph=True)[0] for v in value]
            found[names[id(p)]] = (mine, torch.stack(slow))
    return found


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_rules_state_the_jacobian(name: str, circular: bool) -> None:
    layer, x = relaxed(name, circular)
    found = jacobians(layer, x)
    assert set(found) == {n for n, _ in layer.named_parameters()}
    for name, (rule, slow) in found.items():
        assert slow.abs().max() > 0, name
        torch.testing.assert_close(rule, slow, rtol=0, atol=1e-12, msg=name)


def test_to_blocks_and_from_blocks_are_inverse() -> None:
    layer, _ = relaxed("stride", False)
    for module in layer.modules():
        rule = curvature.rule_for(module)
        if rule is not None and rule.weight is not None:
            weight = getattr(module, rule.weight)
            assert torch.equal(rule.from_blocks(rule.to_blocks(weight)), weight)


def head(layer: nn.Module, classes: int = 3) -> tuple[nn.Sequential, Tensor]:
    """A network on a relaxed layer, and the shape of the layer's output."""
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(classes)).double()


def measured(name: str, n: int) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    layer, x = relaxed(name, False)
    net = head(layer)
    x, y = x[:1].repeat(n, *[1] * (x.ndim - 1)), torch.arange(n) % 3
    x = x + torch.randn_like(x)
    net(x)
    net[3].requires_grad_(False)
    return net, curvature.kronecker(net, (x, y)), (x, y)


@pytest.mark.parametrize("spec", [FFC(), SFC()], ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", ["plain", "stride", "one-d", "three-d"])
def test_factors_are_one_small_block_per_channel(name: str, spec: Any) -> None:
    net, found, _ = measured(name, 4)
    geo = net[0].geometry
    c, c_out, s, s_out = geo.in_channels, geo.out_channels, geo.in_sites, geo.out_sites
    if spec.name == "sfc":
        s, s_out = -(-s // 2), -(-s_out // 2)
    theta1, theta2 = (found[f"0.paths.{spec.name}.theta{i}.weight"] for i in (1, 2))
    shapes = {
        key: (tuple(b.inputs.matrix.shape), tuple(b.outputs.matrix.shape))
        for key, b in (("theta1", theta1), ("theta2", theta2))
    }
    assert shapes == {
        "theta1": ((c_out, c, c), (c_out, s_out, s_out)),
        "theta2": ((c, s, s), (c, c_out, c_out)),
    }


def test_paths_predict_the_size_of_their_factors() -> None:
    for name in CONVS:
        net, found, _ = measured(name, 2)
        for spec in SPECS:
            blocks = [b for key, b in found.items() if key.startswith(f"0.paths.{spec.name}.")]
            assert all(isinstance(b, KroneckerBlocks) for b in blocks)
            held = sum(f.matrix.numel() for b in blocks for f in (b.inputs, b.outputs))
            assert held == spec.factor_elements(net[0].geometry), (name, spec.name)


@pytest.mark.parametrize("name", ["plain", "stride", "one-d"])
def test_factored_blocks_are_exact_for_one_sample(name: str) -> None:
    """Each block of the exact GGN of one sample is the Kronecker block of that channel."""
    net, found, data = measured(name, 1)
    exact = curvature.dense_ggn(net, data)
    start = 0
    for key, p in net.named_parameters():
        if not p.requires_grad:
            continue
        part = slice(start, start + p.numel())
        start = part.stop
        if "theta" not in key:
            continue
        channel_axis = 0 if "theta1" in key else 1
        index = torch.arange(p.numel()).reshape(p.shape)
        for one in index.unbind(channel_axis):
            block = exact[part, part][one.reshape(-1)][:, one.reshape(-1)]
            mine = found[key].to_dense()[one.reshape(-1)][:, one.reshape(-1)]
            assert block.abs().max() > 0
            torch.testing.assert_close(mine, block, rtol=1e-10, atol=1e-14)


def test_ffc_is_exact_for_one_sample_and_one_channel() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1)
    layer = RelaxedLayer(conv_geometry(conv, (4, 3)), (FFC(),), bias=False).double()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    net = head(layer)
    data = (torch.randn(1, 1, 4, 3, dtype=torch.float64), torch.tensor([1]))
    net(data[0])
    net[3].requires_grad_(False)
    found, exact = curvature.kronecker(net, data), curvature.dense_ggn(net, data)
    for i, part in enumerate((slice(0, 12), slice(12, 24)), start=1):
        block = found[f"0.paths.ffc.theta{i}.weight"].to_dense()
        torch.testing.assert_close(block, exact[part, part], rtol=1e-10, atol=1e-16)


def test_the_jacobian_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = relaxed("stride", False)
    rule = type(curvature.rule_for(layer.paths["ffc"].theta1))
    good = rule.grads
    for broken in (lambda g: 2 * g, lambda g: g * float("nan"), lambda g: g.roll(1, -1)):
        monkeypatch.setattr(rule, "grads", lambda s, m, g, b=broken: b(good(s, m, g)))
        mine, slow = jacobians(layer, x)["paths.ffc.theta1.weight"]
        with pytest.raises(AssertionError):
            torch.testing.assert_close(mine, slow, rtol=0, atol=1e-12)
