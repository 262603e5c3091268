"""Forward passes in bfloat16, and weights, factors and evidence in the precision they had."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

import symlearn
from curvature import Categorical
from symlearn import FitConfig
from symlearn.fit.autocast import autocast
from symlearn.fit.evidence import evidence_of, measure
from tests.fit.problems import blobs, both_on, tiny_relaxed

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))]  # fmt: skip
X, Y = blobs(40, place=True)


def seen_types(net: nn.Module, x: Tensor) -> set[torch.dtype]:
    """Types of the outputs of the network's linear layers and convolutions."""
    kinds: list[torch.dtype] = []
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda m, args, out: kinds.append(out.dtype))
    net(x)
    return set(kinds)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ekfac", [False, True])
def test_evidence_at_the_same_weights(device: str, ekfac: bool) -> None:
    run = both_on()
    model, prior = run.model.to(device), run.state.prior
    batches = [(X.to(device), Y.to(device))]
    values = []
    for enabled in (False, True):
        with autocast(model, enabled):
            found = measure(model, batches, batches, Categorical(), estimator="sketch", ekfac=ekfac)
        values.append(evidence_of(prior, found))
        assert {block.eigenvalues.dtype for block in found.curvature.values()} == {torch.float32}
        assert {g.dtype for g in found.gradients.values()} == {torch.float32}
    assert values[1] == pytest.approx(values[0], rel=0.02)
    assert values[1] != values[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_a_fit_in_bfloat16(device: str, boundary: str) -> None:
    config = FitConfig(
        epochs=3, burn_in=0.3, anneal=0.3, evidence_every=1, grow_every=1, when_slow=0.0,
        challenge_epochs=0, curvature_samples=40, report_samples=40, progress=False, autocast=True,
    )  # fmt: skip
    net = tiny_relaxed(4, boundary=boundary).to(device)
    result = symlearn.fit(net, (X, Y), config)
    assert math.isfinite(result.log_evidence)
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    full = symlearn.fit(net, (X, Y), dataclasses.replace(config, autocast=False))
    assert result.history[0].train_nll == pytest.approx(full.history[0].train_nll, rel=0.05)
    assert result.history[0].train_nll != full.history[0].train_nll
    probs = result.predict_proba(X)
    assert probs.dtype == torch.float32


def test_only_inside_and_only_forward() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    assert seen_types(net, X) == {torch.float32}
    with autocast(net, True):
        assert seen_types(net, X) == {torch.bfloat16}
        assert net(X).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == torch.float32
    assert seen_types(net, X) == {torch.float32}
    assert not net._forward_pre_hooks
    assert not net._forward_hooks


def test_an_error_in_the_forward_pass_leaves_nothing_behind() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    with autocast(net, True):
        with pytest.raises(RuntimeError, match="shape"):
            net(torch.ones(2, 4))
        assert not torch.is_autocast_enabled("cpu")
        assert net(torch.ones(2, 3)).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
