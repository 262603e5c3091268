"""Absent paths: the test before they are trained, the start, and the way back."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import curvature
import symlearn
from symlearn.fit.grow import absent_paths, start_best, start_path, switch_off_idle
from symlearn.fit.grow import test_absent as score_absent
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_cnn, tiny_relaxed

CATEGORICAL = curvature.Categorical()


def off(model: nn.Module) -> nn.Module:
    switch_off_idle(model)
    return model


def test_idle_paths_are_switched_off_and_leave_the_function() -> None:
    model = tiny_relaxed()
    x, _ = blobs(6)
    model.eval()
    before = model(x)
    assert switch_off_idle(model) == [("0", "ffc"), ("2", "ffc")]
    assert torch.equal(model(x), before)
    assert set(absent_paths(model)) == {("0", "ffc"), ("2", "ffc")}
    assert switch_off_idle(model) == []


def test_testing_leaves_the_model_as_it_was() -> None:
    model = off(tiny_relaxed(4))
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    grads = [p.requires_grad for p in model.parameters()]
    score_absent(model, [blobs(64, place=True)], CATEGORICAL)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert grads == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


def test_absent_path_pays_where_position_matters_and_not_where_it_does_not() -> None:
    x, which = blobs(600)
    _, place = blobs(600, place=True)
    config = symlearn.FitConfig(epochs=25, objective="map", progress=False, batch_size=32)
    gains = {}
    for name, y in (("which", which), ("place", place)):
        conv = symlearn.fit(tiny_relaxed(4, paths="conv"), (x[:400], y[:400]), config).model
        relaxed = off(_with_ffc(conv))
        found = score_absent(relaxed, [(x[400:], y[400:])], CATEGORICAL)
        gains[name] = max(c.test.gain for c in found)
        assert [c.test.gain for c in found] == sorted((c.test.gain for c in found), reverse=True)
    assert gains["place"] > 10
    assert gains["which"] < 1


def _with_ffc(conv: nn.Module) -> nn.Module:
    """The trained circular network with an absent factored path in each layer."""
    model = tiny_relaxed(4)
    own = model.state_dict()
    model.load_state_dict({k: conv.state_dict().get(k, v) for k, v in own.items()})
    return model


def test_gain_of_a_full_path_equals_the_definition_by_dense_curvature() -> None:
    """At zero weights b = -g: the ratio is sum g^2 over the curvature's trace, per testing half."""
    model = off(tiny_relaxed(3, paths=("conv", "fc"))).double()
    x, y = blobs(40)
    x = x.double()
    (found,) = [
        c for c in score_absent(model, [(x, y)], CATEGORICAL, estimator="exact") if c.layer == "2"
    ]
    path = relaxed_layers(model)["2"].path("fc")
    path.switch_on()
    half, labels = x[20:], y[20:]
    model.eval()
    loss = nn.functional.cross_entropy(model(half), labels, reduction="sum")
    (g,) = torch.autograd.grad(loss, path.tested())
    assert torch.allclose(found.descent, -g)
    name = "2.paths.fc.linear.weight"
    block = curvature.kronecker(model, (half, labels), only=[name])[name]
    expected = g.square().sum() / block.to_dense().trace()
    assert found.test.ratio == pytest.approx(float(expected), rel=1e-9)
    assert found.n_data == 20


def test_started_path_lowers_the_loss_and_is_trainable() -> None:
    model = off(tiny_relaxed(4)).eval()
    x, y = blobs(200, place=True)
    best = score_absent(model, [(x, y)], CATEGORICAL)[0]
    before = nll(model, (x, y))
    names = start_path(model, best, 0.01)
    assert names == [
        f"{best.layer}.paths.ffc.theta1.weight",
        f"{best.layer}.paths.ffc.theta2.weight",
    ]
    assert nll(model, (x, y)) < before
    path = relaxed_layers(model)[best.layer].path("ffc")
    assert path.enabled
    assert all(p.requires_grad for p in path.parameters())
    assert path.contributes()


def nll(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    return symlearn.score(model, data, "categorical")["nll"]


def test_best_path_starts_where_it_lowers_the_loss() -> None:
    model, data = off(tiny_relaxed(4)).eval(), blobs(200, place=True)
    found, before = score_absent(model, [data], CATEGORICAL), nll(model, data)
    key = start_best(model, found, symlearn.FitConfig(), [data], CATEGORICAL)
    assert key == (found[0].layer, found[0].path)
    assert nll(model, data) < before


def test_a_start_is_made_smaller_until_it_lowers_the_loss() -> None:
    """At ten times the full size the network would be thrown back."""
    model, data = off(tiny_relaxed(4)).eval(), blobs(200, place=True)
    found, before = score_absent(model, [data], CATEGORICAL), nll(model, data)
    full = copy.deepcopy(model)
    start_path(full, found[0], 10.0)
    assert nll(full, data) > before
    config = symlearn.FitConfig(seed_size=10.0)
    assert start_best(model, found, config, [data], CATEGORICAL) is not None
    assert nll(model, data) < before


def test_a_path_that_leads_upwards_stays_absent() -> None:
    model, data = off(tiny_relaxed(4)).eval(), blobs(200, place=True)
    best = score_absent(model, [data], CATEGORICAL)[0]
    before = copy.deepcopy(model.state_dict())
    upwards = replace(best, descent=-best.descent)
    assert start_best(model, [upwards], symlearn.FitConfig(), [data], CATEGORICAL) is None
    assert (best.layer, best.path) in absent_paths(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("field", ["grow_gain", "grow_ratio"])
def test_a_path_that_does_not_pay_enough_stays_absent(field: str) -> None:
    model, data = off(tiny_relaxed(4)).eval(), blobs(200, place=True)
    found, config = score_absent(model, [data], CATEGORICAL), symlearn.FitConfig(**{field: 1e9})
    assert start_best(model, found, config, [data], CATEGORICAL) is None
    assert len(absent_paths(model)) == len(found)


def test_nothing_to_test() -> None:
    x, y = blobs(10)
    assert score_absent(tiny_relaxed(), [(x, y)], CATEGORICAL) == []
    assert score_absent(off(tiny_relaxed()), [], CATEGORICAL) == []
    assert score_absent(off(tiny_relaxed()), [(x[:1], y[:1])], CATEGORICAL) == []


def test_screen_ranks_plain_and_relaxed_networks() -> None:
    x, y = blobs(200, place=True)
    plain = tiny_cnn(4)
    table = symlearn.screen(plain, (x, y), paths=("ffc", "fc"))
    assert {(r.layer, r.path) for r in table} == {(a, b) for a in "02" for b in ("ffc", "fc")}
    assert [r.gain for r in table] == sorted((r.gain for r in table), reverse=True)
    assert "gain (nats)" in str(table)
    assert table.to_markdown().count("\n") == len(table) + 1
    again = symlearn.screen(plain, (x, y), paths=("ffc", "fc"))
    assert table == again
    relaxed = symlearn.screen(tiny_relaxed(4), (x, y), paths="ffc")
    assert {r.path for r in relaxed} == {"ffc"}
    with pytest.raises(ValueError, match="no layer of the relaxed network has an absent path"):
        symlearn.screen(tiny_relaxed(4), (x, y), paths="fc")


def test_screen_ranks_every_path_beside_the_convolutions_of_a_plain_network() -> None:
    x, y = blobs(60, place=True)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 1),  # a symmetric path could hold all its filters
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )
    names = ("sconv", "sfc", "symconv", "ffc", "fc")
    table = symlearn.screen(net, (x, y), paths=names)
    assert {(r.layer, r.path) for r in table} == {(a, b) for a in "02" for b in names}
    assert all(math.isfinite(r.gain) for r in table)
    lifted = symlearn.lift(net, "p4")  # its filters are those of group convolutions
    assert {r.path for r in symlearn.screen(lifted, (x, y), paths="gconv")} == {"gconv"}
    assert {r.path for r in symlearn.screen(lifted, (x, y), paths=("gconv", "conv"))} == {"conv"}


def test_screen_refuses_what_it_cannot_rank() -> None:
    x, y = blobs(20)
    with pytest.raises(ValueError, match="no layer of the plain network has an absent path"):
        symlearn.screen(tiny_cnn(), (x, y), paths="conv")
    with pytest.raises(
        ValueError, match=r"'gconv'.*call symlearn.lift\(model, group\) before wrap"
    ):
        symlearn.screen(tiny_cnn(), (x, y), paths="gconv")


def test_screen_warns_on_memorised_data() -> None:
    x, y = blobs(60)
    net = tiny_cnn(2)
    step = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(200):
        step.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        step.step()
    with pytest.warns(UserWarning, match="memorised"):
        symlearn.screen(net, (x, y))


def test_screen_warns_of_gains_that_no_path_can_make() -> None:
    """On inputs a thousand times too large softmax is flat where the gradient is steep."""
    x, y = blobs(12)
    model = tiny_relaxed(3, paths=("conv", "fc"))
    with pytest.warns(UserWarning, match="the quadratic model does not hold"):
        symlearn.screen(off(model), (1e3 * x, y), paths="fc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        symlearn.screen(off(model), (x, y), paths="fc")
