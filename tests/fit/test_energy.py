"""Energies of paths enter the steps of the weights and the evidence as priors do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.fit.energy import add_energy, energy
from symlearn.generators.closure import closure, overlap
from symlearn.paths import LConv
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_cnn
from tests.paths.layers import drawn, geometry

pytestmark = pytest.mark.core
CONFIG = FitConfig(epochs=2, progress=False, batch_size=40, grow=False, check_images=0)


def relaxed(**options: float) -> nn.Module:
    spec = LConv(3, rank=2, **options)  # type: ignore[arg-type]
    x = torch.zeros(1, 1, 8, 8)
    return symlearn.wrap(tiny_cnn(), x, paths=("conv", spec), layers="2", init="fresh").double()


def data() -> Any:
    x, y = blobs(80)
    return x.double(), y


def test_the_energy_is_that_of_the_learned_generators() -> None:
    path = drawn(LConv(3, rank=2, closure=4.0, orthogonality=6.0), geometry())
    u, v = (torch.stack([getattr(path.terms[f"L{i}"], f).weight for i in (1, 2, 3)]) for f in "UV")
    expected = 2 * closure(u, v) + 3 * overlap(u, v)
    torch.testing.assert_close(path.energy(), expected)
    before = path.energy()
    for p in path.parameters():
        p.data.mul_(3.0)
    torch.testing.assert_close(path.energy(), before, rtol=1e-6, atol=1e-8)
    assert drawn(LConv(3, rank=2), geometry()).energy() is None
    assert drawn(LConv(1, rank=2, closure=4.0), geometry()).energy() is None


def test_gradients_of_a_mean_loss_get_their_share() -> None:
    model = relaxed(closure=5.0)
    x, y = data()
    loss = nn.functional.cross_entropy(model(x), y)
    total = loss + energy(model) / 80  # type: ignore[operator]
    wanted = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    loss.backward()
    add_energy(model, 80)
    for (name, p), g in zip(model.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, msg=name)


def test_the_evidence_counts_the_energy_and_its_gradient() -> None:
    plain = Fitting(relaxed(), data(), CONFIG)
    strong = Fitting(relaxed(orthogonality=5.0), data(), CONFIG)
    value = energy(strong.model)
    assert value is not None
    assert energy(plain.model) is None
    found, other = (run.precisions.measure(run.state, 0, "exact") for run in (plain, strong))
    assert other.log_likelihood == pytest.approx(found.log_likelihood - float(value.detach()))
    named = {n: p for n, p in strong.model.named_parameters() if n in other.gradients}
    slopes = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    assert any(g is not None and g.any() for g in slopes)
    for (name, p), g in zip(named.items(), slopes, strict=True):
        expected = found.gradients[name] + (torch.zeros_like(p) if g is None else g)
        torch.testing.assert_close(other.gradients[name], expected, msg=name)


def test_a_strong_prior_makes_generators_orthogonal() -> None:
    overlaps = []
    for strength in (0.0, 2000.0):
        run = Fitting(relaxed(orthogonality=strength), data(), CONFIG)
        path = relaxed_layers(run.model)["2"].path("lconv")
        with torch.no_grad():  # nearly parallel to begin with
            for factor in ("U", "V"):
                source = path.get_parameter(f"terms.L1.{factor}.weight")
                target = path.get_parameter(f"terms.L2.{factor}.weight")
                target.copy_(0.7 * source + 0.3 * target)
        for _ in range(4):
            run._train(run.state)
        u, v = (
            torch.stack([path.get_parameter(f"terms.L{i}.{f}.weight") for i in (1, 2, 3)])
            for f in "UV"
        )
        overlaps.append(float(overlap(u, v).detach()))
    assert overlaps[1] < 0.5 * overlaps[0]


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_bad_strengths(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        LConv(closure=wrong)


def test_layers_that_change_the_size_have_no_commutators() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU())
    with pytest.raises(ValueError, match="no commutators"):
        symlearn.wrap(net, torch.zeros(1, 1, 8, 8), paths=("conv", LConv(2, closure=1.0)))
