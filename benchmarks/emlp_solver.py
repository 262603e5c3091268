"""Claim: an equivariant basis takes at most a tenth of the published solver's time.

All invariants of T_k, k-fold tensors of the base representation, are found from nothing: S_5 by its
permutations, SO(3) by its Lie algebra. Each figure comes from a process of its own, with one thread
and no files. Seconds are CPU time of the call. Memory is the peak resident set beyond that before
the call, after imports; the basis that is returned counts. Ours is double precision, S_5 sparse as
it is found. The published package (emlp 1.0.3 on jax, `pip install emlp six`) is single precision.
Its progress bars are off, as they fail with present versions of its dependencies, and it is stopped
after 40 seconds, which then stand for its time in the goals. It compiles what it runs, which
counts, as every basis is another program. Growth exponents are slopes over the size n = d^k of the
tensors.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

import torch

from benchmarks.support.exponents import exponent
from benchmarks.support.harness import Cell, Missing, Report, options, present, ratio
from benchmarks.support.peak_memory import extra_peak, in_fresh_process
from symlearn.groups import SO, EquivariantBasis, MatrixGroup, S, T, cache

LIMIT = 40
GROUPS: dict[str, Callable[[], MatrixGroup]] = {"S_5": lambda: S(5), "SO(3)": lambda: SO(3)}
RANKS = (5, 6, 7)
GROWTH = (6, 7, 8)  # below, the clock of a process may not tick
GOAL = 0.1
Solve = Callable[[], object]


def ours(group: str, k: int) -> Solve:
    """Our solver, ready to be called."""
    rep = T(k)(GROUPS[group]())
    EquivariantBasis(T(2)(SO(2)))  # brings in code
    return lambda: EquivariantBasis(rep)


def published(group: str, k: int) -> Solve:
    """The published package's solver, ready to be called."""
    groups = importlib.import_module("emlp.groups")
    tensors = importlib.import_module("emlp.reps").T
    made = groups.S(5) if group == "S_5" else groups.SO(3)
    tensors(2)(groups.SO(2)).equivariant_basis()
    rep = tensors(k)(made)
    return lambda: rep.equivariant_basis()


CONTENDERS = {"symlearn": ours, "emlp": published}


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError


def measure_here(what: str, name: str, group: str, k: int) -> float:
    """Seconds, or MiB; infinite if it takes longer than the limit. For a process of its own."""
    torch.set_num_threads(1)
    solve = CONTENDERS[name](group, k)
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        if what == "MiB":
            return extra_peak(solve)
        start = time.process_time()
        solve()
        return time.process_time() - start
    except TimeoutError:
        return math.inf


def figure(what: str, name: str, group: str, k: int) -> float | Missing:
    """The same, in a fresh process."""
    if name == "emlp" and importlib.util.find_spec("emlp") is None:
        return Missing("emlp")
    return in_fresh_process(__file__, ["--measure", what, name, group, str(k)])


def cell(value: float | Missing) -> Cell:
    """A figure for a table; an infinite one was not awaited."""
    return f"> {LIMIT} s" if value == math.inf else value


def main() -> None:
    """Measure and write the results, or print one figure."""
    given = options(__doc__, measure={"nargs": 4, "help": argparse.SUPPRESS})
    os.environ |= {cache.VARIABLE: "", "TQDM_DISABLE": "1", "OPENBLAS_NUM_THREADS": "1"}
    if given.measure:
        what, name, group, k = given.measure
        print(measure_here(what, name, group, int(k)))
        return
    report = Report.described("emlp_solver", __doc__)
    rows: list[list[Cell]] = []
    for group, k in itertools.product(GROUPS, RANKS):
        seconds = {name: figure("s", name, group, k) for name in CONTENDERS}
        peaks = [
            second if second == math.inf else figure("MiB", name, group, k)
            for name, second in seconds.items()
        ]
        n, r = EquivariantBasis(T(k)(GROUPS[group]())).shape
        times = map(cell, (*seconds.values(), *peaks))
        rows.append([f"{group}, T_{k}", f"{n:,} x {r}", *times])
        theirs = LIMIT if seconds["emlp"] == math.inf else seconds["emlp"]
        part = ratio(seconds["symlearn"], theirs)
        report.goal(f"time, ours / emlp, {group}, T_{k}", part, GOAL)
    units = [f"{name}, {unit}" for unit in ("s", "MiB") for name in CONTENDERS]
    report.table("Finding the basis", ["", "basis", *units], rows)
    add_growth(report)
    report.write(given.out)


def add_growth(report: Report) -> None:
    """A table of our times over more tensor ranks, and their exponents in the size."""
    rows: list[list[Cell]] = []
    for group, make in GROUPS.items():
        times = list(present({str(k): figure("s", "symlearn", group, k) for k in GROWTH}).values())
        rows.append([group, *times, exponent([make().dim ** k for k in GROWTH], times)])
    columns = ["", *(f"T_{k}, s" for k in GROWTH), "exponent in n"]
    report.table("Growth of ours with the size n", columns, rows)


if __name__ == "__main__":
    main()
