"""Rules against the modules they speak for, and Kronecker factors against the exact GGN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import Rule, register_rule, rule_for
from curvature.testing import assert_rule
from symlearn.blocklinear import BlockLinear
from tests.cases import CASES, Case, Factored
from tests.oracles import assert_near, per_parameter, slow_patches

pytestmark = pytest.mark.core


class Transposed(nn.Module):
    """A third party's layer: the weight is stored [in, out], and the output is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * (x @ self.kernel) + self.shift


@register_rule(Transposed)
class TransposedRule:
    """A plain class: what it leaves out comes from `Rule`."""

    weight, bias = "kernel", "shift"

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        return 2.0 * x.reshape(len(x), -1, 1, x.shape[-1])

    def to_blocks(self, weight: Tensor) -> Tensor:
        return weight.T.unsqueeze(0)


class Shift(nn.Module):
    """A layer with nothing but a bias per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.reshape(-1, 1)


@register_rule(Shift)
class ShiftRule(Rule):
    weight = None

    def grads(self, module: Any, g: Tensor) -> Tensor:
        return g.transpose(1, 2).unsqueeze(2)


RULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 3), (5, 4)),
    "linear-no-bias": (nn.Linear(4, 3, bias=False), (5, 4)),
    "linear-shared": (nn.Linear(4, 3), (2, 5, 4)),
    "linear-shared-twice": (nn.Linear(2, 3), (2, 3, 2, 2)),
    "linear-one-output": (nn.Linear(3, 1), (4, 3)),
    "conv1d": (nn.Conv1d(2, 3, 3, stride=2, padding=1), (3, 2, 7)),
    "conv1d-circular": (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (3, 2, 5)),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1), (3, 2, 4, 5)),
    "conv2d-no-bias": (nn.Conv2d(2, 3, 3, bias=False), (3, 2, 4, 5)),
    "conv2d-grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 4, 3)),
    "conv2d-depthwise": (nn.Conv2d(3, 6, 2, groups=3), (2, 3, 4, 3)),
    "conv2d-circular": (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular"), (2, 2, 4, 4)),
    "conv2d-reflect": (nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 2, 4, 3)),
    "conv2d-replicate": (nn.Conv2d(2, 2, 3, padding=2, padding_mode="replicate"), (2, 2, 3, 3)),
    "conv2d-same": (nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 2, 4, 5)),
    "conv2d-same-dilated": (nn.Conv2d(1, 2, (2, 3), padding="same", dilation=3), (2, 1, 4, 5)),
    "conv2d-same-circular": (
        nn.Conv2d(1, 2, (2, 4), padding="same", padding_mode="circular"),
        (2, 1, 4, 4),
    ),
    "conv2d-valid": (nn.Conv2d(2, 3, 2, padding="valid"), (2, 2, 3, 3)),
    "conv2d-all": (
        nn.Conv2d(
            4,
            2,
            (3, 2),
            stride=(2, 3),
            padding=(3, 1),
            dilation=(2, 1),
            groups=2,
            padding_mode="circular",
        ),
        (2, 4, 5, 6),
    ),
    "conv3d": (nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=1), (2, 1, 2, 3, 2)),
    "conv3d-circular": (
        nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular", groups=2),
        (1, 2, 2, 2, 3),
    ),
    "blocklinear": (BlockLinear((2, 3, 4), order=(0, 1, 2)), (5, 2, 4)),
    "blocklinear-permuted": (BlockLinear((3, 2, 4), order=(1, 0, 2)), (5, 2, 4)),
    "blocklinear-cycled": (BlockLinear((4, 2, 3), order=(1, 2, 0)), (5, 2, 4)),
    "third-party": (Transposed(), (5, 3)),
    "third-party-shared": (Transposed(), (2, 4, 3)),
    "bias-only": (Shift(), (4, 2, 3)),
}


@pytest.mark.parametrize("name", RULES)
def test_rule_states_what_the_module_computes(name: str) -> None:
    module, shape = RULES[name]
    assert_rule(module, torch.randn(shape))


@pytest.mark.parametrize("name", [name for name in RULES if name.startswith("conv")])
def test_patches_are_the_definitions(name: str) -> None:
    conv, shape = RULES[name]
    x = torch.randn(shape, dtype=torch.float64)
    a = curvature.rule_for(conv).inputs(conv, x)
    assert_near(a.flatten(2), slow_patches(conv, x), 0.0)


@pytest.mark.parametrize("name", [n for n in RULES if n.startswith(("linear", "conv", "block"))])
def test_weight_times_inputs_is_the_output(name: str) -> None:
    module, shape = RULES[name]
    module, x = module.double(), torch.randn(shape, dtype=torch.float64)
    rule = rule_for(module)
    with torch.no_grad():
        weight = getattr(module, rule.weight).normal_()
        products = torch.einsum("boi,nrbi->nrbo", rule.to_blocks(weight), rule.inputs(module, x))
        out = module(x) if rule.bias is None or module.bias is None else module(x) - _bias(module)
    # for these modules the map from products to outputs is a rearrangement, which grads inverts
    assert_near(rule.grads(module, out), products, 1e-12)


def _bias(module: nn.Module) -> Tensor:
    spatial = () if isinstance(module, nn.Linear) else (1,) * len(module.kernel_size)
    return module.bias.reshape(-1, *spatial)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian", "bernoulli"])
def test_one_sample_and_one_position_is_exact(likelihood: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, (3, 4)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3, 4),
        nn.Tanh(),
        nn.Linear(4, 3),
    ).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    y = (
        torch.ones(1, 3, dtype=torch.float64)
        if likelihood != "categorical"
        else torch.ones(1).long()
    )
    found = curvature.kronecker(model, (x, y), likelihood)
    exact = per_parameter(model, curvature.dense_ggn(model, (x, y), likelihood))
    assert list(found) == list(exact)
    for name, block in found.items():
        assert_near(block.to_dense(), exact[name])


@pytest.mark.parametrize(
    "which", [c for c in CASES if c.name.startswith(("mlp", "linear"))], ids=str
)
def test_biases_of_one_position_are_exact_for_any_data(which: Case) -> None:
    model, data = which.make()
    found = curvature.kronecker(model, data, which.likelihood)
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    for name in (name for name in found if name.endswith("bias")):
        assert_near(found[name].to_dense(), exact[name])


def test_linear_network_with_gaussian_noise_is_kron_of_identity_and_gram() -> None:
    x = torch.randn(7, 4, dtype=torch.float64)
    net, y = nn.Linear(4, 3, bias=False).double(), torch.zeros(7, 3, dtype=torch.float64)
    found = curvature.kronecker(net, (x, y), "gaussian")["weight"]
    want = torch.kron(torch.eye(3, dtype=torch.float64), x.T @ x)
    assert_near(found.to_dense(), want)
    assert_near(curvature.dense_ggn(net, (x, y), "gaussian"), want)
    noisy = curvature.kronecker(net, (x, y), curvature.Gaussian(0.5))["weight"]
    assert_near(noisy.to_dense(), 4 * want)


def in_block(block: curvature.KroneckerBlocks) -> Tensor:
    """Which pairs of elements lie in the same block, [P, P]."""
    index = torch.arange(block.shape.numel()).reshape(block.shape)
    owner = torch.zeros(block.shape.numel(), dtype=torch.long)
    for b, members in enumerate(block.layout.to_blocks(index)):
        owner[members.reshape(-1)] = b
    return owner.unsqueeze(0) == owner.unsqueeze(1)


@pytest.mark.parametrize("channels", [1, 2])
def test_factored_layer_is_exact_on_one_sample_inside_its_blocks(channels: int) -> None:
    out = 1 if channels == 1 else 3
    model = Factored(channels, out, 4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    data = torch.randn(1, channels, 4, dtype=torch.float64), torch.zeros(1).long()
    found = curvature.kronecker(model, data)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for name, blocks in (("read.weight", channels), ("write.weight", out)):
        block = found[name]
        assert block.inputs.blocks == blocks
        inside = in_block(block)
        assert_near(block.to_dense(), torch.where(inside, exact[name], 0.0))
        assert bool(inside.all()) == (channels == 1)


def test_groups_of_a_convolution_are_convolutions() -> None:
    conv = nn.Conv2d(4, 6, 2, groups=2).double()
    parts = [nn.Conv2d(2, 3, 2).double() for _ in range(2)]
    for part, w, b in zip(parts, conv.weight.chunk(2), conv.bias.chunk(2), strict=True):
        part.load_state_dict({"weight": w.detach(), "bias": b.detach()})

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, x: Tensor) -> Tensor:
            pairs = zip(self.parts, x.chunk(2, dim=1), strict=True)
            return torch.cat([part(c) for part, c in pairs], dim=1)

    head = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)).double()
    x, y = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    whole = curvature.kronecker(nn.Sequential(conv, head), (x, y))
    split = curvature.kronecker(nn.Sequential(Split(), head), (x, y))
    for kind in ("weight", "bias"):
        want = torch.block_diag(*(split[f"0.parts.{i}.{kind}"].to_dense() for i in range(2)))
        assert_near(whole[f"0.{kind}"].to_dense(), want)


def test_circular_padding_is_explicit_padding() -> None:
    inner = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular").double()
    outer = nn.Conv2d(2, 3, 3).double()
    outer.load_state_dict(inner.state_dict())
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double()
    data = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = curvature.kronecker(nn.Sequential(inner, head), data)
    padded = nn.Sequential(nn.CircularPad2d(1), outer)
    want = curvature.kronecker(nn.Sequential(padded, head), data)
    for kind in ("weight", "bias"):
        assert_near(found[f"0.{kind}"].to_dense(), want[f"0.1.{kind}"].to_dense())


def test_third_partys_rule_is_exact_on_one_sample() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), Transposed()).double()
    data = torch.randn(1, 3, dtype=torch.float64), torch.tensor([1])
    found = curvature.kronecker(model, data)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    assert found.coverage.names("fixed") == []
    for name, block in found.items():
        assert_near(block.to_dense(), exact[name])


def test_registering_takes_module_classes() -> None:
    with pytest.raises(TypeError, match="takes module classes"):
        register_rule(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="takes module classes"):
        register_rule(int)


def test_rule_is_for_the_exact_class_and_its_own_forward() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    assert rule_for(Doubled(1, 1, 1)) is None
    assert rule_for(nn.ReLU()) is None
    replaced = nn.Linear(2, 2)
    assert rule_for(replaced) is not None
    replaced.forward = lambda x: 2 * x  # type: ignore[method-assign]
    assert rule_for(replaced) is None


def test_convolution_needs_a_batch_axis() -> None:
    conv = nn.Conv2d(1, 2, 2)
    with pytest.raises(
        ValueError, match=r"called on \[1, 3, 3\]; its curvature needs a batch axis"
    ):
        rule_for(conv).inputs(conv, torch.zeros(1, 3, 3))


def test_rule_without_weight_has_no_layout() -> None:
    with pytest.raises(TypeError, match="declares no weight"):
        ShiftRule(Shift()).weight_layout()


def test_default_inverse_is_numerical() -> None:
    rule = rule_for(Transposed())
    w = torch.randn(3, 2)
    assert torch.equal(rule.from_blocks(rule.to_blocks(w)), w)
