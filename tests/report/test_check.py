"""The rule that compares independent measurements, and how reports show and keep checks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from symlearn.report import LayerStructure, Removal, StructureReport, SymmetryCheck, checks, rule
from symlearn.report.rule import AGREE, DISAGREE, UNCLEAR, compare
from tests.report import samples
from tests.report.test_renderers import parse

NAN = math.nan

# evidence share, breaking share, drop of the shift error and its standard error -> outcome
LAW = [
    ((0.0, 0.0, 0.0, 0.0), AGREE),
    ((0.26, 0.028, 0.44, 0.01), AGREE),
    # a free path that computes a convolution: the evidence pays for it, no symmetry is broken
    ((0.3, 1e-5, 0.0, 0.001), DISAGREE),
    ((0.3, 0.0009, 0.4, 0.01), DISAGREE),
    # one that breaks the operator, but what it writes is not seen in the outputs
    ((0.3, 0.2, 0.0, 0.001), DISAGREE),
    # one that hardly has effective parameters, yet the outputs depend on it
    ((0.005, 0.02, 0.3, 0.01), DISAGREE),
    ((0.005, 0.0005, 0.3, 0.01), DISAGREE),
    ((0.005, 0.02, 0.0, 0.001), DISAGREE),
    # no vote: between the limits, or an interval around them
    ((0.03, 0.02, 0.3, 0.01), AGREE),
    ((0.3, 0.005, 0.3, 0.01), AGREE),
    ((0.3, 0.02, 0.03, 0.02), AGREE),
    ((0.3, 0.02, -0.03, 0.1), AGREE),
    ((0.3, 0.02, -0.03, 0.01), DISAGREE),
    ((0.03, 0.005, 0.3, 0.01), UNCLEAR),
    ((0.3, NAN, NAN, NAN), UNCLEAR),
    ((0.3, NAN, 0.3, 0.01), AGREE),
    ((0.3, 0.02, 0.3, NAN), AGREE),
    ((NAN, NAN, NAN, NAN), UNCLEAR),
    # the limits themselves
    ((rule.ON_SHARE, rule.BREAKING, NAN, NAN), AGREE),
    ((rule.DOUBTFUL_SHARE, rule.COMMUTING, 0.0, 0.0), UNCLEAR),
]


@pytest.mark.parametrize(("numbers", "expected"), LAW)
def test_law(numbers: tuple[float, float, float, float], expected: str) -> None:
    assert compare(*numbers)[0] == expected


def test_votes_are_named() -> None:
    _, votes = compare(0.3, 1e-5, NAN, NAN)
    assert votes == {"evidence": rule.BROKEN, "operator": rule.KEPT, "function": rule.NO_VOTE}


def test_a_disagreement_leaves_a_verdict_unsupported() -> None:
    assert rule.supported("conv+ffc", []) == "conv+ffc"
    assert rule.supported("conv+ffc", [AGREE, UNCLEAR]) == "conv+ffc"
    assert rule.supported("conv+ffc", [AGREE, DISAGREE]) == "undecided"


def check(outcome: str = AGREE, lee: float = 970.0) -> SymmetryCheck:
    removals = (Removal("conv", lee / 2, 1.154), Removal("ffc", NAN, 0.0))
    return SymmetryCheck(
        *("translations", ("ffc",), 0.257, 0.9745, 0.0255, lee, 0.4411, removals),
        *(0.4411, 0.0135, outcome),
    )


def checked(**changes: SymmetryCheck) -> StructureReport:
    return samples.quadrant().with_checks({name: (one,) for name, one in changes.items()})


def test_a_report_takes_checks_by_layer() -> None:
    report = checked(conv3=check(DISAGREE))
    assert [len(layer.checks) for layer in report] == [0, 0, 1]
    assert report["conv3"].verdict == "conv+ffc"
    assert report["conv3"].supported == "undecided"
    assert report["conv1"].supported == "conv"
    assert checked(conv3=check()).with_checks({})["conv3"].checks == (check(),)


def test_checks_survive_json() -> None:
    for report in (checked(conv3=check(DISAGREE)), checked(conv1=check(lee=NAN), conv3=check())):
        assert repr(StructureReport.from_json(report.to_json())) == repr(report)
    assert '"checks"' not in samples.quadrant().to_json()


def test_an_outcome_is_one_of_three() -> None:
    with pytest.raises(ValueError, match=r"'fine'.*|one of \['agree', 'disagree', 'unclear'\]"):
        replace(check(), outcome="fine")
    text = checked(conv3=check()).to_json().replace('"agree"', '"fine"')
    with pytest.raises(ValueError, match=r"layers\[2\]\.checks\[0\].*'fine'"):
        StructureReport.from_json(text)


def test_rows_say_a_layer_then_what_is_without_its_paths() -> None:
    rows = checks.rows(checked(conv3=check(DISAGREE)))
    assert rows == [
        ["conv3", "25.7%", "97.5%", "2.5%", "–", "970.0", "0.4411", "disagree"],
        ["", "", "", "", "conv", "485.0", "1.154", ""],
        ["", "", "", "", "ffc", "–", "0", ""],
    ]
    assert all(len(row) == len(checks.COLUMNS) == len(checks.NUMBERS) for row in rows)


def test_renderers_show_all_cells_of_checks() -> None:
    report = checked(conv1=check(), conv3=check(DISAGREE))
    cells = [cell for row in checks.rows(report) for cell in row]
    html = parse(report.to_html().removeprefix("<!DOCTYPE html>")).rows
    assert [cell for row in html[-6:] for cell in row] == cells
    words = report.to_text().split()
    assert all(cell in words for cell in cells if cell)
    markdown = MarkdownIt("commonmark").enable("table").render(report.to_markdown())
    assert parse(markdown).rows[-6:] == checks.rows(report)
    assert "'disagree' is a yes and a no" in " ".join(words)


def test_without_checks_nothing_is_said_of_them() -> None:
    report = samples.quadrant()
    for text in (report.to_text(), report.to_markdown(), report.to_html()):
        assert checks.TITLE not in text


def test_hostile_names_are_escaped_in_checks() -> None:
    layer = LayerStructure("<b>\x1b|", {"conv": samples.path()}, "conv", 1.0, (check(),))
    report = samples.report(layer)
    assert "\x1b" not in report.to_text()
    assert "b" not in parse(report.to_html().removeprefix("<!DOCTYPE html>")).seen
    table = MarkdownIt("commonmark").enable("table").render(report.to_markdown())
    assert parse(table).rows[-3:] == checks.rows(report)
