"""Paths go when the evidence rejects them often enough."""

from __future__ import annotations

import math

import pytest

import priors
from symlearn.fit.prune import prune_rejected
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import both_on

ABSENT = priors.Relevance(0.1, 0.0, math.log(1e6), informative=True)
SILENT = priors.Relevance(0.0, 0.0, math.log(1e6), informative=False)
PRESENT = priors.Relevance(5.0, 40.0, 0.0, informative=True)


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


def test_no_limit_leaves_all_paths_on() -> None:
    run = both_on()
    for _ in range(5):
        assert prune_rejected(run.state, {"2.ffc": ABSENT}, 0) == ()
    assert relaxed_layers(run.model)["2"].path("ffc").enabled


def test_the_last_path_of_a_layer_stays() -> None:
    run = both_on()
    layer = relaxed_layers(run.model)["2"]
    rejected = {f"2.{name}": ABSENT for name in layer.named_paths()}
    for _ in range(4):
        prune_rejected(run.state, rejected, 2)
    assert sum(path.enabled for path in layer.named_paths().values()) == 1
