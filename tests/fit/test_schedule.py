"""Times of a fit: step sizes, pauses between evidence steps, and the annealing."""

from __future__ import annotations

import math

import pytest

from symlearn import FitConfig
from symlearn.fit.schedule import Schedule


def config(**changes: object) -> FitConfig:
    given = {"epochs": 40, "burn_in": 0.25, "anneal": 0.25, "evidence_every": 2, **changes}
    return FitConfig(**given)  # type: ignore[arg-type]


def steps(schedule: Schedule, settled: bool) -> list[int]:
    """Epochs with an evidence step when every one finds the same."""
    seen = []
    for epoch in range(1, schedule.total + 1):
        if schedule.evidence_due(epoch):
            seen.append(epoch)
            schedule.measured(epoch, settled)
    return seen


def test_step_sizes_fall_in_the_annealing_only() -> None:
    rates = [Schedule(config(), 10).rate(epoch) for epoch in range(40)]
    assert rates[:30] == [1.0] * 30
    assert rates[-1] == pytest.approx(0.02)
    falls = [a - b for a, b in zip(rates[29:], rates[30:], strict=False)]
    assert all(fall == pytest.approx(falls[0]) for fall in falls)


def test_cosine_starts_at_one_and_falls_to_zero() -> None:
    schedule = Schedule(config(anneal=1.0, anneal_shape="cosine", anneal_precisions=True), 10)
    rates = [schedule.rate(epoch) for epoch in range(41)]
    assert rates[0] == 1.0
    assert rates[20] == pytest.approx(0.5)
    assert rates[40] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)


def test_steps_are_regular_while_things_move_and_end_with_the_annealing() -> None:
    assert steps(Schedule(config(), 10), settled=False) == list(range(10, 31, 2))
    assert steps(Schedule(config(evidence_every=3), 10), False) == [10, 13, 16, 19, 22, 25, 30]
    assert steps(Schedule(config(), 0), settled=False)[0] == 2


def test_pauses_double_while_nothing_moves_up_to_the_longest() -> None:
    assert steps(Schedule(config(epochs=80), 10), settled=True) == [10, 14, 22, 30, 38, 46, 54, 60]
    assert steps(Schedule(config(evidence_pause=2), 10), True) == list(range(10, 31, 2))
    schedule = Schedule(config(), 10)
    schedule.measured(10, settled=True)
    schedule.measured(14, settled=False)
    assert schedule.evidence_due(16)
    assert not schedule.evidence_due(15)


def test_longer_pauses_take_larger_steps_of_the_fixed_point() -> None:
    schedule = Schedule(config(step=0.5), 10)
    assert schedule.precision_step(10) == pytest.approx(0.5)
    schedule.measured(10, settled=True)
    assert schedule.precision_step(14) == pytest.approx(0.75)
    full = Schedule(config(step=1.0), 10)
    full.measured(10, settled=True)
    assert full.precision_step(14) == 1.0


def test_gradient_steps_fall_with_the_step_size_of_the_weights() -> None:
    published = FitConfig.published(epochs=100)
    schedule = Schedule(published, 10)
    assert schedule.precision_step(1) == pytest.approx(0.1)
    assert schedule.precision_step(51) == pytest.approx(0.05)
    assert steps(schedule, settled=True) == list(range(10, 101, 5))


def test_no_evidence_in_the_annealing_or_for_map() -> None:
    assert max(steps(Schedule(config(), 10), False)) == 30
    assert steps(Schedule(config(objective="map"), 10), False) == []


def test_annealing_begun_early_keeps_its_length() -> None:
    schedule = Schedule(config(), 10)
    schedule.anneal_now(17)
    assert (schedule.anneal_from, schedule.total) == (17, 27)
    assert schedule.rate(16) == 1.0
    assert schedule.rate(17) < 1.0
    assert schedule.rate(26) == pytest.approx(0.02)


def test_burn_in_may_end_after_a_third_of_it() -> None:
    schedule = Schedule(config(), 10)
    assert [e for e in range(1, 20) if schedule.early_start_due(e)] == list(range(4, 10))
    assert not schedule.evidence_due(5)
    schedule.start_evidence(5)
    assert steps(schedule, settled=False)[:3] == [5, 7, 9]
    late = Schedule(config(early_start=False), 10)
    assert not any(late.early_start_due(e) for e in range(20))


def test_trials_are_no_longer_than_the_time_for_evidence() -> None:
    assert Schedule(config(challenge_epochs=5), 10).trial_epochs == 5
    assert Schedule(config(challenge_epochs=5, epochs=4), 1).trial_epochs == 2
    assert Schedule(config(challenge_epochs=0), 10).trial_epochs == 0


def test_trials_come_just_before_the_annealing() -> None:
    schedule = Schedule(config(challenge_epochs=5), 10)
    assert [epoch for epoch in range(41) if schedule.trials_due(epoch)] == list(range(25, 31))
    early = Schedule(config(challenge_epochs=5, anneal=0.75), 10)
    assert [epoch for epoch in range(41) if early.trials_due(epoch)] == [10]


@pytest.mark.parametrize("epochs", [1, 3, 10, 1000])
def test_published_settings(epochs: int) -> None:
    published = FitConfig.published(epochs=epochs, seed=3)
    assert (published.epochs, published.seed) == (epochs, 3)
    assert published.method == "gradient"
    assert published.estimator == "exact"
    assert published.curvature_samples == 0
    assert not (published.grow or published.early_stop or published.average)
    assert published.precision == published.bias_precision == 1.0
    assert round(published.burn_in * epochs) == min(10, epochs)
    assert math.isclose(published.step, 0.1)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="leave no epoch for evidence"):
        FitConfig(burn_in=0.5, anneal=0.6)
    with pytest.raises(ValueError, match=r"optimiser='adamw'.*anneal_shape='step'"):
        FitConfig(optimiser="adamw", anneal_shape="step")
    with pytest.raises(ValueError, match=r"hyper_steps=0"):
        FitConfig(hyper_steps=0)
