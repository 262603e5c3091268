"""Several seeds: the fits are those of `fit`, can be resumed, and say how far they agree."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from symlearn import FitConfig
from symlearn.report import LayerStructure, SymmetryCheck
from symlearn.verdict import SeedsReport, Spread
from tests.fit.problems import blobs, tiny_relaxed
from tests.report import samples
from tests.verdict.problems import QUICK, two_layers

CONFIG = FitConfig(epochs=2, burn_in=0.0, progress=False, batch_size=60, check_images=0)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach() for p in model.parameters()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


# --- Fits ---


def test_each_seed_is_a_fit_with_that_seed() -> None:
    data, model = blobs(60), tiny_relaxed()
    found = symlearn.fit_seeds(model, data, CONFIG, seeds=(3, 1))
    assert list(found.results) == [3, 1] == list(found.report.seeds)
    alone = symlearn.fit(model, data, replace(CONFIG, seed=1))
    assert same(found.results[1].model, alone.model)
    assert not same(found.results[1].model, found.results[3].model)
    evidences = [result.log_evidence for result in found.results.values()]
    assert found.best.log_evidence == max(evidences) > min(evidences)
    assert found.report.log_evidence == Spread.of(evidences)
    assert all(layer.verdict == "undecided" for layer in found.report.layers)  # two seeds


def test_a_function_makes_a_network_per_seed() -> None:
    asked = []

    def make(seed: int) -> nn.Module:
        asked.append(seed)
        return tiny_relaxed(seed=seed)

    found = symlearn.fit_seeds(make, blobs(60), CONFIG, seeds=[5])
    assert asked == [5]
    alone = symlearn.fit(tiny_relaxed(seed=5), blobs(60), replace(CONFIG, seed=5))
    assert same(found.best.model, alone.model)


def test_interrupted_seeds_are_resumed(tmp_path: Path) -> None:
    data, model = blobs(60), tiny_relaxed()
    whole = symlearn.fit_seeds(model, data, CONFIG, seeds=(0, 1))
    calls = 0

    def stop(run: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # after the second seed's last but one epoch was saved
            raise KeyboardInterrupt

    options: dict[str, Any] = {"seeds": (0, 1), "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        symlearn.fit_seeds(model, data, CONFIG, callbacks=[stop], **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seed-0", "seed-1"]
    with pytest.raises(FileExistsError, match="checkpoints of another fit"):
        symlearn.fit_seeds(model, data, CONFIG, **options)
    seen: list[int] = []
    again = symlearn.fit_seeds(
        model, data, CONFIG, callbacks=[lambda run: seen.append(run.epoch)], resume=True, **options
    )
    assert seen == [2]  # seed 0 was done, of seed 1 one epoch was left
    for seed in (0, 1):
        assert same(whole.results[seed].model, again.results[seed].model)
    assert again.report == whole.report


def test_saved_seeds_are_loaded(tmp_path: Path) -> None:
    found = symlearn.fit_seeds(tiny_relaxed(), blobs(60), CONFIG, seeds=(0, 1))
    found.save(tmp_path / "run")
    for _ in range(2):  # an earlier result is replaced
        found.save(tmp_path / "run")
    assert SeedsReport.from_json(tmp_path / "run" / "seeds.json") == found.report
    loaded = symlearn.load(tmp_path / "run" / "seed-1")
    assert same(loaded.model, found.results[1].model)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seeds": ()}, ValueError, "at least one"),
        ({"seeds": (0, 0)}, ValueError, "different whole numbers"),
        ({"seeds": (0, 0.5)}, ValueError, r"seeds are \[0, 0.5\]"),
        ({"seeds": 3}, TypeError, "seeds is 3; give several, such as range"),
        ({"model": "net"}, TypeError, "model is a str; give a relaxed network"),
        ({"model": lambda seed: None}, TypeError, "returned a NoneType for seed 0"),
        ({"model": nn.Linear(1, 1)}, ValueError, "no relaxed layer"),
        ({"resume": True}, ValueError, "give checkpoint_dir too"),
        ({"config": {}}, TypeError, "config must be a FitConfig"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"model": tiny_relaxed(), "train": blobs(8), "config": CONFIG, **changes}
    with pytest.raises(error, match=message):
        symlearn.fit_seeds(**given)


def test_the_best_is_not_one_without_evidence() -> None:
    found = symlearn.fit_seeds(tiny_relaxed(), blobs(40), replace(CONFIG, epochs=1), seeds=(0,))
    known = found.best
    lost = replace(known, report=replace(known.report, log_evidence=math.nan))
    for results in ({0: lost, 1: known}, {0: known, 1: lost}):
        assert replace(found, results=results).best is known


# --- The report ---


def fake(*shares: float, check: str = "agree", **facts: Any) -> dict[int, Any]:
    """Reports of several seeds on one layer, which differ in the share of its free path."""
    nan = math.nan
    one = SymmetryCheck("translations", ("ffc",), nan, nan, nan, nan, nan, (), 0.0, 0.0, check)
    reports = {}
    for seed, share in enumerate(shares):
        layer = replace(samples.layer("conv1", ffc=share), checks=(one,))
        reports[seed] = replace(samples.report(layer), log_evidence=-100.0 - seed, **facts)
    return reports


def test_mean_and_spread() -> None:
    report = SeedsReport.of(fake(0.5, 0.3, 0.4))
    layer = report["conv1"]
    assert vars(layer.shares["ffc"]) == pytest.approx(
        {"mean": 0.4, "deviation": 0.1, "low": 0.3, "high": 0.5}
    )
    assert (report.log_evidence.mean, report.log_evidence.deviation) == (-101.0, 1.0)
    assert layer.on == {"conv": 3, "ffc": 3}
    assert (layer.verdict, layer.probability) == ("conv+ffc", 0.9375)
    with pytest.raises(KeyError, match="its layers are: conv1"):
        report["conv9"]


@pytest.mark.parametrize(
    ("reports", "verdict"),
    [
        (fake(0.0, 0.0, 0.0), "conv"),
        (fake(0.5, 0.0, 0.4), "undecided"),  # one of three seeds found no use for the path
        (fake(0.5, 0.4), "undecided"),  # two seeds
        (fake(0.5, 0.3, 0.4, check="disagree"), "undecided"),
        (fake(0.5, 0.3, 0.4, check="unclear"), "conv+ffc"),
        (fake(0.03, 0.03, 0.03), "undecided"),  # doubtful in all
    ],
)
def test_verdict_of_seeds(reports: dict[int, Any], verdict: str) -> None:
    assert SeedsReport.of(reports)["conv1"].verdict == verdict


def test_text_and_json() -> None:
    report = SeedsReport.of(fake(0.5, 0.3, 0.4, check="disagree"))
    text = str(report)
    for part in ("Seeds 0, 1, 2", "-101.0 ± 1", "40.0% ± 10.0%", "3 of 3 undecided (3 by the ch"):
        assert part in text
    assert SeedsReport.from_json(report.to_json()) == report
    single = SeedsReport.of(fake(0.5))
    assert repr(SeedsReport.from_json(single.to_json())) == repr(single)
    assert "±" not in str(single)
    with pytest.raises(ValueError, match=r"reads 'symlearn.seeds/1'"):
        SeedsReport.from_json(samples.digit().to_json())


def test_reports_of_different_fits_are_refused() -> None:
    for other in (samples.report(samples.layer("conv2")), *fake(0.5, n_data=7).values()):
        with pytest.raises(ValueError, match="differ in layers, paths, number of data"):
            SeedsReport.of({**fake(0.5), 1: other})
    with pytest.raises(ValueError, match="at least one seed, got none"):
        SeedsReport.of({})


def test_a_nan_is_not_averaged_away() -> None:
    assert all(map(math.isnan, vars(Spread.of([1.0, math.nan])).values()))
    bad = replace(
        samples.report(LayerStructure.of("conv1", {"conv": samples.path(normalised=math.nan)}))
    )
    layer = SeedsReport.of({0: bad, 1: bad, 2: bad})["conv1"]
    assert layer.verdict == "undecided"
    assert math.isnan(layer.shares["conv"].mean)


# --- Real fits ---


def test_real_seeds_that_leave_it_undecided() -> None:
    """Too little training: each seed's free path is doubtful, and so is the verdict of all."""
    found = symlearn.fit_seeds(
        lambda seed: two_layers(4, seed),
        blobs(60, place=True),
        replace(QUICK, epochs=10, batch_size=40),
    )
    assert found.report["0"].verdict == "conv"
    assert found.report["2"].verdict == "undecided"
    assert found.report["2"].on["ffc"] == 3


@pytest.mark.slow
def test_real_seeds_that_differ() -> None:
    """Some seeds find the free path that the task needs, some not: four are too few to decide."""
    found = symlearn.fit_seeds(
        lambda seed: two_layers(4, seed),
        blobs(160, place=True),
        replace(QUICK, epochs=16, batch_size=40, check_images=64),
        seeds=range(4),
    )
    assert len(set(found.report["2"].verdicts)) > 1
    assert found.report["2"].verdict == "undecided"
    checks = [layer.checks[0] for result in found.results.values() for layer in result.report]
    assert all(check.outcome == "agree" for check in checks)
    assert {bool(check.free) for check in checks} == {True, False}
    for check in checks:
        if check.free:  # nothing but the free path breaks the symmetry
            assert check.drop == pytest.approx(check.shift_error, abs=1e-6) != 0
            assert check.breaking_share == pytest.approx(1 - check.commuting_share, abs=1e-6)


@pytest.mark.slow
def test_real_seeds_that_agree_in_one_layer() -> None:
    """The first layer is a convolution in every seed; the small map of the second may be either."""
    found = symlearn.fit_seeds(
        lambda seed: tiny_relaxed(2, seed), blobs(200), FitConfig(epochs=16, progress=False)
    )
    assert found.report["0"].verdict == "conv"
    second = set(found.report["2"].verdicts)
    assert found.report["2"].verdict == (second.pop() if len(second) == 1 else "undecided")
