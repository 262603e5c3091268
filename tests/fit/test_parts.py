"""Parts of a path: a prior variance each, pruned one by one, in every part of a fit's life."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import priors
import symlearn
from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.fit.challenge import contested
from symlearn.fit.facts import layer_structures, part_groups, path_groups
from symlearn.fit.prune import prune_rejected
from symlearn.paths import LConv
from symlearn.relaxed import relaxed_layers
from symlearn.wrap import prior_groups
from tests.fit.problems import blobs, tiny_cnn
from tests.fit.test_prune import ABSENT, PRESENT

pytestmark = pytest.mark.core
PARTS = ("I", "L1", "L2")
GROUPS = [f"2.lconv.{part}" for part in PARTS]
CONFIG = FitConfig(epochs=2, burn_in=0.0, progress=False, batch_size=40, grow=False)


def relaxed(tie: str = "path") -> nn.Module:
    net, x = tiny_cnn(), torch.zeros(1, 1, 8, 8)
    return symlearn.wrap(
        net, x, paths=("conv", LConv(2, rank=2)), layers="2", tie=tie, init="fresh"
    )


def fitting(tie: str = "path") -> Fitting:
    return Fitting(relaxed(tie), blobs(80), CONFIG)


def test_every_part_is_a_prior_group() -> None:
    groups = prior_groups(relaxed())
    assert [g for g in groups if ".lconv" in g] == GROUPS
    assert groups["2.lconv.I"] == ["2.paths.lconv.terms.I.W.weight"]
    assert sorted(n.rpartition(".terms.L1.")[2] for n in groups["2.lconv.L1"]) == [
        f"{factor}.weight" for factor in "UVW"
    ]
    assert groups["2.conv"] == ["2.paths.conv.conv.weight"]
    tensors = prior_groups(relaxed("tensor"))
    assert sum(".lconv" in g for g in tensors) == 7
    assert all(len(members) == 1 for members in tensors.values())


@pytest.mark.parametrize("tie", ["path", "tensor"])
def test_groups_of_a_part(tie: str) -> None:
    run = fitting(tie)
    path = relaxed_layers(run.model)["2"].path("lconv")
    found = [part_groups(run.state.prior, ("2", "lconv"), path, part) for part in PARTS]
    assert sorted(sum(found, [])) == sorted(path_groups(run.state.prior, "2", "lconv"))
    assert [len(groups) for groups in found] == ([1, 1, 1] if tie == "path" else [1, 3, 3])


@pytest.mark.parametrize("tie", ["path", "tensor"])
def test_a_rejected_part_vanishes_and_the_others_stay(tie: str) -> None:
    run = fitting(tie)
    path = relaxed_layers(run.model)["2"].path("lconv")
    tests = dict.fromkeys(run.state.prior.groups, PRESENT)
    for group in part_groups(run.state.prior, ("2", "lconv"), path, "L1"):
        tests[group] = ABSENT
    assert prune_rejected(run.state, tests, 2) == ()
    assert prune_rejected(run.state, tests, 2) == ("2.lconv.L1",)
    assert path.enabled
    assert path.parts_left() == ["I", "L2"]
    gone = [path.get_parameter(name) for name in path.parts()["L1"]]
    assert not any(bool(p.any()) or p.requires_grad for p in gone)
    stem = "2.paths.lconv.terms."
    values = run.state.average.values
    assert not any(bool(values[n].any()) for n in values if n.startswith(f"{stem}L1."))
    assert all(bool(values[n].any()) for n in values if n.startswith(f"{stem}L2."))
    assert prune_rejected(run.state, tests, 2) == ()


def test_the_last_part_goes_with_the_path() -> None:
    run = fitting()
    path = relaxed_layers(run.model)["2"].path("lconv")
    rejected = {**dict.fromkeys(run.state.prior.groups, PRESENT), **dict.fromkeys(GROUPS, ABSENT)}
    assert prune_rejected(run.state, rejected, 1) == ("2.lconv",)
    assert not path.enabled
    run.state.path(("2", "lconv")).switch_on()
    assert path.parts_left() == list(PARTS)


def test_parts_of_the_last_path_of_a_layer_leave_one() -> None:
    run = fitting()
    layer = relaxed_layers(run.model)["2"]
    run.state.switch_off(("2", "conv"))
    rejected = dict.fromkeys(GROUPS, ABSENT)
    assert prune_rejected(run.state, rejected, 1) == ("2.lconv.I", "2.lconv.L1")
    assert layer.path("lconv").enabled
    assert layer.path("lconv").parts_left() == ["L2"]
    left = {"2.lconv.L2": ABSENT}
    assert prune_rejected(run.state, left, 1) == ()


def test_a_path_with_a_part_less_is_still_measured_and_challenged() -> None:
    run = fitting()
    run.state.drop(("2", "lconv"), "L1")
    assert contested(run.model) == [("2", "conv"), ("2", "lconv")]
    found = run.precisions.measure(run.state, 0, "exact")
    assert not any(".L1." in name for name in found.curvature)
    facts = layer_structures(run.model, run.state.prior, found, {})["2"]["lconv"]
    prior = run.state.prior
    gamma = sum(
        priors.effective_parameters(found.curvature, prior, group)
        for group in ("2.lconv.I", "2.lconv.L2")
    )
    assert facts.effective_params == pytest.approx(gamma)
    assert 0 < gamma < math.inf
    run.state.path(("2", "lconv")).requires_grad_(False)  # by the user: works, not measured
    found = run.precisions.measure(run.state, 0, "exact")
    facts = layer_structures(run.model, prior, found, {})["2"]["lconv"]
    assert math.isnan(facts.effective_params)


def test_precisions_of_parts_move_on_their_own() -> None:
    """Of a generator whose weights are all zero the data say nothing; the other's moves."""
    run = fitting()
    path = relaxed_layers(run.model)["2"].path("lconv")
    names = [f"2.paths.lconv.{name}" for name in path.parts()["L1"]]
    for name in names:
        nn.init.zeros_(run.model.get_parameter(name))
    run.state.average.reset(names)
    step = run.precisions.take(run.state, 1.0)
    assert not step.tests["2.lconv.L1"].informative
    assert step.tests["2.lconv.L2"].informative
    assert run.state.prior.group_precision("2.lconv.L1") == pytest.approx(CONFIG.precision)
    assert run.state.prior.group_precision("2.lconv.L2") != pytest.approx(CONFIG.precision)


def test_a_fit_with_a_dropped_part_goes_on_and_comes_back(tmp_path: Path) -> None:
    data = blobs(80)
    run = fitting()
    run.advance()
    run.state.drop(("2", "lconv"), "L1")
    saved = run.state_dict()
    other = Fitting(relaxed(), data, CONFIG, saved)
    path = relaxed_layers(other.model)["2"].path("lconv")
    assert path.parts_left() == ["I", "L2"]
    for each in (run, other):
        each.advance()
    for (name, mine), theirs in zip(
        run.model.named_parameters(), other.model.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    result = other.finish()
    result.save(tmp_path / "run")
    back = symlearn.load(tmp_path / "run")
    x, _ = blobs(10, seed=1)
    assert torch.equal(back.predict_proba(x), result.predict_proba(x))
    left = relaxed_layers(back.model)["2"].path("lconv")
    assert not any(bool(left.get_parameter(n).any()) for n in left.parts()["L1"])
    plain = result.collapse()
    torch.testing.assert_close(plain(x), result.model(x))
    symlearn.save_plain(plain, tmp_path / "plain")
    assert torch.equal(symlearn.load_plain(tmp_path / "plain")(x), plain(x))


def test_screen_ranks_an_absent_lconv() -> None:
    """Half of the image decides: a generator that writes to the other half pays, on 4 classes."""
    x, y = blobs(160, place=True)
    run = Fitting(symlearn.wrap(tiny_cnn(4), x[:1], paths="conv"), (x, y), CONFIG)
    run.advance()
    (row,) = symlearn.screen(tiny_cnn(4), (x, y), paths=(LConv(1, rank=2),), layers="2")
    assert row.path == "lconv"
    assert row.gain > 0
    assert row.n_params == 2 * (16 + 16) + 2 * 4 * 8


def test_maps_too_large_are_refused_before_training() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    x = torch.zeros(1, 1, 128, 128)
    with pytest.raises(ValueError, match=r"path 'lconv' needs .* GiB"):
        symlearn.wrap(net, x, paths=("conv", "lconv"), memory_limit_gib=1.0)
    plan = symlearn.plan(net, x, paths=("conv", "lconv"), memory_limit_gib=1.0)
    assert not plan.fits
    fixed = LConv(0, fixed=("rotation",))
    assert symlearn.plan(net, x, paths=("conv", fixed), memory_limit_gib=1.0).fits
