"""Curvature passes on networks of the zoo: what is covered, and that nothing is changed."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
import symlearn
from benchmarks.support.zoo import CLASSES, ZOO
from tests.conftest import need
from tests.nets import make


def found_without_change(model: nn.Module, x: Tensor, **options: Any) -> curvature.Coverage:
    """Coverage of a pass over some images, after a check that the pass changed nothing."""
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    found = curvature.kronecker(model, (x, torch.arange(len(x)) % 3), **options)
    after = model.state_dict()
    assert list(after) == list(before)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed
    assert modes == [m.training for m in model.modules()]
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    fixed = found.coverage.names("fixed")
    assert list(found) == [row.name for row in found.coverage if row.name not in fixed]
    return found.coverage


def wrapped(name: str, layers: Any, paths: Any = ("conv", "ffc")) -> tuple[nn.Module, Tensor]:
    if ZOO[name].library != "own":
        need(ZOO[name].library)
    net, x = ZOO[name].network(), torch.randn(4, 3, 32, 32)
    return symlearn.wrap(net, x, layers=layers, paths=paths, memory_limit_gib=100).train(), x


@pytest.mark.core
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("estimator", ["exact", "mc"])
def test_batch_norm_stays_as_it_is(mode: bool, estimator: str) -> None:
    net, x = make("residual")
    relaxed = symlearn.wrap(net, x).train(mode)
    assert any(name.endswith("num_batches_tracked") for name in relaxed.state_dict())
    coverage = found_without_change(relaxed, x, estimator=estimator)
    norms = [row for row in coverage if row.module == "BatchNorm2d"]
    assert len(norms) == 8
    assert {row.kind for row in norms} == {"fixed"}


@pytest.mark.core
def test_a_change_would_be_seen() -> None:
    net, x = make("residual")
    bad = symlearn.wrap(net, x)
    counts = dict(bad.named_buffers())["1.norm1.num_batches_tracked"]
    bad.register_forward_hook(lambda module, args, out: counts.add_(1) and None)
    with pytest.raises(AssertionError):
        found_without_change(bad, x)


def test_a_resnet_with_late_layers_relaxed() -> None:
    """In-place activations, residual sums, a shortcut with a stride."""
    relaxed, x = wrapped("resnet18", "layer3.1.*")
    coverage = found_without_change(relaxed, x, estimator="sketch")
    counts = Counter((row.kind, row.module) for row in coverage)
    assert counts == {
        ("kronecker", "Conv2d"): 20,
        ("kronecker", "BlockLinear"): 4,
        ("kronecker", "Linear"): 2,
        ("fixed", "BatchNorm2d"): 40,
    }


@pytest.mark.slow
def test_a_resnet_with_its_last_stage_relaxed() -> None:
    relaxed, x = wrapped("resnet18", symlearn.last_stages(1))
    coverage = found_without_change(relaxed, x, estimator="sketch")
    assert {row.kind for row in coverage if row.module == "BlockLinear"} == {"kronecker"}
    assert not coverage.names("diagonal")


def test_scales_of_layers_follow_the_fallback() -> None:
    relaxed, x = wrapped("convnext_tiny", symlearn.last_stages(1), "conv")
    with pytest.raises(curvature.UncoveredParameterError, match=r"(?s)features.1.0.layer_scale.*"):
        curvature.kronecker(relaxed, (x, torch.arange(4) % CLASSES))
    rows = {row.name: row for row in curvature.coverage(relaxed, fallback="diagonal")}
    assert rows["features.1.0.layer_scale"].kind == "diagonal"
    assert rows["features.0.1.weight"].reason == "normalisation scale or shift"


def test_squeeze_and_excitation_is_covered() -> None:
    relaxed, x = wrapped("timm/lcnet_050", symlearn.last_stages(1), "conv")
    with pytest.raises(curvature.UncoveredParameterError, match="classifier.weight.* of Linear"):
        curvature.kronecker(relaxed, (x, torch.arange(4)))  # the library's own class of that name
    coverage = found_without_change(relaxed, x, estimator="sketch", fallback="fixed")
    assert {row.kind for row in coverage if ".se." in row.name} == {"kronecker"}
    assert {row.kind for row in coverage if "BatchNorm" in row.module} == {"fixed"}


def test_response_normalisation_follows_the_fallback() -> None:
    """ConvNeXt V2, whose blocks scale channels by their norm over sites."""
    relaxed, x = wrapped("timm/convnextv2_atto", symlearn.last_stages(1), "conv")
    coverage = found_without_change(relaxed, x, estimator="sketch", fallback="diagonal")
    diagonal = coverage.names("diagonal")
    assert diagonal
    assert all(".grn." in name for name in diagonal)


@pytest.mark.core
def test_channels_last_gives_the_same_curvature() -> None:
    net, x = ZOO["dilated"].network().double(), ZOO["dilated"].images(4).double()
    relaxed, y = symlearn.wrap(net, x), torch.arange(4) % CLASSES
    last = copy.deepcopy(relaxed).to(memory_format=torch.channels_last)
    plain = curvature.kronecker(relaxed, (x, y))
    found = curvature.kronecker(last, (x.to(memory_format=torch.channels_last), y))
    for name in ("3.paths.conv.conv.weight", "8.paths.conv.conv.weight", "12.weight"):
        torch.testing.assert_close(found[name].to_dense(), plain[name].to_dense())
