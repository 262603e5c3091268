"""A layer keeps a path only if the network with it has the larger evidence after training on."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import symlearn
from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.fit.challenge import Refit, Rival, challenge, contested
from symlearn.fit.evidence import cost_of, evidence_of
from symlearn.fit.state import State
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, both_on, tiny_relaxed

PATHS = [("2", "conv"), ("2", "ffc")]


def off(state: State) -> str | None:
    """The second layer's path that is off."""
    paths = relaxed_layers(state.model)["2"].named_paths()
    return next((name for name, path in paths.items() if not path.enabled), None)


def test_contested_layers_have_several_trainable_paths_on() -> None:
    run = both_on()
    assert contested(run.model) == PATHS
    relaxed_layers(run.model)["2"].path("conv").requires_grad_(False)
    assert contested(run.model) == [("2", "ffc")]
    run.state.switch_off(("2", "ffc"))
    assert contested(run.model) == []


def test_largest_evidence_wins_and_the_state_given_is_unchanged() -> None:
    run = both_on()
    run.advance()
    step = run.precisions.take(run.state, 0.5)
    before = copy.deepcopy(run.model.state_dict())
    scores = {None: -60.0, "conv": -90.0, "ffc": -40.0}

    def train_on(state: State, rival: Rival | None) -> Refit:
        assert (rival is None) == (off(state) is None)
        return Refit(state, (1.0, 0.5), replace(step, after=scores[off(state)]))

    winner, found = challenge(run.state, PATHS, train_on, 200, 0.02)
    assert [(c.path, c.removed) for c in found] == [("2.conv", False), ("2.ffc", True)]
    assert off(winner.state) == "ffc"
    assert off(run.state) is None
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    for lost in (-70.0, float("nan")):
        scores["ffc"] = lost
        winner, found = challenge(run.state, PATHS, train_on, 200, 0.02)
        assert off(winner.state) is None
        assert not any(c.removed for c in found)
    assert found[0].without_path - found[0].with_path == -30.0


@pytest.mark.parametrize(
    ("losses", "lost"),
    [
        ([3.0], False),  # one epoch says nothing of the speed
        ([3.0, 2.9], True),  # .1 an epoch leaves .8 - .2 > .3 at the end
        ([3.0, 2.5], False),
        ([1.5, 1.2], False),
        ([1.5, 2.9], True),
        ([3.0, 2.5, 2.2, 2.15], True),
        ([3.0, 2.5, 1.3, 0.9], False),
        ([float("nan"), float("nan")], False),
    ],
)
def test_a_trial_is_given_up_when_it_cannot_catch_up(losses: list[float], lost: bool) -> None:
    rival = Rival((2.0, 1.8, 1.4, 1.0), saving=0.3)
    assert rival.out_of_reach(losses) == lost


def test_cost_is_what_the_evidence_lacks_without_the_group() -> None:
    """The evidence is a sum over groups: the costs of all make up its difference to the fit."""
    run = both_on()
    run.advance()
    found = run.precisions.take(run.state, 0.5).found
    prior = run.state.prior
    costs = {group: cost_of(prior, found, [group]) for group in prior.groups}
    assert all(cost > 0 for group, cost in costs.items() if group not in ("0.ffc",))
    assert costs["0.ffc"] == 0  # off
    whole = found.log_likelihood - evidence_of(prior, found)
    assert sum(costs.values()) == pytest.approx(whole, rel=1e-9)
    assert cost_of(prior, found, list(prior.groups)) == pytest.approx(whole, rel=1e-9)


def test_trials_train_copies_on_the_same_batches() -> None:
    run = both_on()
    run.advance()
    held = [p.detach().clone() for p in run.model.parameters()]
    first, second = (run._refit(copy.deepcopy(run.state), None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(held, run.model.parameters(), strict=True))
    assert first.losses == second.losses
    assert first.last.after == second.last.after
    moved, own = dict(first.state.model.named_parameters()), dict(run.model.named_parameters())
    assert any(not torch.equal(moved[n], own[n]) for n in moved)
    assert first.state.average.model is first.state.model


def test_a_hopeless_trial_ends_early() -> None:
    run = both_on()
    run.advance()
    cut = run._refit(copy.deepcopy(run.state), Rival((0.0,) * 4, saving=-10.0))
    assert len(cut.losses) == 2


def test_epochs_of_trials_count_and_are_recorded() -> None:
    run = both_on()
    while run.epoch < run.total:
        run.advance()
    assert run.total == 12
    assert [record.epoch for record in run.history] == list(range(1, 13))
    assert {c.path for c in run.challenges} >= {"2.conv", "2.ffc"}
    after = next(r for r in run.history if r.epoch == run.schedule.anneal_from)
    assert after.log_evidence is not None
    removed = [c.path for c in run.challenges if c.removed]
    assert [path for record in run.history for path in record.pruned] == removed


def test_each_path_is_challenged_once() -> None:
    run = both_on(epochs=20)
    while run.epoch < run.total:
        run.advance()
    names = [c.path for c in run.challenges]
    kept = [c for c in run.challenges if not c.removed]
    assert len({c.path for c in kept}) == len(names) - len([c for c in run.challenges if c.removed])


def test_challenges_are_told_in_the_report() -> None:
    x, y = blobs(300, place=True)
    result = symlearn.fit(tiny_relaxed(4), (x, y), FitConfig(epochs=24, progress=False))
    told = {k: v for k, v in result.report.meta.items() if k.startswith("without ")}
    assert told
    assert all("nats of evidence after refit" in str(v) for v in told.values())


def test_no_trials_when_there_are_to_be_none() -> None:
    for options in ({"challenge_epochs": 0}, {"objective": "map"}, {"grow": False}):
        run: Fitting = both_on(epochs=4, **options)
        while run.epoch < run.total:
            run.advance()
        assert run.challenges == []
