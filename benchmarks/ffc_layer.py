"""Claim: F-FC costs several times less time and memory than by its published construction.

One forward and backward pass of the layer, with gradients of the input and of both weights, 64
inputs of C channels, as many outputs, maps of S = size x size sites. Times relative to ours are
ratios of medians; the goals are about C of 10 and 20 and maps of 16x16 and 32x32, as smaller layers
cost little but overhead. Memory is the peak resident set beyond that before the pass, each in a
process of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from benchmarks.support import harness, peak_memory
from benchmarks.support.exponents import exponent
from benchmarks.support.harness import Cell, Report, Run, measure, present
from benchmarks.support.published_ffc import EinsumFFC, PublishedFFC, ffc_path
from symlearn.paths.ffc import FFCPath

BATCH = 64
CHANNELS, SIZES = (5, 10, 20), (8, 16, 32)
GRID = tuple(itertools.product(CHANNELS, SIZES))
LARGE = tuple((c, s) for c, s in GRID if c >= 10 and s >= 16)
IN_MEMORY = ((10, 16), (20, 32))
OURS = "symlearn"
GOALS = {"published": 1 / 3, "einsum": 1.2}
REPEATS = 5  # in one measured run: some of the layers take less than a millisecond
Times = Mapping[tuple[int, int], Mapping[str, float]]
LAYERS: dict[str, Callable[[FFCPath], nn.Module]] = {
    OURS: lambda path: path,
    "einsum": EinsumFFC,
    "published": PublishedFFC,
}


def step(name: str, channels: int, size: int, *, batch: int = BATCH, repeats: int = REPEATS) -> Run:
    """The function that one contender is timed on: so many forward and backward passes."""
    layer = LAYERS[name](ffc_path(channels, size))
    generator = torch.Generator().manual_seed(1)
    x, g = torch.randn(2, batch, channels, size, size, generator=generator)
    x.requires_grad_(True)

    def run() -> None:
        for _ in range(repeats):
            layer.zero_grad(set_to_none=True)
            x.grad = None
            layer(x).backward(g)

    return run


def times(layers: Sequence[tuple[int, int]], reps: int, n_threads: int) -> Times:
    """Seconds of one pass of every contender by (channels, size)."""
    found = {}
    for c, s in layers:
        seconds = measure({name: step(name, c, s) for name in LAYERS}, reps, n_threads)
        found[c, s] = {name: value / REPEATS for name, value in present(seconds).items()}
    return found


def add_times(report: Report, title: str, found: Times) -> None:
    """A table of times, and of ratios to ours."""
    others = [name for name in LAYERS if name != OURS]
    rows: list[Sequence[Cell]] = [
        [f"{c}, {s}x{s}", *(1000 * t[name] for name in LAYERS), *(t[o] / t[OURS] for o in others)]
        for (c, s), t in found.items()
    ]
    columns = ["C, map", *(f"{name}, ms" for name in LAYERS), *(f"{o} / {OURS}" for o in others)]
    report.table(title, columns, rows)


def add_exponents(report: Report, found: Times) -> None:
    """A table of the exponents in channels and in sites, each over the other's largest value."""
    rows: list[Sequence[Cell]] = []
    for name in LAYERS:
        c, s = CHANNELS[-1], SIZES[-1]
        in_channels = exponent(CHANNELS, [found[k, s][name] for k in CHANNELS])
        in_sites = exponent([k * k for k in SIZES], [found[c, k][name] for k in SIZES])
        rows.append([name, in_channels, in_sites])
    title = "Growth exponents of the time on one thread"
    columns = [
        "",
        f"in C, at {SIZES[-1]}x{SIZES[-1]} sites",
        f"in S, at C = {CHANNELS[-1]}",
    ]
    report.table(title, columns, rows)


def add_memory(report: Report) -> float:
    """A table of peak memory; returns the largest ratio of ours to the published one."""
    rows: list[Sequence[Cell]] = []
    worst = 0.0
    for c, s in IN_MEMORY:
        arguments = ["--channels", str(c), "--size", str(s)]
        peaks = {
            name: peak_memory.in_fresh_process(__file__, ["--memory", name, *arguments])
            for name in LAYERS
        }
        worst = max(worst, peaks[OURS] / peaks["published"])
        rows.append([f"{c}, {s}x{s}", *peaks.values(), peaks["published"] / peaks[OURS]])
    columns = ["C, map", *(f"{name}, MiB" for name in LAYERS), f"published / {OURS}"]
    report.table("Extra peak memory", columns, rows)
    return worst


def main() -> None:
    """Measure and write the results, or print one figure of memory."""
    options = harness.options(
        __doc__,
        memory={"choices": LAYERS, "help": "print this contender's extra peak memory in MiB"},
        channels={"type": int, "default": CHANNELS[0]},
        size={"type": int, "default": SIZES[0]},
    )
    if options.memory:
        torch.set_num_threads(1)
        step(options.memory, options.channels, options.size, batch=1)()
        once = step(options.memory, options.channels, options.size, repeats=1)
        print(peak_memory.extra_peak(once))
        return
    report = Report("ffc_layer", "F-FC without its block-diagonal matrix", __doc__ or "")
    one, two = times(GRID, options.reps, 1), times(LARGE, options.reps, 2)
    for what in ("published", "einsum"):
        largest = max(one[key][OURS] / one[key][what] for key in LARGE)
        report.goal(f"time, ours / {what}, largest ratio on one thread", largest, GOALS[what])
    memory = add_memory(report)
    report.goal("memory, ours / published, largest ratio", memory, GOALS["published"])
    add_times(report, "CPU time on one thread", one)
    add_times(report, "Wall-clock on two threads", two)
    add_exponents(report, one)
    report.write(options.out)


if __name__ == "__main__":
    main()
