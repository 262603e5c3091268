"""Claim: an exact pass costs hardly more than the backward passes it cannot do without.

The paper's CONV net, 10 classes, 512 images, batch 128. Every contender ends with the
eigendecomposition of all factors. The unit is one training pass (forward and backward) over the
same data. The limit is one forward pass and nine backward passes to activations, without factors
(the softmax Hessian has rank nine), with the library's gradient of circular padding. The network is
not trained, so that no column is negligible. On two threads the first 256 images are used.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

import curvature
import priors
from benchmarks.support import harness, hooks, nets, peers
from benchmarks.support.harness import Cell, Missing, Report, Run, Seconds, ratio
from symlearn.datasets import ImageSet

LIBRARIES = ("asdl", "curvlinops", "BackPACK")
UNIT, LIMIT, OURS = "training pass", "limit: 9 bare backwards", "symlearn"
HOOKS = "plain hooks"
PRECISIONS = (0.01, 1.0, 100.0)


def contenders(net: nn.Sequential, batches: nets.Batches) -> dict[str, Run | Missing]:
    """All contenders by name, on the same network and data."""
    found: dict[str, Run | Missing] = {
        UNIT: partial(nets.forward_backward, net, batches),
        LIMIT: partial(hooks.bare_pass, net, batches, 9, cheap_padding=True),
        OURS: partial(nets.decomposed, net, batches, "exact"),
        HOOKS: partial(hooks.exact_factors, net, batches),
    }
    for name, fit in peers.fits(net, LIBRARIES).items():
        found[name] = fit if isinstance(fit, Missing) else partial(fit, batches)
    return found


def log_evidences(net: nn.Module, batches: nets.Batches) -> list[float]:
    """The library's log evidence at each of `PRECISIONS`, in nats."""
    found = curvature.kronecker(net, batches)
    params = dict(net.named_parameters())
    return [
        priors.log_evidence(
            found.log_likelihood, found, params, priors.PathPrior({"all": list(found)}, precision)
        )
        for precision in PRECISIONS
    ]


def log_evidences_of_asdl(net: nn.Module, batches: nets.Batches) -> list[float | Missing]:
    """asdl's, through laplace-torch."""
    fit = peers.fits(net, ["asdl"])["asdl"]
    if isinstance(fit, Missing):
        return [fit] * len(PRECISIONS)
    found = fit(batches)
    return [float(found.log_marginal_likelihood(torch.tensor(p))) for p in PRECISIONS]


def evidence(report: Report, net: nn.Module, images: ImageSet) -> None:
    """Add the table and the goal of the agreement in log evidence."""
    single, double = copy.deepcopy(net), copy.deepcopy(net).double()
    x, y = images.x[:256], images.y[:256]
    x32, x64 = nets.Batches(x, y, 128), nets.Batches(x.double(), y, 128)
    own64, own32 = log_evidences(double, x64), log_evidences(single, x32)
    asdl64, asdl32 = log_evidences_of_asdl(double, x64), log_evidences_of_asdl(single, x32)
    rows: list[list[Cell]] = []
    for i, precision in enumerate(PRECISIONS):
        row: list[Cell] = [f"{precision:g}", own64[i]]
        row += [relative_error(value, own64[i]) for value in (asdl64[i], own32[i], asdl32[i])]
        rows.append(row)
    columns = ["prior precision", "float64, nats", "asdl, float64", "float32", "asdl, float32"]
    report.table(
        "Log evidence of 256 images after three epochs, and relative differences to it",
        columns,
        rows,
    )
    agreement = [relative_error(value, own) for value, own in zip(asdl64, own64, strict=True)]
    report.goal("log evidence, float64, difference to asdl's", largest(agreement), 1e-5)
    rounding = largest(
        [relative_error(value, own) for value, own in zip(own32, own64, strict=True)]
    )
    report.goal("log evidence, float32, difference to float64", rounding, 1e-5)


def relative_error(value: float | Missing, right: float) -> float | Missing:
    """Relative difference of a value."""
    return value if isinstance(value, Missing) else abs(value - right) / abs(right)


def largest(values: Sequence[float | Missing]) -> float | Missing:
    """The largest of the values, or what is missing."""
    missing = [value for value in values if isinstance(value, Missing)]
    return missing[0] if missing else max(v for v in values if not isinstance(v, Missing))


def fastest(seconds: Seconds) -> float | Missing:
    """The shortest time of the libraries that are installed."""
    times = [t for name in LIBRARIES if not isinstance(t := seconds[name], Missing)]
    return min(times) if times else Missing("laplace")


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__)
    images, net = nets.images(512), nets.paper_conv()
    report = Report.described("exact_pass_is_near_the_limit", __doc__)
    some, half, whole = (nets.Batches(images.x[:n], images.y[:n], 128) for n in (128, 256, 512))
    harness.measure(contenders(net, some), reps=1)
    one = harness.measure(contenders(net, whole), options.reps, warmup=0)
    two: Seconds = {}
    if options.threads == 2:
        two = harness.measure(contenders(net, half), options.reps, n_threads=2, warmup=0)
    report.goal("exact pass, training passes, 1 thread", ratio(one[OURS], one[UNIT]), 4.0)
    report.goal("exact pass / fastest library, 1 thread", ratio(one[OURS], fastest(one)), 0.5)
    if two:
        report.goal("exact pass / fastest library, 2 threads", ratio(two[OURS], fastest(two)), 0.5)
    report.timings("Time of a pass", UNIT, one, two)

    nets.train(net, whole, epochs=3)
    evidence(report, net, images)
    report.write(options.out)


if __name__ == "__main__":
    main()
