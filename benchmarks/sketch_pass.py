"""Claim: a sketched pass costs one backward, and errs less than sampled labels do.

Cost: the paper's CONV net, 10 classes, 512 images, batch 128; every contender ends with the
eigendecomposition of all factors; the unit is one training pass over the same data, the limit one
forward and one backward pass to activations, without factors; on two threads the first 256 images
are used. Error: a small CNN trained on 1,400 of UCI's digits until it is saturated, against the
exact pass, with one precision per layer that maximises the evidence at the weights of the moment;
medians and largest values over seeds, of the largest error over layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from benchmarks.support import accuracy, harness, hooks, nets, peers
from benchmarks.support.harness import Cell, Missing, Report, Run, Seconds, ratio
from symlearn.models import small_cnn

SAMPLED = ("asdl, MC", "curvlinops, MC", "BackPACK, MC")
EMPIRICAL = ("asdl, empirical", "curvlinops, empirical")
UNIT, LIMIT = "training pass", "limit: one bare backward"
ESTIMATORS: dict[str, dict[str, Any]] = {
    "sketch": {"estimator": "sketch"},
    "mc": {"estimator": "mc"},
    "mc, 9 draws": {"estimator": "mc", "draws": 9},
}
EPOCHS = (0, 1, 3, 10)
SATURATED = 1e-3


def contenders(net: nn.Sequential, batches: nets.Batches) -> dict[str, Run | Missing]:
    """All contenders by name, on the same network and data."""
    found: dict[str, Run | Missing] = {
        UNIT: partial(nets.forward_backward, net, batches),
        LIMIT: partial(hooks.bare_pass, net, batches, 1, cheap_padding=True),
    }
    for estimator in ("sketch", "mc", "empirical"):
        found[f"symlearn, {estimator}"] = partial(nets.decomposed, net, batches, estimator)
    for name, fit in peers.fits(net, [*SAMPLED, *EMPIRICAL]).items():
        found[name] = fit if isinstance(fit, Missing) else partial(fit, batches)
    return found


def error_rows(seeds: Sequence[int]) -> list[list[Cell]]:
    """Errors of every estimator along a training run that ends saturated."""
    images = nets.images(1400, 16)
    batches = nets.Batches(images.x, images.y, 140)
    net = small_cnn(10, padding_mode="circular")
    rows: list[list[Cell]] = []
    done = 0
    for epochs in EPOCHS:
        nets.train(net, batches, epochs - done, lr=3e-3)
        done = epochs
        rows += accuracy.moment(net, batches, f"{done} epochs", ESTIMATORS, seeds)
    while nets.loss_of(net, batches) > SATURATED and done < 100:
        nets.train(net, batches, 5, lr=3e-3)
        done += 5
    return rows + accuracy.moment(net, batches, f"{done} epochs", ESTIMATORS, seeds)


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, seeds={"type": int, "default": 5, "help": "seeds of errors"})
    images, net = nets.images(512), nets.paper_conv()
    some, half, whole = (nets.Batches(images.x[:n], images.y[:n], 128) for n in (128, 256, 512))
    harness.measure(contenders(net, some), reps=1)
    one = harness.measure(contenders(net, whole), options.reps, warmup=0)
    two: Seconds = {}
    if options.threads == 2:
        two = harness.measure(contenders(net, half), options.reps, n_threads=2, warmup=0)
    report = Report.described("sketch_pass", __doc__)
    sketch = "symlearn, sketch"
    report.goal("sketched pass, training passes, 1 thread", ratio(one[sketch], one[UNIT]), 1.3)
    if two:
        report.goal("sketched pass, training passes, 2 threads", ratio(two[sketch], two[UNIT]), 1.3)
    report.timings("Time of a pass", UNIT, one, two)
    rows = error_rows(range(options.seeds))
    report.table(f"Error over training, {options.seeds} seeds", accuracy.COLUMNS, rows)
    report.write(options.out)


if __name__ == "__main__":
    main()
