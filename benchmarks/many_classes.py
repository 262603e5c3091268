"""Claim: with truncated or sketched columns, a thousand classes cost hardly more than ten.

Cost: the paper's CONV net with 10, 100 and 1000 outputs, 256 images, batch 128; the exact pass over
100 classes sees 64 images. Every pass ends with the eigendecomposition of all factors. The unit is
a training pass of the same network over the same data. Error: a small CNN for the 100 two-digit
numbers made of UCI's digits, at two moments of its training, against the exact pass, with one
precision per layer that maximises the evidence; medians and largest values over seeds, of the
largest error over layers. The mass of a truncated pass is the share of the output Hessian's trace
that its exact columns leave to the sketched one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.support import accuracy, harness, nets
from benchmarks.support.harness import Cell, Missing, Report, Run, Seconds, ratio

CLASSES = (10, 100, 1000)
UNIT, EXACT = "training pass", "exact"
TRUNCATED = "truncated, 8 columns"
ESTIMATORS: dict[str, dict[str, Any]] = {
    EXACT: {"estimator": "exact"},
    **{f"truncated, {c} columns": {"estimator": "truncated", "columns": c} for c in (4, 8, 16, 32)},
    "sketch": {"estimator": "sketch"},
    "sketch, 8 draws": {"estimator": "sketch", "draws": 8},
    "mc": {"estimator": "mc"},
    "mc, 8 draws": {"estimator": "mc", "draws": 8},
}
CHEAP = (TRUNCATED, "sketch", "mc")
EPOCHS = (5, 20)


def contenders(classes: int, n: int, names: Sequence[str]) -> dict[str, Run | Missing]:
    """The unit and the named estimators for one number of classes, on n images."""
    images = nets.images(n)
    batches = nets.Batches(images.x, images.y, 128)
    net = nets.paper_conv(classes)
    found: dict[str, Run | Missing] = {UNIT: partial(nets.forward_backward, net, batches)}
    for name in names:
        found[name] = partial(nets.decomposed, net, batches, **ESTIMATORS[name])
    return found


def measure_together(
    runs: Mapping[int, Mapping[str, Run | Missing]], reps: int, n_threads: int
) -> dict[int, Seconds]:
    """Interleave the contenders of all numbers of classes; their seconds by number of classes.

    The process is warm by then.
    """
    flat = {f"{k}|{name}": run for k, group in runs.items() for name, run in group.items()}
    seconds = harness.measure(flat, reps, n_threads, warmup=0)
    return {k: {name: seconds[f"{k}|{name}"] for name in group} for k, group in runs.items()}


def costs(report: Report, reps: int, n_threads: int) -> None:
    """Add the tables and goals of the cost."""
    exact = harness.measure(contenders(100, 64, [EXACT, TRUNCATED]), reps)
    runs = {k: contenders(k, 256, [EXACT, *CHEAP] if k == 10 else CHEAP) for k in CLASSES}
    one = measure_together(runs, reps, 1)
    two: dict[int, Seconds] = {}
    if n_threads == 2:
        two = measure_together({k: runs[k] for k in (10, 1000)}, reps, 2)
    for name in CHEAP:
        report.goal(f"{name}: 1000 classes / 10 classes", ratio(one[1000][name], one[10][name]), 3)
    for k in CLASSES:
        report.timings(f"{k} classes, 256 images", UNIT, one[k], two.get(k, {}))
    report.timings("100 classes, 64 images", UNIT, exact, {})


def two_digit_numbers(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 1, 16, 32] of two of UCI's digits side by side, and their number 0..99, [n]."""
    images = nets.images(1500, 16)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randint(1500, (n,), generator=generator) for _ in range(2))
    return torch.cat([images.x[left], images.x[right]], -1), 10 * images.y[left] + images.y[right]


def numbers_net(classes: int = 100) -> nn.Sequential:
    """A small strided CNN with a head that sees positions."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 2 * 4, classes)),
        )


def error_rows(seeds: Sequence[int]) -> list[list[Cell]]:
    """Errors of every estimator at two moments of a training run on 100 classes."""
    batches = nets.Batches(*two_digit_numbers(2000), 100)
    net = numbers_net()
    estimators = {name: found for name, found in ESTIMATORS.items() if name != EXACT}
    rows: list[list[Cell]] = []
    done = 0
    for epochs in EPOCHS:
        nets.train(net, batches, epochs - done, lr=3e-3)
        done = epochs
        rows += accuracy.moment(net, batches, f"{done} epochs", estimators, seeds)
    return rows


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seeds={"type": int, "default": 3, "help": "seeds of errors"})
    report = Report.described("many_classes", __doc__)
    costs(report, options.reps, options.threads)
    rows = error_rows(range(options.seeds))
    report.table(f"Error at 100 classes, {options.seeds} seeds", accuracy.COLUMNS, rows)
    report.write(options.out)


if __name__ == "__main__":
    main()
