"""When verdicts and evidence have settled."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import pytest

import symlearn
from symlearn.fit.history import EpochRecord, agreement, plateaued, stable_for
from symlearn.report import PathStructure, verdict
from symlearn.report.rule import UNDECIDED
from tests.fit.problems import blobs, tiny_relaxed


def record(epoch: int, verdict: str, evidence: float = 0.0, **changes: object) -> EpochRecord:
    return EpochRecord(epoch, 0.0, 0.1, 0.5, evidence, {}, {"a": verdict}, **changes)  # type: ignore[arg-type]


def silent(epoch: int) -> EpochRecord:
    """An epoch without evidence step."""
    return EpochRecord(epoch, 0.0, 0.1, 0.5)


def test_stability_counts_epochs_since_the_last_change() -> None:
    assert stable_for([]) == 0
    assert stable_for([silent(1), silent(2)]) == 0
    changed = [record(2, "conv"), record(4, "ffc"), record(8, "ffc")]
    assert stable_for(changed) == 4
    assert stable_for([*changed, silent(9), silent(10)]) == 6
    grown = [record(2, "ffc"), record(4, "ffc", grown=("a.ffc",)), record(8, "ffc")]
    assert stable_for(grown) == 4


def test_agreement_counts_steps_since_the_last_change_of_the_layer() -> None:
    assert agreement([record(1, "conv"), record(2, "ffc")], "a", "ffc", 5) == 0.5
    steps = [("conv", ()), ("conv", ("a.ffc",)), ("ffc", ()), ("ffc", ())]
    changed = [record(i, verdict, grown=grown) for i, (verdict, grown) in enumerate(steps)]
    assert agreement(changed, "a", "ffc", 5) == 1.0
    assert math.isnan(agreement([*changed, record(9, "ffc", grown=("a.fc",))], "a", "ffc", 5))
    pruned = [record(1, "ffc"), record(2, "conv", pruned=("a.ffc",))]
    assert agreement(pruned, "a", "conv", 5) == 1.0
    assert math.isnan(agreement([], "a", "ffc", 5))


def test_plateau_needs_epochs_without_progress() -> None:
    rising = [record(epoch, "conv", v) for epoch, v in ((2, -9.0), (4, -5.0), (6, -3.0))]
    assert not plateaued(rising, 4, 1.0)
    flat = [*rising, record(8, "conv", -2.5), record(10, "conv", -2.4)]
    assert plateaued(flat, 4, 1.0)
    assert not plateaued(flat, 6, 1.0)
    assert plateaued([*rising, record(8, "conv", -2.5), silent(9), silent(10)], 4, 1.0)
    assert not plateaued(rising, 50, 1.0)
    assert not plateaued([record(i, "conv", float("nan")) for i in range(9)], 4, 1.0)
    assert not plateaued([silent(1)], 4, 1.0)


def test_steps_of_a_fit_are_judged_by_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule of the least gain, here one that nothing meets, is for the report alone."""

    def judged(paths: Mapping[str, PathStructure], **options: float) -> str:
        return verdict(paths, **options) if "gain" in options else UNDECIDED

    monkeypatch.setattr(sys.modules["symlearn.report.structure"], "verdict", judged)
    config = symlearn.FitConfig(epochs=8, progress=False, check_images=0)
    result = symlearn.fit(tiny_relaxed(), blobs(), config)
    steps = [record.verdicts for record in result.history if record.verdicts]
    assert steps
    assert not any(UNDECIDED in step.values() for step in steps)
    assert [layer.verdict for layer in result.report] == [UNDECIDED] * 2
    assert all(layer.agreement > 0 for layer in result.report)
