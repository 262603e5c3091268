"""Claim: two processes take at most two thirds of one's time for evidence.

Parts of a fit of the demo's network (UCI digits in quadrants, 768 images of 16x16, both paths on,
batches of 256), as narrow as it is there and four times as wide, shared by two processes on gloo,
against the same in one of them while the other waits. Runs alternate, so that a drift of the
machine's speed hits both alike. Seconds are the medians of the runs. CPU seconds are those of the
process that took longer, waiting left out: what cores of their own would give. Wall-clock seconds
hold whatever else the machine did at the time. The goals are for what the evidence needs of the
wide network. Steps of the weights gain less: they take some milliseconds, of which a large part
does not depend on the batch (the optimiser, the sum of the gradients).
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import torch.distributed as dist

import curvature
import symlearn
from benchmarks.support.harness import Cell, Report, median, options
from curvature import ALONE, Reduction
from symlearn import FitConfig, demo
from symlearn.fit import Fitting
from symlearn.fit.weights import train_epoch
from symlearn.models import small_cnn

GOAL = 2 / 3
SIZE, BATCH = 768, 256
NARROW, WIDE = 8, 32

Seconds = tuple[float, float]
"""CPU and wall-clock seconds."""


def main() -> None:
    """Start the two processes, and write the table of what they measured."""
    given = options(__doc__)
    load = os.getloadavg()[0]
    context = multiprocessing.get_context("spawn")
    results: SimpleQueue[dict[str, list[tuple[Seconds, Seconds]]]] = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        store = (Path(folder) / "store").as_uri()
        group = [
            context.Process(target=_process, args=(rank, store, given.reps, results))
            for rank in range(2)
        ]
        for process in group:
            process.start()
        both = [results.get() for _ in group]
        for process in group:
            process.join()
    report = Report.described("processes", __doc__)
    report.conditions += (
        f" Load of the machine at the start (processes that want a core, of {os.cpu_count()} "
        f"cores): {load:.1f}."
    )
    rows: list[list[Cell]] = []
    for part in both[0]:
        runs = list(zip(*(seconds[part] for seconds in both), strict=True))
        alone = [runs[i][0][0] for i in range(len(runs))]  # the first process's, by itself
        shared = [tuple(max(a, b) for a, b in zip(x[1], y[1], strict=True)) for x, y in runs]
        one, two = ([median(column) for column in zip(*s, strict=True)] for s in (alone, shared))
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        rows.append([part, one[0], two[0], ratios[0], one[1], two[1], ratios[1]])
        if part.startswith(f"width {WIDE}") and not part.endswith("weights"):
            report.goal(f"{part}: CPU time of two over one", ratios[0], GOAL)
    columns = ["", "CPU s, one", "CPU s, two", "ratio", "wall s, one", "wall s, two", "ratio"]
    report.table("Seconds of one and of two processes", columns, rows)
    report.write(given.out)


def _process(
    rank: int,
    store: str,
    reps: int,
    results: SimpleQueue[dict[str, list[tuple[Seconds, Seconds]]]],
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    group = Reduction(dist.group.WORLD)
    alone, shared = (
        {f"width {w}, {name}": act for w in (NARROW, WIDE) for name, act in parts(w, who).items()}
        for who in (ALONE, group)
    )
    found: dict[str, list[tuple[Seconds, Seconds]]] = {name: [] for name in alone}
    for rep in range(-1, reps):
        for name in alone:
            by_itself = timed(alone[name]) if rank == 0 else (0.0, 0.0)
            dist.barrier()
            together = timed(shared[name])
            dist.barrier()
            if rep >= 0:  # the first run is not measured
                found[name].append((by_itself, together))
    # the first process is the first in the queue
    for turn in range(2):
        if turn == rank:
            results.put(found)
        dist.barrier()
    dist.destroy_process_group()


def parts(width: int, processes: Reduction) -> Mapping[str, Callable[[], object]]:
    """Parts of a fit by name, ready to be run.

    Args:
        width: Width of the network.
        processes: The processes that run them.
    """
    train, _ = demo.make_task("quadrant", *demo.load("digits", 0), 0)
    cnn = small_cnn(train.classes, in_channels=train.x.shape[1], width=width)
    model = symlearn.wrap(cnn, train.x[:2], boundary="circular")
    config = FitConfig(seed=0, progress=False, grow=False, batch_size=BATCH)
    x, y = train.pair
    run = Fitting(model, (x[:SIZE], y[:SIZE]), config, processes=processes)
    state = run.state

    def weights() -> None:
        batches = run.data.epoch(run.generator)
        train_epoch(
            *(state.model, batches, state.likelihood, state.optimiser, state.average, processes)
        )

    def exact() -> None:
        data = run.data.sample(config.curvature_samples, run.generator)
        found = curvature.kronecker(state.model, data, "categorical", reduction=processes)
        for block in found.values():
            block.logdet(1.0)

    return {
        "an epoch of weights": weights,
        "an evidence step": lambda: run.precisions.take(state, 0.5),
        "a pass of the exact curvature": exact,
    }


def timed(act: Callable[[], object]) -> Seconds:
    """CPU and wall-clock seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
