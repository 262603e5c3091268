"""Claim: one block per channel makes F-FC's eigendecomposition up to C^2 times cheaper.

Kronecker factors and their eigendecomposition for one F-FC layer of C channels on maps of S = size
x size sites, under a frozen linear head with 10 classes; 64 samples, exact curvature, one thread,
the same engine for both: only the construction differs. For the reading maps ours has C blocks of
S x S; the published construction has one matrix of C S x C S, which holds the same blocks and
zeros. It was left out ("-") where it has more than 2560 rows; the second table says what its
factors would take there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

import curvature
from benchmarks.support import harness
from benchmarks.support.exponents import exponent
from benchmarks.support.harness import Cell, Report, Run, measure, present
from benchmarks.support.phases import eigendecompose
from benchmarks.support.published_ffc import PublishedFFC, ffc_path
from symlearn.paths.ffc import FFC, FFCPath

SAMPLES, CLASSES = 64, 10
CHANNELS, SIZES, LARGE = (5, 10, 20), (8, 12, 16), 32
MOST_ROWS = 2560
OURS, PUBLISHED = "symlearn", "published"
PASS, EIGEN = "pass", "eigendecomposition"
GOAL = 1 / 10
LAYERS: dict[str, Callable[[FFCPath], nn.Module]] = {
    OURS: lambda path: path,
    PUBLISHED: PublishedFFC,
}
Key = tuple[int, int]
Times = Mapping[Key, Mapping[str, float]]
"""Seconds by (C, size) and by contender and phase, joined by a space."""


def runs(name: str, channels: int, size: int) -> dict[str, Run]:
    """The pass over the data, and the eigendecomposition of what it finds."""
    head = nn.Linear(channels * size * size, CLASSES).requires_grad_(False)
    net = nn.Sequential(LAYERS[name](ffc_path(channels, size)), nn.Flatten(), head)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, channels, size, size, generator=generator)
    y = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    find = partial(curvature.kronecker, net, (x, y))
    return {f"{name} {PASS}": find, f"{name} {EIGEN}": partial(eigendecompose, find())}


def times(reps: int) -> Times:
    """Seconds of what fits, for every number of channels and size of map."""
    found = {}
    for c, s in itertools.product(CHANNELS, SIZES):
        names = [name for name in LAYERS if name == OURS or c * s * s <= MOST_ROWS]
        both = {key: run for name in names for key, run in runs(name, c, s).items()}
        found[c, s] = present(measure(both, reps))
    return found


def quotients(found: Times, phase: str) -> dict[Key, float]:
    """Published over ours, where both were measured."""
    return {
        key: seconds[f"{PUBLISHED} {phase}"] / seconds[f"{OURS} {phase}"]
        for key, seconds in found.items()
        if f"{PUBLISHED} {phase}" in seconds
    }


def add_times(report: Report, found: Times) -> None:
    """A table of milliseconds and quotients."""
    rows: list[Sequence[Cell]] = []
    for (c, s), seconds in found.items():
        row: list[Cell] = [f"{c}, {s}x{s}"]
        for phase in (PASS, EIGEN):
            row += [_ms(seconds, f"{name} {phase}") for name in LAYERS]
            row.append(quotients(found, phase).get((c, s), "-"))
        rows.append(row)
    columns = ["C, map"]
    for phase in (PASS, EIGEN):
        columns += [f"{phase}, {name}, ms" for name in LAYERS] + ["ratio"]
    report.table("CPU time on one thread", columns, rows)


def _ms(seconds: Mapping[str, float], key: str) -> Cell:
    return 1000 * seconds[key] if key in seconds else "-"


def add_sizes(report: Report) -> None:
    """A table of what the factors hold, measured or not."""
    rows: list[Sequence[Cell]] = []
    for c, s in itertools.product(CHANNELS, (*SIZES, LARGE)):
        geometry = ffc_path(c, s).geometry
        sites = geometry.in_sites
        ours = FFC().factor_elements(geometry) * 4 / 2**20
        # theta2: C S rows and C' outputs; theta1: C' C rows and S' outputs
        dense = ((c * sites) ** 2 + c**2 + c**4 + sites**2) * 4 / 2**20
        rows.append([f"{c}, {s}x{s}", f"{c} of {sites}", ours, f"1 of {c * sites}", dense])
    columns = ["C, map", "reading blocks, ours", "MiB", "published", "MiB "]
    report.table("Factors in float32: blocks of so many rows, and their memory", columns, rows)


def add_exponents(report: Report, found: Times) -> None:
    """A table of growth exponents along the first row and the first column of the sizes."""
    rows: list[Sequence[Cell]] = []
    for phase, name in itertools.product((PASS, EIGEN), LAYERS):
        key = f"{name} {phase}"
        in_channels = exponent(CHANNELS, [found[c, SIZES[0]][key] for c in CHANNELS])
        in_sites = exponent([s * s for s in SIZES], [found[CHANNELS[0], s][key] for s in SIZES])
        rows.append([f"{phase}, {name}", in_channels, in_sites])
    columns = ["", f"in C, at {SIZES[0]}x{SIZES[0]} sites", f"in S, at C = {CHANNELS[0]}"]
    report.table("Growth exponents", columns, rows)


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__)
    report = Report("ffc_factors", "F-FC's factors, one block per channel", __doc__ or "")
    found = times(options.reps)
    for c in CHANNELS[1:]:
        quotient = {s: q for (k, s), q in quotients(found, EIGEN).items() if k == c}
        size = max(quotient)
        what = f"eigendecomposition, ours / published, C = {c}, {size}x{size}"
        report.goal(what, 1 / quotient[size], GOAL)
    add_times(report, found)
    add_sizes(report)
    add_exponents(report, found)
    report.write(options.out)


if __name__ == "__main__":
    main()
