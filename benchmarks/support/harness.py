"""What the benchmarks share: interleaved timing, peers that may be missing, results on disk.

A benchmark names its contenders, times them side by side with `measure`, puts the figures into a
`Report` and writes it. A peer that is not installed stays in every table, as "missing", so that no
result depends on which peer happens to be there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

RESULTS = Path(__file__).parents[1] / "results"
PEERS = ("laplace-torch", "asdfghjkl", "backpack-for-pytorch", "curvlinops-for-pytorch")


@dataclass(frozen=True)
class Missing:
    """Stands for a peer, or a figure of a peer, whose package is not installed."""

    package: str

    def __str__(self) -> str:
        return "missing"


Run: TypeAlias = Callable[[], object]
Cell: TypeAlias = str | int | float | bool | Missing
Seconds: TypeAlias = dict[str, float | Missing]
T = TypeVar("T")


def peer(packages: Sequence[str], build: Callable[[], T]) -> T | Missing:
    """Return what ``build`` returns, or `Missing` if one of the packages is not installed.

    Args:
        packages: Import names that ``build`` needs.
        build: Makes what stands for the peer, such as a function to be timed; a failure in it is an
            error, not a missing peer.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return Missing(package)
    return build()


def median(values: Sequence[float]) -> float:
    """Median of finite numbers.

    Raises:
        ValueError: If there is none, or one is NaN or infinite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a median needs finite numbers; given: {list(values)}")
    return statistics.median(values)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Garbage collection inside the block leaves out what was there before, and so is fast."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def measure(
    contenders: Mapping[str, Run | Missing], reps: int = 7, n_threads: int = 1, warmup: int = 1
) -> Seconds:
    """Median seconds of every contender: CPU time on one thread, wall-clock on more.

    The runs are interleaved (each contender once, then all again), so that a drift of the machine's
    speed hits all of them alike.

    Args:
        contenders: Name to function, or to `Missing`.
        reps: Measured runs of each.
        n_threads: Threads torch may use.
        warmup: Runs of each that are not measured.

    Raises:
        ValueError: If there is no run to be measured.
    """
    if reps < 1:
        raise ValueError(f"reps is {reps}; give at least one measured run")
    clock = time.process_time if n_threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with threads(n_threads), _frozen_heap():
        for rep in range(-warmup, reps):
            for name, run in contenders.items():
                if isinstance(run, Missing):
                    continue
                gc.collect()
                start = clock()
                run()
                elapsed = clock() - start
                if rep >= 0:
                    seconds[name].append(elapsed)
    return {
        name: run if isinstance(run, Missing) else median(seconds[name])
        for name, run in contenders.items()
    }


def ratio(value: float | Missing, unit: float | Missing) -> float | Missing:
    """``value / unit``, or whichever of the two is missing."""
    if isinstance(value, Missing):
        return value
    return unit if isinstance(unit, Missing) else value / unit


def present(found: Mapping[str, float | Missing]) -> dict[str, float]:
    """The figures that are not missing."""
    return {name: value for name, value in found.items() if not isinstance(value, Missing)}


def environment() -> dict[str, str]:
    """Versions, processor, threads, load and date, as strings."""
    found = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    found["processor"] = f"{_processor()}, {os.cpu_count()} logical cores"
    if hasattr(os, "getloadavg"):
        found["load at the end (1 min)"] = f"{os.getloadavg()[0]:.1f}"
    found["python"] = platform.python_version()
    for package in ("torch", "symlearn-torch", *PEERS):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def show(cell: Cell) -> str:
    """One cell of a table: numbers with three significant digits.

    Raises:
        ValueError: For NaN or an infinite number.
    """
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if not isinstance(cell, float):
        return str(cell)
    if not math.isfinite(cell):
        raise ValueError(f"{cell} is no result; a table takes finite numbers")
    if cell == 0 or 1e-2 <= abs(cell) < 1e5:
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:.1e}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A Markdown table; the first column is text, the others are numbers.

    Raises:
        ValueError: If a row has another number of cells than there are columns, or a cell is NaN.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {list(row)} has {len(row)} cells for {len(columns)} columns")
    lines = [" | ".join(columns), " | ".join(["---"] + ["---:"] * (len(columns) - 1))]
    lines += [" | ".join(show(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


@dataclass
class Report:
    """The tables of one benchmark.

    Args:
        name: Name of the files that `write` makes.
        claim: What the benchmark claims, one sentence.
        conditions: What was measured and how, a few sentences.
    """

    name: str
    claim: str
    conditions: str = ""
    tables: list[dict[str, Any]] = field(default_factory=list)
    goals: list[list[Cell]] = field(default_factory=list)

    @classmethod
    def described(cls, name: str, docstring: str | None) -> Report:
        """A report whose claim is a docstring's first line, and whose conditions are the rest."""
        first, _, rest = (docstring or "").partition("\n")
        claim = first.removeprefix("Claim: ").removesuffix(".")
        return cls(name, claim[:1].upper() + claim[1:], rest.strip())

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Add a table.

        Raises:
            ValueError: As `markdown_table`.
        """
        markdown_table(columns, rows)
        self.tables.append(
            {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
        )

    def timings(
        self,
        title: str,
        unit: str,
        one: Mapping[str, float | Missing],
        two: Mapping[str, float | Missing],
    ) -> None:
        """Add a table of what `measure` returned on one thread and on two.

        Args:
            title: Title of the table.
            unit: The contender whose time is the unit.
            one: CPU seconds on one thread.
            two: Wall-clock seconds on two threads; contenders may be left out.
        """
        rows: list[list[Cell]] = []
        for name, seconds in one.items():
            row: list[Cell] = [name, seconds, ratio(seconds, one[unit])]
            row += [two[name], ratio(two[name], two[unit])] if name in two else ["", ""]
            rows.append(row)
        columns = ["", "CPU s, 1 thread", "units", "wall s, 2 threads", "units"]
        self.table(title, columns, rows)

    def goal(self, what: str, value: float | Missing, at_most: float) -> None:
        """Add a figure that is to be at most so much; the table of goals says whether it is.

        Raises:
            ValueError: If the figure is NaN or infinite.
        """
        show(value)
        met: Cell = value if isinstance(value, Missing) else value <= at_most
        self.goals.append([what, value, at_most, met])

    def markdown(self, facts: Mapping[str, str]) -> str:
        """The report as Markdown, with the environment's facts at the end."""
        parts = [f"# {self.claim}", self.conditions]
        if self.goals:
            parts.append(markdown_table(["goal", "measured", "at most", "met"], self.goals))
        for table in self.tables:
            parts.append(f"## {table['title']}")
            parts.append(markdown_table(table["columns"], table["rows"]))
        parts.append("\n".join(f"* {key}: {value}" for key, value in facts.items()))
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, folder: Path = RESULTS) -> None:
        """Print the report and write it as ``<name>.md`` and ``<name>.json``."""
        facts = environment()
        text = self.markdown(facts)
        content = {
            "claim": self.claim,
            "conditions": self.conditions,
            "environment": facts,
            "goals": self.goals,
            "tables": self.tables,
        }
        folder.mkdir(parents=True, exist_ok=True)
        encoded = json.dumps(content, indent=1, default=str, allow_nan=False)
        (folder / f"{self.name}.json").write_text(encoded + "\n")
        (folder / f"{self.name}.md").write_text(text)
        print(text)


def options(description: str | None, **extra: dict[str, Any]) -> argparse.Namespace:
    """Command line of a benchmark: ``--reps``, ``--threads``, ``--out`` and the given options.

    Args:
        description: The benchmark's docstring, whose first line is shown.
        extra: Name of an option to the keyword arguments of ``add_argument``.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--reps", type=int, default=7, help="measured runs of each contender")
    parser.add_argument(
        "--threads",
        type=int,
        choices=(1, 2),
        default=2,
        help="1 leaves out the runs on two threads",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    for name, settings in extra.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()
