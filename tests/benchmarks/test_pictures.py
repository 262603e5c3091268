"""Pictures of studies."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.figure
import pytest

from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study

ROWS: list[Row] = [
    {"task": "a", "net": "x", "seed": 0, "error": 1.0},
    {"task": "a", "net": "x", "seed": 1, "error": 3.0},
    {"task": "b", "net": "x", "seed": 0, "error": None},
    {"task": "b", "net": "y", "seed": 0, "error": 5.0},
]
draw = bar_picture(lambda row: row["task"], lambda row: row["net"], {"error": "error, nats"})


def assert_heights(figure: matplotlib.figure.Figure, expected: list[float]) -> None:
    """Assert what bars are drawn, colour by colour."""
    (ax,) = figure.axes
    assert [float(bar.get_height()) for bar in ax.patches] == expected


def test_bars_are_means_and_lines_are_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def keep(self: matplotlib.figure.Figure, *args: object, **options: object) -> None:
        kept.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    draw(ROWS, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 1000
    assert_heights(kept[0], [2.0, 0.0, 0.0, 5.0])
    for wrong in ([2.0, 0.0, 5.0, 0.0], [math.nan] * 4):
        with pytest.raises(AssertionError):
            assert_heights(kept[0], wrong)
    (line,) = kept[0].axes[0].lines
    assert list(line.get_ydata()) == [1.0, 3.0]
    assert kept[0].axes[0].get_ylabel() == "error, nats"


def test_without_rows_nothing_is_drawn(tmp_path: Path) -> None:
    draw([], tmp_path / "bars.png")
    assert not list(tmp_path.iterdir())


def test_a_page_shows_its_picture(tmp_path: Path) -> None:
    def run(task: str, net: str, seed: int) -> Row:
        return {"error": 1.0}

    study = Study("some", "Claim: a claim.\n\nHow.", lambda rows: ["text"], draw)
    study.add(run, task="a", net="x", seed=0)
    study.main(tmp_path)
    page = (tmp_path / "some.md").read_text()
    assert page.startswith("# A claim\n\nHow.\n\ntext\n\n![")
    assert "](some.png)" in page
    assert (tmp_path / "some.png").exists()
