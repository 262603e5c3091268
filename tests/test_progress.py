"""The progress bar: the time left, also of steps that take long."""

from __future__ import annotations

import io
import sys

import pytest

from symlearn.progress import Progress

pytestmark = pytest.mark.core


@pytest.mark.parametrize("seconds", [1, 600])
def test_the_time_left(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = [0.0], io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    bar = Progress(True, "fit", 5)
    bar._bar.get_time = lambda: clock[0]
    for task in bar._bar.tasks:
        task._get_time = bar._bar.get_time
        task.start_time = 0.0
    for _ in range(3):
        clock[0] += seconds
        bar.advance()
    assert bar._bar.tasks[0].time_remaining == 2 * seconds


@pytest.mark.parametrize(
    ("wanted", "terminal", "shown"),
    [(None, False, False), (None, True, True), (False, True, False)],
)
def test_it_is_shown_on_terminals(
    wanted: bool | None, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", out)
    with Progress(wanted, "fit", 1) as bar:
        bar.advance()
    assert ("1/1" in out.getvalue()) is shown
    assert ("taken" in out.getvalue()) is shown
    assert shown or out.getvalue() == ""
