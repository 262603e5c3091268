"""Reports beside each other."""

from __future__ import annotations

import pytest

from symlearn.report import side_by_side
from tests.report import samples


def test_two_tasks_beside_each_other() -> None:
    text = side_by_side({"digit": samples.digit(), "quadrant": samples.quadrant()})
    lines = text.splitlines()
    assert lines[0].split() == ["digit", "quadrant"]
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("conv")}
    assert rows["conv1"] == [
        "conv1",
        "conv",
        "█" * 10,
        "100.0%",
        "conv",
        "█" * 10,
        "100.0%",
        "conv",
    ]
    assert rows["conv2"][4] == "conv"
    assert rows["conv2"][-2:] == ["undecided", "*"]
    assert rows["conv3"][-2:] == ["conv+ffc", "*"]
    assert "* the verdicts differ" in text
    assert "-1,234.5 nats" in text
    assert "…" not in text


def test_equal_reports_have_no_star() -> None:
    assert "*" not in side_by_side({"a": samples.digit(), "b": samples.digit()})


def test_layers_that_only_one_report_has() -> None:
    other = samples.report(samples.layer("conv1"), samples.layer("extra"))
    text = side_by_side({"digit": samples.digit(), "other": other})
    extra = next(line for line in text.splitlines() if line.startswith("extra"))
    assert extra.split()[2:4] == ["–", "–"]
    starts = [line.split()[0] for line in text.splitlines() if line.startswith(("conv", "extra"))]
    assert starts == ["conv1", "conv2", "conv3", "extra"]


def test_one_report_and_awkward_ones() -> None:
    assert "conv3" in side_by_side({"digit": samples.digit()})
    text = side_by_side({"a [b] task": samples.awkward(), "digit": samples.digit()})
    assert "\x1b" not in text
    assert "a [b] task" in text
    assert "nan" in text


def test_no_report() -> None:
    with pytest.raises(ValueError, match="at least one report"):
        side_by_side({})
