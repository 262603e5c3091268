"""Claim: a pass needs hardly more memory than training, and no more for more data.

The paper's CONV net, 10 classes, random images. Extra peak memory is the peak resident set beyond
the one before the pass, in MiB. Each figure comes from a process of its own, after a warm-up on two
images; the allocator decides how much freed memory a process keeps, so resident sets vary from run
to run (medians of several processes, peers once) and memory in use is given as well. The pass
includes the eigendecomposition of all factors, and what it returns counts.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.support import harness, nets, peers
from benchmarks.support.harness import Cell, Missing, Report, ratio
from benchmarks.support.peak_memory import extra_peak, in_fresh_process

TRAINING = "training pass"
OURS = {"symlearn, exact": "exact", "symlearn, sketch": "sketch"}
LIBRARIES = ("asdl", "curvlinops", "BackPACK")
SIZES = (128, 512)
MANY = 8


def pass_of(name: str, net: nn.Sequential) -> peers.Fit | Missing:
    """What is run over batches to measure the named contender."""
    if name == TRAINING:
        return partial(nets.forward_backward, net)
    if name in OURS:
        return partial(nets.decomposed, net, estimator=OURS[name])
    return peers.fits(net, [name])[name]


def measure_here(name: str, size: int, count: int) -> float | Missing:
    """Extra peak memory of a contender on ``count`` batches, in MiB; for a process of its own."""
    net = nets.paper_conv()
    x, y = torch.randn(size * count, 1, 32, 32), torch.randint(10, (size * count,))
    batches, two = nets.Batches(x, y, size), nets.Batches(x[:2], y[:2], 2)
    for data in (two, batches):
        net.zero_grad(set_to_none=True)
        run = pass_of(name, net)  # a new one: a peer's object keeps what it found
        if isinstance(run, Missing):
            return run
        peak = extra_peak(partial(run, data))
        del run
    return peak


def measure(
    name: str, size: int, count: int = 1, processes: int = 1, live: bool = False
) -> float | Missing:
    """The same, measured in fresh processes; the median."""
    if isinstance(missing := pass_of(name, nets.paper_conv()), Missing):
        return missing
    arguments = ["--measure", name, str(size), str(count)]
    return harness.median(
        [in_fresh_process(Path(__file__), arguments, live) for _ in range(processes)]
    )


def main() -> None:
    """Measure and write the results."""
    options = harness.options(
        __doc__,
        processes={"type": int, "default": 3, "help": "measured processes of each contender"},
        measure={"nargs": 3, "help": argparse.SUPPRESS},
    )
    torch.set_num_threads(1)
    if options.measure is not None:
        print(measure_here(options.measure[0], *(int(part) for part in options.measure[1:])))
        return
    report = Report.described("memory", __doc__)
    resident(report, options.processes)
    live(report)
    report.write(options.out)


def resident(report: Report, processes: int) -> None:
    """Add the table and goals of what a user sees: peaks with the allocator as it is."""
    found = {}
    for name in (TRAINING, *OURS, *LIBRARIES):
        runs = 1 if name in LIBRARIES else processes
        found[name] = [measure(name, size, processes=runs) for size in SIZES]
    rows: list[list[Cell]] = []
    for name, figures in found.items():
        ratios = [ratio(a, b) for a, b in zip(figures, found[TRAINING], strict=True)]
        rows.append([name, figures[0], ratios[0], figures[1], ratios[1]])
        if name in OURS:
            for size, value in zip(SIZES, ratios, strict=True):
                report.goal(f"{name} / training, batch {size}", value, 1.25)
    columns = ["", *(cell for size in SIZES for cell in (f"batch {size}", "training = 1"))]
    report.table("Extra peak resident set of a pass over one batch, MiB", columns, rows)


def live(report: Report) -> None:
    """Add the table and goals of memory in use, which is the same in every run."""
    rows: list[list[Cell]] = []
    for name in (TRAINING, *OURS, "asdl"):
        one, large = (measure(name, size, live=True) for size in SIZES)
        many = measure(name, SIZES[0], MANY, live=True)
        rows.append([name, one, large, many, ratio(many, one)])
        if name in OURS:
            report.goal(f"{name}, in use, {MANY} batches / one", ratio(many, one), 1.1)
    columns = ["", *(f"batch {size}" for size in SIZES), f"{MANY} batches of {SIZES[0]}", "growth"]
    report.table("Extra memory in use at the peak, MiB", columns, rows)


if __name__ == "__main__":
    main()
