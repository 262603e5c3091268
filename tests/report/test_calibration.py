"""The section on calibration: in every renderer, optional in the format, drawn as measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from symlearn.report import Calibration, CalibrationBin, StructureReport, reliability
from tests.report import samples
from tests.report.test_schema import SCHEMA_DOC


def calibrated(predictor: str = "map", gap: float = 0.1) -> Calibration:
    """A calibration with an empty bin."""
    bins = (
        CalibrationBin(0.0, 0.5, 0, math.nan, math.nan),
        CalibrationBin(0.5, 0.75, 40, 0.65, 0.65 - gap),
        CalibrationBin(0.75, 1.0, 60, 0.95, 0.95 - gap),
    )
    return Calibration(predictor, 100, 0.83 - gap, math.inf, 0.4, gap, gap, bins)


def with_two() -> StructureReport:
    return samples.quadrant().with_calibration(calibrated(), calibrated("<probit>", 0.05))


def test_round_trip_and_the_section_is_optional() -> None:
    report = with_two()
    assert repr(StructureReport.from_json(report.to_json())) == repr(report)
    assert "calibration" not in json.loads(samples.quadrant().to_json())
    assert StructureReport.from_json(samples.quadrant().to_json()).calibration == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ece": None}, r"calibration\[0\]: .*must not be nan"),
        ({"n_data": 99}, r"calibration\[0\]: .*hold 100 samples of 99"),
        ({"bins": 3}, r"calibration\[0\]\.bins: needs an array"),
        ({"predictor": "<probit>"}, "calibration: names must differ.*<probit>"),
        ({"extra": 1}, r"calibration\[0\]\.extra: unknown field"),
    ],
)
def test_damage_is_named(change: dict[str, Any], message: str) -> None:
    body = json.loads(with_two().to_json())
    body["calibration"][0] |= change
    with pytest.raises(ValueError, match=message):
        StructureReport.from_json(json.dumps(body))
    del body["calibration"][0]["brier"]
    with pytest.raises(ValueError, match=r"calibration\[0\]\.brier: missing"):
        StructureReport.from_json(json.dumps(body))


def test_a_predictor_is_replaced_not_doubled() -> None:
    report = with_two().with_calibration(calibrated(gap=0.2))
    assert [one.predictor for one in report.calibration] == ["<probit>", "map"]
    assert report.calibration[1].ece == 0.2


def test_every_renderer_shows_it() -> None:
    report = with_two()
    for text in (str(report), report.to_markdown(), report.to_html()):
        shown = " ".join(text.split())
        for fact in ("ECE 10.0% (3 bins of equal width)", "Brier 0.4000", "NLL inf", "n = 100"):
            assert fact in shown
    assert max(map(len, str(report).splitlines())) <= 100
    page = report.to_html()
    assert page.count("<svg") == 4
    assert "<h2>Calibration</h2>" in page
    assert "<probit>" not in page
    assert samples.quadrant().to_html().count("<svg") == 2
    assert "Calibration" not in samples.quadrant().to_html()


def test_bars_are_the_accuracies() -> None:
    figure = with_two().plot_calibration()
    top, other, counts, _ = figure.axes
    heights = [bar.get_height() for bar in top.patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([0.55, 0.85, 0.1, 0.1])
    shares = [bar.get_height() for bar in counts.patches]  # type: ignore[attr-defined]
    assert shares == pytest.approx([0.4, 0.6])
    assert "<probit>" in other.get_title(loc="left")
    assert "ECE 10.0%" in top.get_title(loc="left")


def test_figures_are_saved_and_nothing_is_an_error(tmp_path: Path) -> None:
    calibrated().plot(tmp_path / "one.png")
    with_two().plot_calibration(tmp_path / "two.svg")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("one.png", "two.svg"))
    with pytest.raises(ValueError, match="at least one calibration"):
        samples.quadrant().plot_calibration()
    with pytest.raises(ValueError, match="at least one calibration"):
        reliability.draw([])


@pytest.mark.parametrize("record", [Calibration, CalibrationBin])
def test_every_field_is_documented(record: type) -> None:
    text = SCHEMA_DOC.read_text(encoding="utf-8")
    assert [f for f in record.__dataclass_fields__ if f"| `{f}` |" not in text] == []  # type: ignore[attr-defined]


def test_printed_in_one_line() -> None:
    line = str(calibrated(gap=0.125))
    assert line.startswith("map: accuracy 0.7050, NLL inf, Brier 0.4000, ECE 0.1250")
    assert line.endswith("(3 bins, 100 samples)")
