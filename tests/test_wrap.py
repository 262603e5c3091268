"""wrap: the same function with room to relax it, and errors that name what is wrong."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import curvature
import symlearn
from symlearn import Circular, RelaxedLayer
from symlearn.relaxed import relaxed_layers
from symlearn.wrap import prior_groups
from tests.conftest import need
from tests.nets import NETS, Shared, assert_same_function, conv, make
from tests.paths.cases import CONVS
from tests.shifts import shifted

pytestmark = pytest.mark.core
D = torch.float64


@pytest.mark.parametrize("paths", [("conv", "ffc"), ("ffc", "conv"), ("fc",), ("ffc", "fc")])
@pytest.mark.parametrize("name", CONVS)
def test_any_convolution_keeps_its_function(name: str, paths: tuple[str, ...]) -> None:
    build, size = CONVS[name]
    net = nn.Sequential(build(), nn.Tanh()).double()
    x = torch.randn(3, net[0].in_channels, *size, dtype=D)
    relaxed = symlearn.wrap(net, x[:1], paths=paths)
    assert list(relaxed[0].paths) == list(paths)
    assert_same_function(net, relaxed, x)


@pytest.mark.parametrize("name", NETS)
def test_networks_keep_their_function(name: str) -> None:
    net, x = make(name)
    relaxed = symlearn.wrap(net, x[:1])
    assert set(relaxed_layers(relaxed)) == {
        n for n, m in net.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    }
    assert_same_function(net, relaxed, x)


@settings(max_examples=30)
@given(data=st.data())
def test_random_stacks_keep_their_function(data: st.DataObject) -> None:
    draw, layers, channels = data.draw, [], 2
    for _ in range(draw(st.integers(1, 3))):
        groups, wide = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4]))
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
        padding = draw(st.sampled_from(["same", (1, 0), (1, 1)]))
        stride = 1 if padding == "same" else draw(st.integers(1, 2))
        layers += [
            nn.Conv2d(channels, wide, kernel, stride, padding, groups=groups, padding_mode=mode,
                      bias=draw(st.booleans())),
            nn.BatchNorm2d(wide), nn.ReLU(),
        ]  # fmt: skip
        channels = wide
    net, x = nn.Sequential(*layers).double(), torch.randn(3, 2, 12, 9, dtype=D)
    assert_same_function(net, symlearn.wrap(net, x), x)


def test_the_strict_path_holds_the_filters_in_any_order() -> None:
    net, x = nn.Sequential(conv(2, 3)).double(), torch.randn(1, 2, 4, 4, dtype=D)
    relaxed = symlearn.wrap(net, x, paths=("fc", "ffc", "conv"))
    paths = relaxed[0].named_paths()
    assert torch.equal(paths["conv"].conv.weight, net[0].weight)
    assert {name: path.contributes() for name, path in paths.items()} == {
        "fc": False,
        "ffc": False,
        "conv": True,
    }


def test_the_given_model_is_left_alone() -> None:
    net, x = make("residual")
    net.train()
    net[1].eval()
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    state = torch.get_rng_state()
    relaxed = symlearn.wrap(net, x, boundary="circular")
    assert torch.equal(torch.get_rng_state(), state)
    assert list(before) == list(net.state_dict())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in relaxed.parameters()}
    assert not shared


@pytest.mark.parametrize("boundary", ["keep", "circular"])
@pytest.mark.parametrize("mode", [False, True])
def test_the_mode_is_that_of_the_model(boundary: str, mode: bool) -> None:
    net, x = make("max-pooled")
    relaxed = symlearn.wrap(net.train(mode), x, boundary=boundary)
    assert {m.training for m in relaxed.modules()} == {mode}


def test_a_convolution_used_twice_is_one_layer() -> None:
    net, x = make("shared")
    relaxed = symlearn.wrap(net, x)
    assert isinstance(relaxed, Shared)
    assert relaxed.twice is relaxed.alias["again"]
    assert list(relaxed_layers(relaxed)) == ["stem", "twice"]
    calls: list[Tensor] = []
    relaxed.twice.register_forward_hook(lambda m, args, out: calls.append(out))
    relaxed(x)
    assert len(calls) == 2


def test_a_convolution_that_does_not_run_is_left_alone() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = conv(1, 2), conv(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    relaxed = symlearn.wrap(Spare(), torch.randn(1, 1, 4, 4), boundary="circular")
    assert type(relaxed.spare) is nn.Conv2d
    assert type(relaxed.used) is RelaxedLayer


def test_frozen_convolutions_learn_unless_left_out() -> None:
    net, x = make("residual")
    net.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"\['1.conv1'\] are frozen"):
        relaxed = symlearn.wrap(net, x, layers="1.conv1", boundary="circular")
    learnable = {name for name, p in relaxed.named_parameters() if p.requires_grad}
    theta = {f"1.conv1.paths.ffc.theta{i}.weight" for i in (1, 2)}
    assert learnable == {"1.conv1.paths.conv.conv.weight"} | theta
    with pytest.warns(UserWarning, match="are frozen"):
        assert_same_function(net, symlearn.wrap(net, x), x)


def test_fresh_weights_on_request() -> None:
    net, x = make("strided")
    first, again, other = (
        symlearn.wrap(net, x, paths=("ffc",), init="fresh", seed=s) for s in (1, 1, 2)
    )
    a, b, c = (m[0].path("ffc").theta2.weight for m in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not first[0].bias.any()
    assert torch.equal(first[7].weight, net[7].weight)


@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_state_survives_saving_and_copying(boundary: str) -> None:
    net, x = make("residual")
    relaxed = symlearn.wrap(net, x, boundary=boundary)
    for layer in relaxed_layers(relaxed).values():
        layer.reset_parameters(torch.Generator().manual_seed(3))
    file = io.BytesIO()
    torch.save(relaxed.state_dict(), file)
    file.seek(0)
    other = symlearn.wrap(net, x, boundary=boundary)
    assert not torch.equal(other(x), relaxed(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), relaxed(x))
    twin = copy.deepcopy(relaxed)
    assert torch.equal(twin(x), relaxed(x))
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(other(x), relaxed(x))
    low = relaxed.to(torch.float32)
    torch.testing.assert_close(low(x.float()), other(x).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_gradients_reach_every_weight(boundary: str) -> None:
    """Except theta1, which has no gradient while theta2 is zero."""
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, paths=("conv", "fc", "ffc"), boundary=boundary).train()
    F.cross_entropy(relaxed(x), torch.tensor([0, 1, 2, 0])).backward()
    missed = {name for name, p in relaxed.named_parameters() if p.grad is None or not p.grad.any()}
    assert missed == {f"{i}.paths.ffc.theta1.weight" for i in (0, 3)} | (
        {"0.bias", "3.bias"} & missed  # a bias before batch normalisation has none either
    )
    assert {"0.bias"} >= missed & {"0.bias", "3.bias"}


@pytest.mark.parametrize("boundary", ["keep", Circular(), Circular("polyphase")])
def test_functional_calls_and_vmap(boundary: Any) -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, boundary=boundary)
    params = {name: p.detach() for name, p in relaxed.named_parameters()}

    def one(p: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(relaxed, p, (image.unsqueeze(0),))[0]

    outputs = torch.func.vmap(one, in_dims=(None, 0))(params, x)
    torch.testing.assert_close(outputs, relaxed(x), rtol=0, atol=1e-12)
    jacobian = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(params, x)
    out = relaxed(x)
    for n, k in ((0, 1), (3, 2)):
        slow = torch.autograd.grad(out[n, k], list(relaxed.parameters()), retain_graph=True)
        for name, g in zip(params, slow, strict=True):
            torch.testing.assert_close(jacobian[name][n, k], g, rtol=0, atol=1e-11)


def test_the_curvature_of_a_circular_network_is_exact_for_its_head() -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, boundary="circular")
    for name, p in relaxed.named_parameters():
        p.requires_grad_(name == "7.weight")
    data = (x[:1], torch.tensor([1]))
    found = curvature.kronecker(relaxed, data)["7.weight"].to_dense()
    torch.testing.assert_close(found, curvature.dense_ggn(relaxed, data), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("boundary", ["keep", Circular(), Circular("polyphase")])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_networks(boundary: Any, backend: str) -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, boundary=boundary)
    compiled = torch.compile(relaxed, backend=backend)
    torch.testing.assert_close(compiled(x), relaxed(x), rtol=0, atol=1e-9)
    grads = [
        torch.autograd.grad(m(x).square().sum(), list(relaxed.parameters()), allow_unused=True)
        for m in (compiled, relaxed)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("boundary", ["keep", Circular(), Circular("polyphase")])
def test_everything_stays_on_the_device_of_the_model(boundary: Any) -> None:
    """On the meta device, where an operation with a tensor of the CPU fails."""
    net, x = make("max-pooled")
    net, x = net.to("meta").train(), x.to("meta")
    relaxed = symlearn.wrap(net, x, paths=("conv", "fc", "ffc"), boundary=boundary)
    out = relaxed(x)
    assert (out.device.type, tuple(out.shape)) == ("meta", (4, 3))
    out.sum().backward()
    for layer in relaxed_layers(relaxed).values():
        maps = torch.empty(4, layer.geometry.in_channels, *layer.geometry.in_size, device="meta")
        g = torch.empty(4, layer.geometry.out_channels, *layer.geometry.out_size, device="meta")
        for path in layer.named_paths().values():
            path.propose(maps.double(), g.double())
            path.seed(torch.empty_like(path.tested()), 0.1)
            path.reset_parameters(torch.Generator().manual_seed(0))


def test_a_resnet() -> None:
    resnets = need("torchvision.models")
    net = resnets.resnet18(num_classes=5).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=D)
    relaxed = symlearn.wrap(net, x, memory_limit_gib=20)
    assert len(relaxed_layers(relaxed)) == 20
    torch.testing.assert_close(relaxed(x), net(x), rtol=0, atol=1e-12)
    circular = symlearn.wrap(net, x, paths="conv", boundary="circular")
    expected = circular(x)
    assert expected.std(0).min() > 1e-6
    for by in [(1, 0), (5, 2), (16, 31)]:
        torch.testing.assert_close(circular(shifted(x, by)), expected, rtol=1e-9, atol=1e-12)


def test_prior_groups() -> None:
    net, x = make("strided")
    net[3].weight.requires_grad_(False)
    relaxed = symlearn.wrap(net, x)
    theta = [f"0.paths.ffc.theta{i}.weight" for i in (1, 2)]
    assert prior_groups(relaxed) == {
        "0.bias": ["0.bias"],
        "0.conv": ["0.paths.conv.conv.weight"],
        "0.ffc": theta,
        "3.bias": ["3.bias"],
        "3.conv": ["3.paths.conv.conv.weight"],
        "3.ffc": [name.replace("0.", "3.", 1) for name in theta],
        "7.weight": ["7.weight"],
        "7.bias": ["7.bias"],
    }
    split = prior_groups(symlearn.wrap(net, x, tie="tensor"))
    assert split["0.ffc.theta1.weight"] == theta[:1]
    assert split["0.ffc.theta2.weight"] == theta[1:]


def test_the_comparison_can_fail() -> None:
    net, x = make("strided")
    for value in (1e-9, float("nan")):
        other = copy.deepcopy(net)
        with torch.no_grad():
            other[7].bias += value
        with pytest.raises(AssertionError):
            assert_same_function(net, other, x)
    other = copy.deepcopy(net)
    other[1].momentum = 0.5
    with pytest.raises(AssertionError):
        assert_same_function(net, other, x)
