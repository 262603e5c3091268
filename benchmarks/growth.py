"""Claim: no part of an evidence step grows faster than its arithmetic.

A CNN of 3x3 convolutions with circular padding and a pooled head, with equally many channels and
sites everywhere, whose layers have a CONV and an F-FC path. One quantity at a time is varied around
256 samples, 16 channels, 8x8 sites, 2 layers and 10 classes. CPU time on one thread; the values of
one quantity are measured side by side. An exponent is the slope of a straight line through the
logarithms of time over quantity; where the quantity is small much of the time is overhead, so the
exponent between the last two values stands beside it in brackets. A pass sends nothing back through
the first layer, so that one layer costs less than half of two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

import curvature
import priors
import symlearn
from benchmarks.support import harness, nets
from benchmarks.support.exponents import exponent
from benchmarks.support.harness import Cell, Report, Run, measure, present
from benchmarks.support.hyper import Problem
from benchmarks.support.phases import eigendecompose


@dataclass(frozen=True)
class Setting:
    """One network and its data.

    Attributes:
        samples: Samples N.
        channels: Channels of every layer.
        sites: Sites of every map, a square number.
        layers: Relaxed layers.
        classes: Classes K.
    """

    samples: int = 256
    channels: int = 16
    sites: int = 64
    layers: int = 2
    classes: int = 10

    def net(self) -> nn.Module:
        """The relaxed network, with fresh weights in all paths."""
        size = round(self.sites**0.5)
        c = self.channels
        parts: list[nn.Module] = []
        with torch.random.fork_rng(devices=()):
            for _ in range(self.layers):
                parts += [nn.Conv2d(c, c, 3, padding=1, padding_mode="circular"), nn.ReLU()]
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, self.classes)]
        plain = nn.Sequential(*parts)
        return symlearn.wrap(plain, torch.zeros(1, c, size, size), init="fresh")

    def batches(self) -> nets.Batches:
        """Random images and labels."""
        generator = torch.Generator().manual_seed(0)
        size = round(self.sites**0.5)
        x = torch.randn(self.samples, self.channels, size, size, generator=generator)
        y = torch.randint(self.classes, (self.samples,), generator=generator)
        return nets.Batches(x, y, 128)


AXES: dict[str, Sequence[int]] = {
    "samples": (128, 256, 512),
    "channels": (8, 16, 32),
    "sites": (16, 64, 256),
    "layers": (1, 2, 4),
    "classes": (5, 10, 20),
}
GOALS = {"samples": 1.1, "layers": 1.2, "classes": 1.1}
PASS = "exact pass"
PHASES = (PASS, "sketch pass", "eigendecomposition", "update")
Times = Mapping[int, Mapping[str, float]]
"""Seconds by value of a quantity and by phase."""


def phases(setting: Setting) -> dict[str, Run]:
    """The parts of an evidence step by name."""
    net, batches = setting.net(), setting.batches()
    problem = Problem.of(net, batches)

    def update() -> None:
        prior = priors.PathPrior(problem.groups)
        prior.update(problem.found, problem.params, problem.gradients)

    runs: list[Run] = [
        partial(curvature.kronecker, net, batches),
        partial(curvature.kronecker, net, batches, estimator="sketch"),
        partial(eigendecompose, problem.found),
        update,
    ]
    return dict(zip(PHASES, runs, strict=True))


def times(axis: str, reps: int) -> Times:
    """Seconds of all phases at all values of one quantity."""
    runs = {
        f"{phase} {value}": run
        for value in AXES[axis]
        for phase, run in phases(replace(Setting(), **{axis: value})).items()
    }
    seconds = present(measure(runs, reps))
    return {v: {phase: seconds[f"{phase} {v}"] for phase in PHASES} for v in AXES[axis]}


def fitted(times: Times, phase: str, last: int = 0) -> float:
    """Exponent of a phase's time, over all values or the last few."""
    sizes = list(times)[-last:]
    return exponent(sizes, [times[size][phase] for size in sizes])


def add_tables(report: Report, found: Mapping[str, Times]) -> None:
    """A table of exponents and one of all times."""
    exponents: list[Sequence[Cell]] = []
    milliseconds: list[Sequence[Cell]] = []
    for axis, by_value in found.items():
        both = [f"{fitted(by_value, p):.2f} ({fitted(by_value, p, 2):.2f})" for p in PHASES]
        exponents.append([f"{axis}, {min(by_value)} to {max(by_value)}", *both])
        for value, seconds in by_value.items():
            milliseconds.append([f"{axis} = {value}", *(1000 * seconds[p] for p in PHASES)])
    report.table("Growth exponents", ["in", *PHASES], exponents)
    report.table("Milliseconds", ["", *PHASES], milliseconds)


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__)
    report = Report("growth", "Growth of an evidence step's parts", __doc__ or "")
    found = {axis: times(axis, options.reps) for axis in AXES}
    for axis, most in GOALS.items():
        report.goal(f"{PASS}, exponent in {axis}", fitted(found[axis], PASS), most)
    add_tables(report, found)
    report.write(options.out)


if __name__ == "__main__":
    main()
