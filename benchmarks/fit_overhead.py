"""Claim: learning the structure costs at most 15 % more than MAP training for as many epochs.

A fit with evidence against the same fit with ``objective="map"``: the demo's two tasks on UCI
digits with default options. Two baselines: MAP of the same relaxed network, which trains all paths
from first to last, and MAP of the strict convolutional network, which has no path to be learned.
The second is the harder one: on the quadrant task it cannot solve the task, and is cheaper for it.
All fits end with the same kind of report. They advance in turn, epoch by epoch, so that a drift of
the machine's speed hits all alike. The parts are seconds of the fits with evidence.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

import curvature
import priors
from benchmarks.support.harness import Cell, Report, options, threads
from benchmarks.support.toy import relaxed
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet
from symlearn.fit import fitting, precisions

# where a function is looked up, its name there, and the part its time belongs to
PARTS: list[tuple[Any, str, str]] = [
    (fitting.Fitting, "__init__", "start"),
    (fitting.Fitting, "finish", "final report"),
    (fitting.Fitting, "_challenge", "challenges"),
    (fitting.Fitting, "grow", "growth tests"),
    (fitting, "train_epoch", "weights"),
    (precisions, "measure", "gradients of all data"),
    (curvature, "kronecker", "curvature pass"),
    (torch.linalg, "eigh", "eigendecomposition"),
    (priors.PathPrior, "update", "precisions"),
    (precisions, "evidence_of", "precisions"),
    (fitting, "layer_structures", "verdicts"),
]
# all that happens inside these is theirs
PHASES = {"start", "final report", "challenges", "growth tests"}
OTHER = "other"
GOAL = 1.15


class Stopwatch:
    """CPU seconds by part: each moment belongs to the outermost phase, or the innermost part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = 0.0

    def switch(self) -> None:
        """Give the time since the last switch to where we have been."""
        now = time.process_time()
        if self._stack:
            phase = next((part for part in self._stack if part in PHASES), self._stack[-1])
            self.seconds[phase] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time inside the block belongs to the part."""
        self.switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self.switch()
            self._stack.pop()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the parts of a fit inside the block; what belongs to none is "other"."""
        with ExitStack() as stack:
            for owner, name, part in PARTS:
                timed = self.timed(getattr(owner, name), part)
                stack.enter_context(patch.object(owner, name, timed))
            stack.enter_context(self.part(OTHER))
            yield

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function, with its time given to the part."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return function(*args, **kwargs)

        return run


class TimedFit:
    """A fit of the demo's network that can be taken forward step by step, on a watch of its own."""

    def __init__(self, train: ImageSet, paths: tuple[str, ...], config: FitConfig) -> None:
        self.watch = Stopwatch()
        model = relaxed(train, config.seed, paths=paths)
        with self.watch.watching():
            self.fit = fitting.Fitting(model, train.pair, config)

    def advance(self) -> None:
        """One epoch, or the epochs of trials."""
        with self.watch.watching():
            self.fit.advance()

    def finish(self) -> float:
        """The report; returns all CPU seconds of the fit."""
        with self.watch.watching():
            self.fit.finish()
        return sum(self.watch.seconds.values())


def main() -> None:
    """Run the fits and write the tables."""
    given = options(
        __doc__,
        epochs={"type": int, "default": FitConfig().epochs},
        seeds={"type": int, "nargs": "+", "default": [0]},
    )
    report = Report(
        "fit_overhead",
        "What a fit with evidence costs beyond MAP training for as many epochs",
        "UCI digits (1400 training images), the demo's network and default options; CPU seconds "
        "on one thread, with the final report, which MAP fits make too.",
    )
    rows: list[list[Cell]] = []
    parts: list[list[Cell]] = []
    with threads(1):
        for task in demo.TASKS:
            for seed in given.seeds:
                name = f"{task}, seed {seed}"
                config = FitConfig(epochs=given.epochs, seed=seed, progress=False)
                train, _ = demo.make_task(task, *demo.load("digits", seed), seed)
                epochs, seconds, spent = compare(train, config)
                same, strict = (seconds[0] / other for other in seconds[1:])
                rows.append([name, epochs, *seconds, same, strict])
                report.goal(f"{name}: ratio to MAP of the same network", same, GOAL)
                report.goal(f"{name}: ratio to MAP of the strict network", strict, GOAL)
                parts += [
                    [f"{name}: {part}", value, value / seconds[0]]
                    for part, value in sorted(spent.items(), key=lambda pair: -pair[1])
                ]
    columns = ["task", "epochs", "evidence, s", "MAP, same paths, s", "MAP, conv only, s"]
    report.table("Seconds", [*columns, "ratio, same paths", "ratio, conv only"], rows)
    report.table("Where the time of the fit with evidence goes", ["part", "s", "share"], parts)
    report.write(given.out)


def compare(train: ImageSet, config: FitConfig) -> tuple[int, list[float], dict[str, float]]:
    """Epochs and seconds of the three fits, and the parts of the one with evidence."""
    mapped = replace(config, objective="map")
    TimedFit(train, ("conv",), mapped).advance()  # what torch imports first is nobody's time
    learned = TimedFit(train, ("conv", "ffc"), config)
    others = [TimedFit(train, paths, mapped) for paths in (("conv", "ffc"), ("conv",))]
    while learned.fit.epoch < learned.fit.total:
        learned.advance()
        for other in others:
            while other.fit.epoch < learned.fit.epoch:
                other.advance()
    seconds = [run.finish() for run in (learned, *others)]
    return learned.fit.epoch, seconds, dict(learned.watch.seconds)


if __name__ == "__main__":
    main()
