"""Where free paths are needed: on tasks where it is known by construction, and the parts of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from symlearn import FitConfig, FitResult
from symlearn.relaxed import enabled_paths, relaxed_layers
from symlearn.verdict import STARTS, Location, LocationResult, Network
from symlearn.verdict.refit import FREE, HELD, refit, without_paths
from symlearn.verdict.starts import free_layers, on_in, started
from symlearn.wrap import prior_groups
from tests.fit.problems import blobs, tiny_relaxed
from tests.verdict.problems import QUICK, permuted, pooled, two_layers

# --- Starts ---


def sizes(start: str) -> list[float]:
    """Norms of the free paths' maps relative to those of a full-size initialisation."""
    model = tiny_relaxed(4)
    moved = started(model, start, seed=0)
    full = started(model, start, seed=0)
    found = []
    for name, paths in free_layers(moved).items():
        path, whole = paths["ffc"], free_layers(full)[name]["ffc"]
        whole.reset_parameters(torch.Generator().manual_seed(0))
        norms = [math.prod(float(p.detach().norm()) for p in q.parameters()) for q in (path, whole)]
        found.append(norms[0] / norms[1])
    return found


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("grow-one", [0.0, 0.0]),
        ("late-first", [0.1, 0.3]),
        ("early-first", [0.3, 0.1]),
        ("flat", [0.1, 0.1]),
    ],
)
def test_starts_grade_the_free_paths(start: str, expected: list[float]) -> None:
    # other random numbers, so norms agree only about
    assert sizes(start) == pytest.approx(expected, rel=0.25)
    assert set(STARTS) == {"grow-one", "late-first", "early-first", "flat"}


def test_a_start_leaves_strict_paths_and_the_given_network_alone() -> None:
    model = tiny_relaxed(4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for start in STARTS:
        moved = started(model, start, seed=0)
        kept = {k: v for k, v in moved.state_dict().items() if ".ffc." not in k}
        assert all(torch.equal(v, before[k]) for k, v in kept.items())
        assert on_in(moved) == (() if start == "grow-one" else ("0", "2"))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    twice = [started(model, "flat", seed).state_dict() for seed in (0, 0, 1)]
    equal = [all(torch.equal(v, twice[0][k]) for k, v in s.items()) for s in twice]
    assert equal == [True, True, False]


def test_layers_of_one_pixel_have_no_free_path() -> None:
    assert list(free_layers(pooled(2))) == ["0"]
    assert list(free_layers(two_layers(2))) == ["0", "2"]
    only = symlearn.wrap(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.zeros(1, 1, 4, 4), paths="fc")
    assert free_layers(only) == {}  # beside no stricter one


# --- Refits ---


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    """A fit of a network whose two layers have free paths on."""
    model = started(two_layers(4), "flat", seed=0)
    config = replace(QUICK, epochs=2, burn_in=0.0, off_after=0)
    return symlearn.fit(model, blobs(60, place=True), config)


def test_a_path_taken_away_was_never_there(fitted: FitResult) -> None:
    left = without_paths(fitted, [("2", "ffc")], fitted.config)
    layers = relaxed_layers(left.model)
    assert {name: list(layer.paths) for name, layer in layers.items()} == {
        "0": ["conv", "ffc"],
        "2": ["conv"],
    }
    assert [spec.name for spec in layers["2"].specs] == ["conv"]
    assert list(prior_groups(left.model)) == list(left.prior.groups)
    assert "2.ffc" not in left.prior.groups
    for group in left.prior.groups:
        assert left.prior.group_precision(group) == fitted.prior.group_precision(group)
    theirs = fitted.model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in left.model.state_dict().items())
    assert enabled_paths(fitted.model) == {"0": ["conv", "ffc"], "2": ["conv", "ffc"]}


def test_where_nothing_stays_on_the_strict_path_starts_anew(fitted: FitResult) -> None:
    alone = replace(fitted, model=started(fitted.model, "flat", seed=0))
    relaxed_layers(alone.model)["2"].path("conv").switch_off()
    left = without_paths(alone, [("2", "ffc")], fitted.config)
    conv = relaxed_layers(left.model)["2"].path("conv")
    assert conv.enabled
    assert all(bool(p.any()) and p.requires_grad for p in conv.parameters())
    assert left.prior.group_precision("2.conv") == pytest.approx(fitted.config.precision)
    # elsewhere nothing is started
    relaxed_layers(alone.model)["0"].path("conv").switch_off()
    left = without_paths(alone, [("2", "ffc")], fitted.config)
    assert enabled_paths(left.model) == {"0": ["ffc"], "2": ["conv"]}


def test_others_are_held_or_free(fitted: FitResult) -> None:
    data = blobs(60, place=True)
    bare = without_paths(fitted, [("0", "ffc")], fitted.config)
    relaxed_layers(bare.model)["2"].path("ffc").switch_off()
    config = replace(fitted.config, epochs=6, evidence_every=1, when_slow=0.0, grow_gain=0.0)
    held = refit(bare, data, replace(config, grow_ratio=1e-6), [], HELD)
    free = refit(bare, data, replace(config, grow_ratio=1e-6), [], FREE)
    assert on_in(held.model) == ()
    assert not any(record.grown for record in held.history)
    assert any(record.grown for record in free.history)
    for result in (held, free):
        assert result.config.report_estimator == "exact"
        assert result.report["0"].checks == ()


# --- Known locations ---


def best_start(found: LocationResult) -> Network:
    return max(
        (n for n in found.report.networks if n.kind == "start"), key=lambda n: n.log_evidence
    )


def test_position_is_read_before_it_is_erased() -> None:
    """Which half a bar is in is needed, and gone behind the pool."""
    data, config = blobs(120, place=True), replace(QUICK, epochs=12, batch_size=40)
    found = symlearn.locate(
        pooled(4), data, config, starts=("grow-one", "early-first"), refit_epochs=6
    )
    report = found.report
    assert report.verdict == "needed in layer 0"
    assert report.factor("0.ffc", "held") > report.tolerance
    assert report.factor("0.ffc", "free") > report.tolerance
    assert report.factor("3.ffc", "held") == 0.0  # off
    assert list(found.results) == ["grow-one", "early-first"]
    assert found.best.log_evidence == best_start(found).log_evidence
    assert str(found) == str(report)


@pytest.mark.slow
def test_permuted_pixels_are_put_in_order_in_the_first_layer() -> None:
    config = replace(QUICK, epochs=16, batch_size=40)
    found = symlearn.locate(
        pooled(2), permuted(160), config, starts=("grow-one", "flat"), refit_epochs=6
    )
    assert found.report.verdict == "needed in layer 0"


@pytest.mark.slow
def test_a_convolution_may_do_as_well() -> None:
    """Which way a bar points does not depend on where it is."""
    config = replace(QUICK, epochs=16, batch_size=40)
    found = symlearn.locate(
        pooled(2), blobs(160), config, starts=("grow-one", "flat"), refit_epochs=6
    )
    assert found.report.needed != "needed"
    assert abs(found.report.factor("0.ffc", "held")) < found.report.tolerance


@pytest.mark.slow
def test_two_layers_may_read_the_position() -> None:
    """One of the two layers before the pool is needed, or either; and no other."""
    config, data = replace(QUICK, epochs=16, batch_size=40), blobs(160, place=True)
    found = symlearn.locate(two_layers(4), data, config, refit_epochs=8)
    assert list(found.results) == list(STARTS)
    # from the fit that won alone, its refits are all there is
    again = symlearn.locate(found.best, data, refit_epochs=8)
    assert {n.kind for n in again.report.networks} == {HELD, FREE}
    for report in (found.report, again.report):
        assert report.needed == "needed"
        assert set() < {*report.layers, *report.undecided} <= {"0", "2"}


# --- The record ---

NETWORKS = (
    Network("start", "grow-one", ("6",), -100.0, 0.0),
    Network("start", "flat", ("2",), -105.0, 5.0),
    Network("held", "control", ("6",), -90.0, 0.0),
    Network("held", "6.ffc", (), -500.0, 410.0),
    Network("free", "control", ("6",), -90.0, 0.0),
    Network("free", "6.ffc", ("4",), -94.0, 4.0),
)


@pytest.mark.parametrize(
    ("tolerance", "verdict"),
    [
        (3.0, "needed in layer 6"),
        (4.5, "needed, location undecided among layers 6, 4"),
        (6.0, "needed, location undecided among layers 6, 2, 4"),
        (500.0, "undecided whether one is needed, in layers 6, 2, 4"),
    ],
)
def test_verdict_by_tolerance(tolerance: float, verdict: str) -> None:
    assert Location.of(NETWORKS, 100, tolerance).verdict == verdict


def test_a_layer_that_all_share_is_decided() -> None:
    both = [
        Network("start", "flat", ("2", "6"), -100.0, 0.0),
        Network("start", "grow-one", ("4", "6"), -100.0, 0.0),
    ]
    assert Location.of(both, 100, 3.0).verdict == ("needed in layer 6; undecided in layers 2, 4")
    bare = Network("start", "late-first", (), -90.0, -10.0)
    assert Location.of([*both, bare], 100, 3.0).verdict == "no free path is needed"


def test_factors_are_both_reported(tmp_path: Path) -> None:
    found = Location.of(NETWORKS, 100, 8.0)
    assert (found.factor("6.ffc", "held"), found.factor("6.ffc", "free")) == (410.0, 4.0)
    with pytest.raises(ValueError, match=r"choose one of \['held', 'free'\]"):
        found.factor("6.ffc", "loose")
    text = found.to_text(tmp_path / "where.txt")
    assert (tmp_path / "where.txt").read_text(encoding="utf-8") == text == str(found)
    for part in ("undecided among layers 6, 2, 4", "others held", "others free", "410.0", "8.000"):
        assert part in text
    assert Location.from_json(found.to_json(tmp_path / "where.json")) == found
    assert Location.from_json(tmp_path / "where.json") == found
    lost = Location.of([*NETWORKS, Network("start", "x", (), math.nan, math.nan)], 100, 8.0)
    assert repr(Location.from_json(lost.to_json())) == repr(lost)
    assert lost.verdict == found.verdict


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": nn.Linear(1, 1)}, ValueError, "no relaxed layer"),
        ({"model": "net"}, TypeError, "model is a str; give a relaxed network, or a fit"),
        ({"model": tiny_relaxed(paths="conv")}, ValueError, "nothing to locate"),
        ({"starts": ()}, ValueError, r"starts are \[\]; give some of \['grow-one'"),
        ({"starts": ("flat", "flat")}, ValueError, "none of them twice"),
        ({"starts": ("flta",)}, ValueError, "give some of"),
        ({"starts": "flat"}, TypeError, r"starts is 'flat'; give several, such as \('flat',\)"),
        ({"refit_epochs": 0}, ValueError, "refit_epochs is 0"),
        ({"noise": -1}, ValueError, "noise is -1; give nats per sample"),
        ({"noise": math.nan}, ValueError, "noise is nan"),
        ({"resume": True}, ValueError, "give checkpoint_dir too"),
        ({"config": {}}, TypeError, "config must be a FitConfig"),
        ({"config": FitConfig(objective="map")}, ValueError, "by evidence"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"model": tiny_relaxed(), "train": blobs(8), "config": QUICK, **changes}
    with pytest.raises(error, match=message):
        symlearn.locate(**given)


def test_a_fit_has_no_starts(fitted: FitResult) -> None:
    with pytest.raises(ValueError, match="leave starts out"):
        symlearn.locate(fitted, blobs(8), starts=("flat",))
