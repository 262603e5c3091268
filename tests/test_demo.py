"""The main job: the same pictures and the same code, and a verdict that differs with the labels."""

from __future__ import annotations

import pytest

from symlearn import FitConfig, demo


@pytest.fixture(scope="module")
def outcomes() -> dict[str, demo.Outcome]:
    """The learned model on both tasks, and the strict network on the one it cannot solve."""
    train, test = demo.load("digits", seed=0)
    config = FitConfig(progress=False)
    return {
        "digit": demo.run("learned", *demo.make_task("digit", train, test, 0), config),
        "quadrant": demo.run("learned", *demo.make_task("quadrant", train, test, 0), config),
        "strict": demo.run("MAP-CONV", *demo.make_task("quadrant", train, test, 0), config),
    }


def test_the_verdict_flips(outcomes: dict[str, demo.Outcome]) -> None:
    assert {layer.verdict for layer in outcomes["digit"].result.report} == {"conv"}
    assert any("ffc" in layer.verdict for layer in outcomes["quadrant"].result.report)


def test_accuracy_follows(outcomes: dict[str, demo.Outcome]) -> None:
    assert outcomes["strict"].accuracy <= 0.30
    assert outcomes["digit"].accuracy >= 0.94
    assert outcomes["quadrant"].accuracy >= outcomes["digit"].accuracy - 0.03


def test_both_tasks_show_the_same_pictures() -> None:
    train, test = demo.load("digits", seed=0)
    one = demo.make_task("digit", train, test, 0)
    other = demo.make_task("quadrant", train, test, 0)
    for a, b in zip(one, other, strict=True):
        assert bool((a.x == b.x).all())
        assert bool((b.y % 10 == a.y).all())


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown data"):
        demo.load("imagenet", 0)
    train, test = demo.load("digits", seed=0)
    with pytest.raises(ValueError, match="unknown task"):
        demo.make_task("colour", train, test, 0)
