"""Claim: right and stable verdicts in a twentieth of the published schedule's time.

The toy problem on UCI digits, both tasks, CPU time on one thread (which is wall-clock where nothing
else runs). Contenders:

* the default options, run to their end;
* `FitConfig.published()` in the same code base: all paths at full size from the start, a precision
  per tensor, exact curvature, one Adam step on the log precisions every five epochs;
* laplace-torch's `marglik_training` with the same times of its steps, on the same network in plain
  torch layers (circular padding as a module, the factored path as linear layers on expanded
  inputs), where its curvature backend takes that.

A verdict counts from the first evidence step after which all verdicts are right. The published
schedule is given 24 times our time; if it does not get there, that time is reported as a bound: "no
verdict in 90 s". Where the
study of early decisions has run the published schedule to its end, that is a row of its own, and
what the goal is measured against.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.support.harness import RESULTS, Cell, Report, options, peer
from benchmarks.support.harness import Missing as MissingPeer
from benchmarks.support.nets import Batches
from benchmarks.support.published_ffc import PublishedFFC
from benchmarks.support.toy import Steps, fit_for, load, one_thread, relaxed, right_since
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet
from symlearn.paths.ffc import FFCPath
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.report import PathStructure
from symlearn.report.rule import verdict

RATIO = 1 / 20
PEER = "laplace-torch marglik_training"


class OutOfTime(Exception):  # noqa: N818
    """The time allowed is over."""


class PlainLayer(nn.Module):
    """A relaxed layer in plain torch modules: a circular convolution plus the published F-FC."""

    def __init__(self, layer: RelaxedLayer) -> None:
        super().__init__()
        conv, ffc = layer.path("conv"), layer.path("ffc")
        if not isinstance(ffc, FFCPath):
            raise TypeError(f"the path 'ffc' is a {type(ffc).__name__}")
        geometry = conv.geometry
        self.pad = nn.CircularPad2d(1)
        self.conv = nn.Conv2d(
            geometry.in_channels, geometry.out_channels, 3, geometry.stride[0], bias=False
        )
        with torch.no_grad():
            self.conv.weight.copy_(conv.tested())
        self.ffc = PublishedFFC(ffc)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.conv(self.pad(x)) + self.ffc(x)
        return out


def plain(model: nn.Module) -> nn.Sequential:
    """The relaxed network of the demo in plain torch modules, with its weights.

    Its strides are ordinary ones, which for shifts by a quadrant are equivariant too.
    """
    layers = relaxed_layers(model)
    modules: list[nn.Module] = []
    for layer in layers.values():
        modules += [PlainLayer(layer), nn.ReLU()]
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    linear = nn.Linear(head.in_features, head.out_features)
    linear.load_state_dict(head.state_dict())
    return nn.Sequential(*modules, nn.AdaptiveMaxPool2d(1), nn.Flatten(), linear)


class TimedBatches(Batches):
    """Batches that end a run when its time is over."""

    until = float("inf")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, while there is time."""
        for batch in super().__iter__():
            if time.process_time() > self.until:
                raise OutOfTime
            yield batch


def laplace_steps(net: nn.Sequential, train: ImageSet, most_seconds: float) -> Steps:
    """Evidence steps of laplace-torch's `marglik_training`: seconds and verdicts."""
    # the package has a function of the module's name
    peer_module = importlib.import_module("laplace.marglik_training")
    start, steps = time.process_time(), []
    fits: list[Any] = []
    original = peer_module.Laplace

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if fits:  # the precisions of the step before are final now
            steps.append((time.process_time() - start, verdicts_of(net, fits.pop())))
        fits.append(original(*args, **kwargs))
        return fits[-1]

    batches = TimedBatches(train.x, train.y, 128)
    batches.until = start + most_seconds
    try:
        with warnings.catch_warnings(), patch.object(peer_module, "Laplace", remembered):
            warnings.simplefilter("ignore")
            peer_module.marglik_training(
                net,
                batches,
                optimizer_kwargs={"lr": 0.01},
                n_epochs=1000,
                n_epochs_burnin=10,
                marglik_frequency=5,
                n_hypersteps=1,
                lr_hyp=0.1,
            )
    except OutOfTime:
        pass
    return steps


def verdicts_of(net: nn.Sequential, fit: Any) -> dict[str, str]:
    """Verdict by layer of a `Laplace` object with a precision per tensor."""
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    gamma: dict[str, float] = {}
    for name, values, delta in zip(names, fit.H.eigenvalues, fit.prior_precision, strict=True):
        spectrum = values[0] if len(values) == 1 else torch.outer(*values)
        gamma[name] = float((spectrum / (spectrum + delta)).sum())
    found = {}
    for layer in sorted({name.split(".")[0] for name in names if ".conv." in name}):
        paths = {}
        for path in ("conv", "ffc"):
            mine = [name for name in names if name.startswith(f"{layer}.{path}.")]
            size = sum(net.get_parameter(name).numel() for name in mine)
            paths[path] = sum(gamma[name] for name in mine) / size
        total = sum(paths.values())
        found[layer] = verdict({name: _facts(g, g / total) for name, g in paths.items()})
    return found


def _facts(normalised: float, relative: float) -> PathStructure:
    """What the rule of verdicts reads of a path."""
    return PathStructure(1.0, 1.0, 1, normalised, normalised, relative, 0.0, 0.0, on=True)


def published(train: ImageSet, seed: int, most_seconds: float) -> tuple[Steps, float]:
    """Evidence steps and seconds of the published schedule."""
    model = relaxed(train, seed, init="fresh", tie="tensor")
    _, steps, seconds = fit_for(
        model, train, FitConfig.published(seed=seed, progress=False), most_seconds
    )
    return steps, seconds


def by_laplace(train: ImageSet, seed: int, most_seconds: float) -> tuple[Steps | str, float]:
    """Evidence steps of laplace-torch, or why there are none."""
    net = plain(relaxed(train, seed, init="fresh"))
    start = time.process_time()
    run = peer(["laplace", "asdl"], lambda: lambda: laplace_steps(net, train, most_seconds))
    if isinstance(run, MissingPeer):
        return str(run), 0.0
    try:
        steps: Any = run()
    except Exception as error:  # noqa: BLE001  what a peer refuses is a result
        return f"refused: {type(error).__name__}: {str(error).splitlines()[0][:60]}", 0.0
    return steps, time.process_time() - start


def published_to_its_end(task: str, seed: int) -> tuple[float | None, int, float] | None:
    """Seconds to the verdict, evidence steps and all seconds, if the study has made the run."""
    file = RESULTS / "early" / f"{task}_published_{seed}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return found["right_since"], found["evidence_steps"], found["seconds"]


def main() -> None:
    """Run the contenders and write the table."""
    given = options(
        __doc__,
        seed={"type": int, "default": 0},
        allowed={"type": float, "default": 24.0, "help": "time allowed, in units of ours"},
        peer_seconds={"type": float, "default": 10.0, "help": "time allowed to laplace-torch"},
    )
    one_thread()
    report = Report(
        "time_to_verdict",
        "Time to right and stable verdicts on the toy problem",
        "UCI digits (1400 training images), CPU seconds on one thread. Right: on *digit* every "
        "layer is strictly equivariant; on *quadrant* some layer reads positions and some layer is "
        "strict.",
    )
    rows = [row for task in demo.TASKS for row in _contenders(task, given, report)]
    columns = ["task", "contender", "right for good after, s", "evidence steps", "seconds run"]
    report.table("Seconds to the verdict", columns, rows)
    report.write(given.out)


def _contenders(task: str, given: argparse.Namespace, report: Report) -> list[list[Cell]]:
    """Rows of one task, and its ratio in the report."""
    rows: list[list[Cell]] = []
    train, _ = load("digits", task, given.seed)
    _warm_up(train)
    config = FitConfig(seed=given.seed, progress=False)
    _, steps, seconds = fit_for(relaxed(train, given.seed), train, config, math.inf)
    ours = right_since(task, steps)
    rows.append(_row(task, "default", ours, len(steps), seconds))
    allowed = given.allowed * (seconds if ours is None else ours)
    others, most = published(train, given.seed, allowed)
    theirs = right_since(task, others)
    rows.append(_row(task, "published schedule", theirs, len(others), most))
    whole = published_to_its_end(task, given.seed)
    if theirs is None and whole is not None:
        theirs, _, most = whole
        rows.append(_row(task, "published schedule, to its end (study_early)", *whole))
    found, spent = by_laplace(train, given.seed, given.peer_seconds)
    if isinstance(found, str):
        rows.append([task, PEER, found, 0, spent])
    else:
        rows.append(_row(task, PEER, right_since(task, found), len(found), spent))
    bound = "" if theirs is not None else " (a bound: the published one has none)"
    report.goal(
        f"{task}: default / published{bound}",
        (seconds if ours is None else ours) / (most if theirs is None else theirs),
        RATIO,
    )
    return rows


def _warm_up(train: ImageSet) -> None:
    """What torch imports and allocates at the first fit of a process is nobody's time."""
    fit_for(relaxed(train, 0), train, FitConfig(epochs=1, progress=False), math.inf)


def _row(task: str, name: str, since: float | None, steps: int, seconds: float) -> list[Cell]:
    shown: Cell = since if since is not None else f"no verdict in {seconds:.0f} s"
    return [task, name, shown, steps, seconds]


if __name__ == "__main__":
    main()
