"""Text, Markdown and HTML show the same rows, whole and escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from symlearn.report import LayerStructure, StructureReport, table
from tests.report import samples

MAKERS = [samples.digit, samples.quadrant, samples.awkward]
Make = Callable[[], StructureReport]


def expected_cells(report: StructureReport) -> list[list[str]]:
    return [[table.cell(column, row) for column in table.COLUMNS] for row in table.rows(report)]


class TableParser(HTMLParser):
    """Collects the cells of an HTML table, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            assert self.cell is not None
            self.rows[-1].append("".join(self.cell))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)


def parse(text: str) -> TableParser:
    parser = TableParser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


# --- Text ---


@pytest.mark.parametrize("width", [60, 100, 160, 400])
@pytest.mark.parametrize("make", MAKERS)
def test_text_is_whole_at_every_width(make: Make, width: int) -> None:
    report = make()
    text = report.to_text(width=width)
    assert "…" not in text
    words = text.split()
    for layer in report.layers:
        assert table.printable(layer.name) in text
    for row in table.rows(report):
        for column in table.COLUMNS:
            if column.is_number:
                assert column.cell(row) in words


def test_text_fits_a_terminal_of_100_columns() -> None:
    for report in (samples.digit(), samples.quadrant()):
        assert max(map(len, str(report).splitlines())) <= 100
        assert max(map(len, report.to_text(width=160).splitlines())) <= 160


def test_text_aligns_its_columns() -> None:
    lines = samples.quadrant().to_text(width=160).splitlines()
    rows = [line for line in lines if re.match(r"(conv\d| {5,})\s+(conv|ffc) ", line)]
    assert len(rows) == 6
    assert len({re.search(r" (conv|ffc) ", line).start() for line in rows}) == 1  # type: ignore[union-attr]
    ends = {line.index("12.50") for line in rows}
    assert len(ends) == 1


def test_text_ignores_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = str(samples.quadrant())
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert str(samples.quadrant()) == plain
    assert "\x1b" not in plain


def test_text_cannot_steer_the_terminal() -> None:
    text = str(samples.awkward())
    assert "\x1b" not in text
    assert r"x`y\n\x1b[31m*_$z$" in text
    assert "[bold]p" in text


# --- Markdown ---


@pytest.mark.parametrize("make", MAKERS)
def test_markdown_parses_to_the_same_cells(make: Make, tmp_path: Path) -> None:
    report = make()
    text = report.to_markdown(tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text(encoding="utf-8") == text
    rows = parse(MarkdownIt("commonmark").enable("table").render(text)).rows
    assert rows[0] == [column.title for column in table.COLUMNS]
    assert rows[1:] == expected_cells(report)


# --- HTML ---


@pytest.mark.parametrize("make", MAKERS)
def test_html_parses_to_the_same_cells(make: Make, tmp_path: Path) -> None:
    report = make()
    text = report.to_html(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == text
    rows = parse(text.removeprefix("<!DOCTYPE html>")).rows
    assert rows[0] == [column.title for column in table.COLUMNS]
    assert rows[1:] == expected_cells(report)


def test_html_escapes_names() -> None:
    text = samples.awkward().to_html()
    assert "<script" not in text.lower()
    assert "&lt;script&gt;" in text
    assert not {"script", "b", "i", "tail"} & parse(text).seen


def test_html_needs_no_network() -> None:
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", samples.quadrant().to_html())
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert "<svg" in text


# --- The shared table ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0751351, "0.07514"),
        (1.5, "1.500"),
        (999.96, "1000"),
        (5438.1, "5438"),
        (3588348.5, "3.59e+06"),
        (-2e-8, "-2.00e-08"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert table.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0%"), (1e-9, "<0.1%"), (0.0005, "0.1%"), (0.0312, "3.1%"), (1.0, "100.0%")],
)
def test_percents(value: float, text: str) -> None:
    assert table.percent(value) == text


def test_a_layer_says_its_verdict_once() -> None:
    titles = [column.title for column in table.COLUMNS]
    verdicts = [cells[titles.index("verdict")] for cells in expected_cells(samples.quadrant())]
    assert verdicts == ["conv", "", "undecided", "", "conv+ffc", "", table.NONE]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    report = samples.report(LayerStructure("x", {"conv": samples.path()}, "conv", 1.0))
    (tmp_path / "r.md").write_text("old")
    report.to_markdown(tmp_path / "r.md")
    assert [file.name for file in tmp_path.iterdir()] == ["r.md"]
    with pytest.raises(FileNotFoundError, match=r"folder .*missing does not exist"):
        report.to_json(tmp_path / "missing" / "r.json")
