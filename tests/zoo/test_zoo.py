"""wrap on the networks of torchvision and timm: the same function, unchanged by hand."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from benchmarks.support import zoo
from benchmarks.support.zoo import ZOO, Entry, difference, differences, examine, run
from symlearn.relaxed import relaxed_layers
from tests.conftest import need

# small ones, each with something of its own: norms, groups, branches, attention, checkpoints
QUICK = (
    *("lenet", "unet", "dilated", "signal", "resnet18 with GroupNorm", "mobilenet_v3_small"),
    *("densenet121 with checkpoints", "squeezenet1_1", "shufflenet_v2_x1_0", "timm/repvgg_a0"),
    *("timm/ghostnet_100", "timm/tf_efficientnet_b0", "timm/convnextv2_atto"),
    "timm/edgenext_xx_small",
)


def entry(name: str) -> Entry:
    if ZOO[name].library != "own":
        need(ZOO[name].library)
    return ZOO[name]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO]
)
@pytest.mark.filterwarnings("ignore:of .* convolutions, wrap leaves alone")
def test_the_function_is_kept(name: str) -> None:
    outcome = examine(entry(name))
    assert not outcome.problems
    assert outcome.relaxed
    assert outcome.worst <= 1


def test_the_zoo_has_the_families() -> None:
    libraries = [e.library for e in ZOO.values()]
    assert libraries.count("timm") >= 15
    assert libraries.count("torchvision") >= 15


@pytest.mark.parametrize("name", ["timm/lcnet_050", "mobilenet_v3_small"])
@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(b, marks=pytest.mark.slow) for b in ("aot_eager",))]
)
def test_compiled(name: str, backend: str) -> None:
    net, x = entry(name).network().eval(), ZOO[name].images()
    relaxed = symlearn.wrap(net, x, layers=symlearn.last_stages(1), memory_limit_gib=100)
    compiled: Any = torch.compile(zoo.shaken(relaxed), backend=backend)
    assert difference(run(compiled, x), run(relaxed, x)) <= 1e-5


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    net, x = ZOO["lenet"].network().eval(), ZOO["lenet"].images()
    relaxed = zoo.shaken(symlearn.wrap(net, x))
    compiled: Any = torch.compile(relaxed)
    assert difference(run(compiled, x), run(relaxed, x)) <= 1e-5


def test_gradients_of_a_resnet_are_kept() -> None:
    """Those of all parameters that the original has, and of its input."""
    net, x = entry("resnet18 with GroupNorm").network().double(), torch.randn(2, 3, 32, 32).double()
    relaxed = symlearn.wrap(net, x, layers=symlearn.last_stages(1), memory_limit_gib=100)
    grads = []
    for model in (net, relaxed):
        image = x.clone().requires_grad_()
        model(image).square().sum().backward()
        grads.append(
            {n.replace("paths.conv.conv.", ""): p.grad for n, p in model.named_parameters()}
        )
        grads[-1]["input"] = image.grad
    theirs, ours = grads
    assert {name for name in ours if "paths" not in name} == set(theirs)
    for name, g in theirs.items():
        torch.testing.assert_close(ours[name], g, rtol=1e-9, atol=1e-12)


def test_on_another_device_and_in_another_layout() -> None:
    net, x = entry("mobilenet_v3_small").network().eval(), ZOO["mobilenet_v3_small"].images()
    relaxed = symlearn.wrap(net, x, layers=symlearn.last_stages(1), memory_limit_gib=100)
    last = copy.deepcopy(relaxed).to(memory_format=torch.channels_last)
    image = x.to(memory_format=torch.channels_last)
    assert difference(run(last, image), run(net, x)) <= 1e-5
    (out,) = run(relaxed.to("meta"), x.to("meta"))
    assert (out.device.type, tuple(out.shape)) == ("meta", (2, zoo.CLASSES))


def test_hooks_of_the_user_still_run() -> None:
    """On other modules, with the copy, and on relaxed layers after wrapping."""
    net, x = ZOO["dilated"].network().eval(), ZOO["dilated"].images()
    net[1].register_forward_hook(lambda module, args, out: out + 1)
    seen: list[str] = []
    net[11].register_full_backward_hook(lambda module, before, after: seen.append("backward"))
    relaxed = symlearn.wrap(net, x)
    assert difference(run(relaxed, x), run(net, x)) <= 1e-5
    layer = relaxed_layers(relaxed)["3"]
    layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    layer.register_forward_hook(lambda module, args, out: 0 * out)
    relaxed(x).sum().backward()
    assert seen == ["before", "backward"]
    assert not layer.path("conv").conv.weight.grad.any()


def test_subclasses_are_left_alone_with_a_warning() -> None:
    net, x = entry("timm/tf_efficientnet_b0").network(), torch.randn(1, 3, 32, 32)
    said = r"of 81 convolutions, wrap leaves alone 5 \(subclass Conv2dSame of nn.Conv2d\)"
    with pytest.warns(UserWarning, match=said):
        symlearn.wrap(net, x, paths="conv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        symlearn.wrap(net, x, paths="conv", layers="conv_head")
    alone = symlearn.plan(net, x).left_alone
    assert {row.reason for row in alone} == {"subclass Conv2dSame of nn.Conv2d"}
    assert [row.layer for row in alone][0] == "conv_stem"
    with pytest.raises(ValueError, match=r"named \['conv_stem'\].*left alone are \['conv_stem'"):
        symlearn.wrap(net, x, layers="conv_stem")


def test_a_network_of_subclasses_has_nothing_to_relax() -> None:
    timm = need("timm")
    net, x = timm.create_model("nf_resnet26", num_classes=2), torch.randn(1, 3, 32, 32)
    reason = "subclass ScaledStdConv2d of nn.Conv2d"
    plan = symlearn.plan(net, x)
    assert not plan.relaxed
    assert {row.reason for row in plan.rows} == {reason}
    with pytest.raises(ValueError, match=f"no convolution is selected.*left alone.*{reason}"):
        symlearn.wrap(net, x)


def test_code_that_reads_a_convolution_is_named() -> None:
    net, x = entry("timm/edgenext_xx_small").network(), torch.randn(1, 3, 64, 64)
    (name,) = ZOO["timm/edgenext_xx_small"].leave_out
    with pytest.raises(ValueError, match=f"(?s)leave out with layers=.*{name}: .*'weight'"):
        symlearn.wrap(net, x, paths="conv")


# --- the comparison can fail -------------------------------------------------------------------


def net_and_images() -> tuple[nn.Module, torch.Tensor]:
    return ZOO["dilated"].network(), ZOO["dilated"].images()


@pytest.mark.parametrize("value", [1e-3, float("nan")])
def test_a_change_of_the_function_is_seen(value: float) -> None:
    net, x = net_and_images()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[12].bias[0] += value
    assert not differences(net, other, x)["eval"] <= 1e-5


def test_a_change_of_the_statistics_is_seen() -> None:
    net, x = net_and_images()
    other = copy.deepcopy(net)
    other[1].momentum = 0.5
    found = differences(net, other, x)
    assert found["statistics"] > 0.1
    assert found["train"] <= 1e-5


def test_other_random_numbers_are_seen() -> None:
    net, x = net_and_images()
    other = copy.deepcopy(net)
    other[7].register_forward_pre_hook(lambda module, args: torch.rand(1) and None)
    assert differences(net, other, x)["train"] > 1e-3


def test_outputs_that_show_nothing_are_refused() -> None:
    ones = [torch.ones(2, 3)]
    with pytest.raises(ValueError, match="constant"):
        difference(ones, ones)
    with pytest.raises(ValueError, match="number or shape"):
        difference(ones, [torch.randn(3, 2)])
