"""What the page on baselines says is computed from its rows."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.study_baselines import METHODS, right, summary, tables
from symlearn.demo import TASKS

pytestmark = pytest.mark.core


def rows(seed: int, best: str) -> list[dict[str, Any]]:
    """One row per method and task; a single method is ahead, and only it is right."""
    return [
        {
            "task": task,
            "method": method,
            "seed": seed,
            "accuracy": 0.9 + 0.05 * (method == best),
            "nll": 0.3 - 0.1 * (method == best),
            "seconds": 10.0,
            "epochs": 60,
            "fits": 1,
            "validation": 0,
            "right": method == best,
            "right by rule": True,
        }
        for task in TASKS
        for method in METHODS
    ]


def test_the_summary_says_who_is_ahead_of_evidence() -> None:
    found = "\n".join(summary(rows(0, "gates")))
    assert "* Accuracy on *digit*, mean of 1 seeds: evidence 0.900; better: gates (0.950)." in found
    assert "* NLL on *quadrant*, mean of 1 seeds: evidence 0.300; better: gates (0.200)." in found
    assert "of 2: evidence 0, mixture 0, prior grid 0, gates 2" in found
    assert "evidence 0.950; better: none." in "\n".join(summary(rows(0, "evidence")))


def test_the_summary_leaves_out_seeds_that_are_not_complete() -> None:
    found = "\n".join(summary(rows(0, "evidence") + rows(1, "gates")[:-1]))
    assert "mean of 1 seeds: evidence 0.950; better: none." in found
    assert not list(summary(rows(1, "gates")[:-1]))
    assert "evidence | 0.925 ± 0.035" in "\n".join(tables(rows(0, "evidence") + rows(1, "gates")))


@pytest.mark.parametrize(
    ("task", "verdicts", "expected"),
    [
        ("digit", ["conv", "conv"], True),
        ("digit", ["conv", "conv+ffc"], False),
        ("digit", ["conv", "undecided"], False),
        ("quadrant", ["conv", "conv+ffc"], True),
        ("quadrant", ["conv", "ffc"], True),
        ("quadrant", ["conv", "conv"], False),
        ("quadrant", ["undecided", "ffc"], False),
    ],
)
def test_what_a_task_asks_for(task: str, verdicts: list[str], expected: bool) -> None:
    assert right(task, verdicts) is expected
