"""Fits killed by SIGKILL and resumed equal uninterrupted ones; no run is lost."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from symlearn.fit import checkpoint
from tests.fit import continuing

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no fork server"),
]


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Makes processes that have imported the package already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fit.continuing"])
    return context


def attempt(
    server: ForkServerContext,
    case: str,
    folder: Path,
    *,
    crash: str = "",
    after: float | None = None,
) -> Any:
    """Run or go on in a process of its own, killed after some seconds or at a write.

    Returns:
        The outcome, or None if it was killed.
    """
    out = folder.with_suffix(".json")
    resume = folder.is_dir() and bool(checkpoint.checkpoints(folder))
    process = server.Process(
        target=continuing.run, args=(case, str(folder), str(out), resume, crash)
    )
    process.start()
    process.join(120 if after is None else after)
    if process.is_alive():
        assert after is not None, "the fit hangs"
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return json.loads(out.read_text()) if process.exitcode == 0 else None


def killed_until_done(
    server: ForkServerContext, case: str, folder: Path, limits: list[float]
) -> tuple[Any, int]:
    """Kill a fit after each of some times, and let it end; the outcome, and how often it died."""
    kills = 0
    for limit in limits:
        found = attempt(server, case, folder, after=limit)
        if found is not None:
            return found, kills
        kills += 1
    return attempt(server, case, folder), kills


def seconds_of(server: ForkServerContext, case: str, folder: Path) -> tuple[Any, float]:
    """Outcome and duration of an uninterrupted fit; the first run starts the server."""
    attempt(server, case, folder.with_name("warm"))
    start = time.perf_counter()
    return attempt(server, case, folder), time.perf_counter() - start


def test_killed_at_random_moments(server: ForkServerContext, tmp_path: Path) -> None:
    expected, seconds = seconds_of(server, "eventful", tmp_path / "whole")
    moments = random.Random(time.time_ns())
    limits = [moments.uniform(0.2, 0.6) * seconds for _ in range(4)]
    found, kills = killed_until_done(server, "eventful", tmp_path / "run", limits)
    assert kills >= 2, limits
    assert found == expected, limits


@pytest.mark.parametrize("where", ["write", "before-rename", "after-rename"])
def test_killed_while_writing(server: ForkServerContext, tmp_path: Path, where: str) -> None:
    """The checkpoint before stays whole, what was half written is removed later."""
    expected = attempt(server, "noisy", tmp_path / "whole")
    folder = tmp_path / "run"
    assert attempt(server, "noisy", folder, crash=f"{where}:3") is None
    assert list(checkpoint.checkpoints(folder)) == ([0, 1, 2] if where[0] == "a" else [0, 1])
    assert len(list(folder.glob(".epoch-*"))) == (0 if where == "after-rename" else 1)
    assert attempt(server, "noisy", folder) == expected
    assert not list(folder.glob(".epoch-*"))
    assert list(checkpoint.checkpoints(folder)) == [4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("case", continuing.CASES)
def test_killed_often(server: ForkServerContext, tmp_path: Path, case: str) -> None:
    """At least 20 kills in all per case, over as many runs as that takes."""
    expected, seconds = seconds_of(server, case, tmp_path / "whole")
    moments = random.Random(time.time_ns())
    kills = runs = 0
    while kills < 20:
        limits = [moments.uniform(0.02, 0.9) * seconds for _ in range(5)]
        found, died = killed_until_done(server, case, tmp_path / f"run{runs}", limits)
        assert found == expected, limits
        kills, runs = kills + died, runs + 1
