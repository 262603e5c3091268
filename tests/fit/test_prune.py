"""Paths go when the evidence rejects them, or when the layer does as well without them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import priors
import symlearn
from symlearn import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.fit.prune import challenge, contested, prune_rejected
from symlearn.fit.state import State
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_relaxed

ABSENT = priors.Relevance(0.1, 0.0, math.log(1e6), informative=True)
SILENT = priors.Relevance(0.0, 0.0, math.log(1e6), informative=False)
PRESENT = priors.Relevance(5.0, 40.0, 0.0, informative=True)


def both_on(seed: int = 0) -> Fitting:
    """A fit in which the second layer has both paths on."""
    model = tiny_relaxed(4, seed=seed)
    ffc = relaxed_layers(model)["2"].path("ffc")
    ffc.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in ffc.parameters():
            p.mul_(0.5)
    config = FitConfig(epochs=8, progress=False, challenge_epochs=6)
    return Fitting(model, blobs(200), config)


@pytest.mark.parametrize("verdict", [ABSENT, SILENT], ids=["rejected", "silent"])
def test_off_after_several_rejections_in_a_row(verdict: priors.Relevance) -> None:
    run = both_on()
    path = relaxed_layers(run.model)["2"].path("ffc")
    for test in (verdict, verdict, PRESENT, verdict, verdict):
        assert prune_rejected(run.state, {"2.ffc": test}, 3) == ()
        assert path.enabled
    assert prune_rejected(run.state, {"2.ffc": verdict}, 3) == ("2.ffc",)
    assert not path.enabled
    assert not any(bool(p.any()) for p in path.parameters())
    assert not any(bool(v.any()) for n, v in run.state.average.values.items() if ".ffc." in n)


def test_contested_layers_have_several_paths_on() -> None:
    run = both_on()
    assert contested(run.model) == {"2": ["conv", "ffc"]}


def test_needless_path_loses_its_challenge_and_the_state_given_is_unchanged() -> None:
    run = both_on()
    for _ in range(3):
        run.advance()
    before = copy.deepcopy(run.model.state_dict())
    scores = {"conv": -90.0, "ffc": -40.0}

    def evidence(state: State) -> float:
        on = relaxed_layers(state.model)["2"].named_paths()
        off = [name for name, path in on.items() if not path.enabled]
        return scores[off[0]] if off else -60.0

    winner, found = challenge(run.state, "2", ["conv", "ffc"], evidence, lambda state: None)
    assert [(c.path, c.removed) for c in found] == [("2.conv", False), ("2.ffc", True)]
    assert not relaxed_layers(winner.model)["2"].path("ffc").enabled
    assert relaxed_layers(run.model)["2"].path("ffc").enabled
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    scores["ffc"] = -70.0
    winner, found = challenge(run.state, "2", ["conv", "ffc"], evidence, lambda state: None)
    assert all(path.enabled for path in relaxed_layers(winner.model)["2"].named_paths().values())
    assert not any(c.removed for c in found)
    assert [c.without_path - c.with_path for c in found] == [-30.0, -10.0]


def test_trial_copies_train_on_their_own() -> None:
    """The copied optimiser and average must belong to the copied model."""
    run = both_on()
    run.advance()
    trial = copy.deepcopy(run.state)
    held = [p.detach().clone() for p in run.model.parameters()]
    run._train_on(trial)
    assert all(torch.equal(a, b) for a, b in zip(held, run.model.parameters(), strict=True))
    moved = dict(trial.model.named_parameters())
    own = dict(run.model.named_parameters())
    assert any(not torch.equal(moved[n], own[n]) for n in moved)
    assert trial.average.model is trial.model


def test_challenges_are_told_in_the_report() -> None:
    x, y = blobs(300, place=True)
    result = symlearn.fit(tiny_relaxed(4), (x, y), FitConfig(epochs=24, progress=False))
    told = {k: v for k, v in result.report.meta.items() if k.startswith("without ")}
    assert told
    assert all("nats of evidence after refit" in str(v) for v in told.values())
