"""The benchmarks' own arithmetic: medians, missing peers, tables, files, and peak memory."""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.support import harness, peak_memory
from benchmarks.support.harness import Cell, Missing, Report, Run, Seconds

pytestmark = pytest.mark.core


def test_median_is_the_middle_value() -> None:
    assert harness.median([3.0, 1.0, 100.0]) == 3.0
    assert harness.median([4.0, 1.0, 2.0, 100.0]) == 3.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan, 2.0], [1.0, math.inf]])
def test_median_refuses_what_is_no_measurement(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a median needs finite numbers"):
        harness.median(values)


def test_missing_peer_is_named_and_not_built() -> None:
    def build() -> None:
        raise AssertionError("built although its package is missing")

    found = harness.peer(["json", "no_such_package"], build)
    assert found == Missing("no_such_package")
    assert str(found) == "missing"
    assert harness.peer(["json"], lambda: 3) == 3


def test_broken_peer_is_an_error() -> None:
    def build() -> None:
        raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"):
        harness.peer(["json"], build)


def test_measure_interleaves_warms_up_and_keeps_the_missing() -> None:
    calls: list[str] = []
    contenders: dict[str, Run | Missing] = {
        "a": lambda: calls.append("a"),
        "gone": Missing("gone"),
        "b": lambda: calls.append("b"),
    }
    found = harness.measure(contenders, reps=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert list(found) == ["a", "gone", "b"]
    assert found["gone"] == Missing("gone")


def test_measure_returns_the_median_of_wall_clock_on_two_threads() -> None:
    pauses = iter([0.0, 0.1, 0.1, 0.0])  # the first is the warm-up
    seen: list[int] = []

    def run() -> None:
        seen.append(torch.get_num_threads())
        time.sleep(next(pauses))

    before = torch.get_num_threads()
    found = harness.measure({"run": run}, reps=3, n_threads=2)
    assert isinstance(found["run"], float)
    assert 0.09 < found["run"] < 0.2
    assert set(seen) == {2}
    assert torch.get_num_threads() == before


def test_measure_counts_processor_time_on_one_thread() -> None:
    found = harness.measure({"sleep": lambda: time.sleep(0.1)}, reps=1)
    assert isinstance(found["sleep"], float)
    assert found["sleep"] < 0.05


def test_measure_needs_a_run() -> None:
    with pytest.raises(ValueError, match="reps is 0"):
        harness.measure({}, reps=0)


def test_ratio_of_something_missing_is_missing() -> None:
    gone = Missing("gone")
    assert harness.ratio(3.0, 2.0) == 1.5
    assert harness.ratio(gone, 2.0) == gone
    assert harness.ratio(3.0, gone) == gone


def test_table() -> None:
    rows: list[list[Cell]] = [
        ["ours", 0.012345, 3, True],
        ["theirs", Missing("theirs"), 123456.0, False],
    ]
    assert harness.markdown_table(["who", "s", "n", "met"], rows).splitlines() == [
        "| who | s | n | met |",
        "| --- | ---: | ---: | ---: |",
        "| ours | 0.0123 | 3 | yes |",
        "| theirs | missing | 1.2e+05 | no |",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_table_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="takes finite numbers"):
        Report("x", "x").table("t", ["a", "b"], [["row", value]])
    with pytest.raises(ValueError, match="takes finite numbers"):
        Report("x", "x").goal("g", value, 1.0)


def test_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        harness.markdown_table(["a", "b"], [["a"]])


def test_goals_are_met_missed_or_missing() -> None:
    report = Report("x", "x")
    report.goal("fast", 1.0, 2.0)
    report.goal("slow", 3.0, 2.0)
    report.goal("peer", Missing("peer"), 2.0)
    assert [row[-1] for row in report.goals] == [True, False, Missing("peer")]


def test_report_of_timings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report.described("x", "Claim: the claim.\n\nThe conditions.\n")
    one: Seconds = {"unit": 2.0, "ours": 3.0, "peer": Missing("peer")}
    report.timings("Times", "unit", one, {"unit": 1.0, "peer": Missing("peer")})
    report.write(tmp_path)
    text = (tmp_path / "x.md").read_text()
    assert text == capsys.readouterr().out.removesuffix("\n")
    assert text.startswith("# The claim\n\nThe conditions.\n\n## Times\n\n")
    assert "| ours | 3 | 1.5 |  |  |\n" in text
    assert "| peer | missing | missing | missing | missing |\n" in text
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["environment"]["torch"] == importlib.metadata.version("torch")
    assert content["tables"][0]["rows"][2] == ["peer", *["missing"] * 4]


def test_environment_names_every_peer() -> None:
    facts = harness.environment()
    assert set(harness.PEERS) <= set(facts)
    assert all(facts.values())


needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="peak memory is read from /proc"
)
SCRIPT = """
from benchmarks.support.peak_memory import extra_peak
size = 64 * 2**20
held = b"x" * size
print(extra_peak(lambda: {body}))
"""


@needs_linux
@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("None", 0),
        ('b"x" * size', 64),  # what is returned counts
        ('len(b"x" * size)', 64),  # and what was freed
        ('[len(b"x" * size) for _ in range(3)]', 64),
        ('len(b"x" * size + b"y" * size)', 256),  # two parts and their sum
    ],
)
def test_extra_peak_of_known_allocations(body: str, want: float, tmp_path: Path) -> None:
    script = tmp_path / "allocate.py"
    root = Path(harness.__file__).parents[2]
    script.write_text(f"import sys; sys.path.insert(0, {str(root)!r})" + SCRIPT.format(body=body))
    assert peak_memory.in_fresh_process(script, []) == pytest.approx(want, abs=2)


@needs_linux
def test_extra_peak_forgets_an_earlier_peak() -> None:
    if not _peak_can_be_reset():
        pytest.skip("this kernel does not let the peak be reset")
    assert len(b"x" * 2**28) == 2**28
    assert peak_memory.extra_peak(lambda: b"x" * 2**26) == pytest.approx(64, abs=4)


def _peak_can_be_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def test_failing_process_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "fail.py"
    script.write_text("raise SystemExit('out of luck')")
    with pytest.raises(RuntimeError, match="out of luck"):
        peak_memory.in_fresh_process(script, ["a"])
