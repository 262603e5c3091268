"""Claim: evidence chooses paths without validation data; here beside six other ways, equal compute.

Both tasks of `symlearn demo` on UCI digits (1,400 training images), the same network with the paths
``conv`` and ``ffc``, so that all have the same parameters. Every other method has as many epochs as
it can make in the CPU seconds of the evidence fit, whose report is counted as well; a grid divides
them among its points. Methods with validation data take a fifth of the training images for it.

A verdict is right if every layer is strict on *digit*, and some layer has a free path on
*quadrant*. It is read from shares of the output for all methods, and for evidence from the report's
own rule as well. ``augerino`` says nothing of layers: its verdict is the learned range of shifts,
which on *quadrant* may not reach a quarter of the canvas, where a digit would change its quadrant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import fmean

from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, spread
from symlearn import FitConfig, baselines, demo
from symlearn.baselines import BaselineResult
from symlearn.datasets import ImageSet
from symlearn.models import small_cnn

CONFIG = FitConfig(progress=False)
VALIDATION = 0.2
TRIAL = 12  # epochs of the run that times a method; a multiple of the points of both grids
QUARTER = 0.25  # a digit in the middle of its quadrant leaves it by a longer shift


def network(train: ImageSet, seed: int) -> nn.Module:
    """The demo's network, relaxed."""
    cnn = small_cnn(train.classes, seed=seed)
    return symlearn.wrap(cnn, train.x[:2], boundary="circular", seed=seed)


def evidence(train: ImageSet, config: FitConfig) -> BaselineResult:
    """The evidence fit, in the form of the others."""
    began = time.process_time()
    result = symlearn.fit(network(train, config.seed), train.pair, config)
    return BaselineResult("evidence", result, time.process_time() - began)


def grid(train: ImageSet, config: FitConfig) -> BaselineResult:
    """Fixed variances, chosen on validation data."""
    rest, kept = train.split(1 - VALIDATION, VALIDATION, seed=config.seed)
    return baselines.prior_grid(network(train, config.seed), rest.pair, kept.pair, config)


def lasso(penalty: str) -> Callable[[ImageSet, FitConfig], BaselineResult]:
    """A sparsity penalty, its strength chosen on validation data."""

    def run(train: ImageSet, config: FitConfig) -> BaselineResult:
        rest, kept = train.split(1 - VALIDATION, VALIDATION, seed=config.seed)
        net = network(train, config.seed)
        return baselines.sparse_paths(net, rest.pair, kept.pair, config, penalty=penalty)

    return run


METHODS: dict[str, Callable[[ImageSet, FitConfig], BaselineResult]] = {
    "evidence": evidence,
    "mixture": lambda train, c: baselines.mixture(network(train, c.seed), train.pair, c),
    "prior grid": grid,
    "gates": lambda train, c: baselines.gates(network(train, c.seed), train.pair, c),
    "group lasso": lasso("group"),
    "L1": lasso("l1"),
    "augerino": lambda train, c: baselines.augerino(network(train, c.seed), train.pair, c),
}


def right(task: str, verdicts: Iterable[str]) -> bool:
    """Whether the layers' verdicts are those the task asks for."""
    found = list(verdicts)
    if task == "digit":
        return all(verdict == "conv" for verdict in found)
    return any("ffc" in verdict for verdict in found) and "undecided" not in found


def epochs_in(method: str, seconds: float, train: ImageSet, seed: int) -> int:
    """Epochs that a method makes in so many CPU seconds; at least those of the config."""
    trial = METHODS[method](train, replace(CONFIG, epochs=TRIAL, seed=seed))
    return max(CONFIG.epochs, round(seconds / trial.seconds * TRIAL))


def run(task: str, method: str, seed: int, seconds: float | None) -> Row:
    """One fit, at the compute of an evidence fit, whose CPU seconds are given for the others."""
    train, test = demo.make_task(task, *demo.load("digits", seed), seed)
    config = replace(CONFIG, seed=seed)
    if method != "evidence":
        if seconds is None:
            raise ValueError(f"run the evidence fit of {task}, seed {seed}, first")
        config = replace(config, epochs=epochs_in(method, seconds, train, seed))
    found = METHODS[method](train, config)
    report = found.result.report
    score, is_right = found.result.score(test.pair), right(task, found.verdicts.values())
    if method == "augerino":
        score = averaged(found, test, seed)
        is_right = (found.chosen["shift"] > QUARTER) == (task == "digit")
    return {
        **score,
        "seconds": found.seconds,
        "epochs": config.epochs,
        "fits": found.fits,
        "validation": found.n_validation,
        "chosen": dict(found.chosen),
        "by output": found.verdicts,
        "by rule": {layer.name: layer.verdict for layer in report},
        "right": is_right,
        "right by rule": right(task, (layer.verdict for layer in report)),
    }


def averaged(found: BaselineResult, test: ImageSet, seed: int) -> dict[str, float]:
    """Test figures of predictions averaged over the learned ranges."""
    pose = baselines.RandomPose(found.chosen["shift"], found.chosen["turn"], seed=seed)
    p = baselines.averaged_proba(found.result, pose, test.x)
    of_label = p[range(len(test.y)), test.y].clamp(min=1e-12)
    return {
        "nll": float(-of_label.log().mean()),
        "accuracy": float((p.argmax(1) == test.y).float().mean()),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """What the rows say, then one table a task: means and spread over seeds."""
    yield "\n".join(summary(rows))
    for task in demo.TASKS:
        found = _by_method(rows, task)
        yield f"## {task}"
        columns = ["method", "accuracy", "NLL", "right verdicts", "CPU s", "epochs", "fits"]
        yield markdown_table(
            [*columns, "validation images"],
            [_cells(method, mine) for method, mine in found.items()],
        )


def _cells(method: str, mine: list[Row]) -> list[Cell]:
    counts = f"{sum(row['right'] for row in mine)} of {len(mine)}"
    if method == "evidence":
        counts += f" (by rule {sum(row['right by rule'] for row in mine)})"
    line: list[Cell] = [method, spread(row["accuracy"] for row in mine)]
    line += [spread(row["nll"] for row in mine), counts]
    line += [spread((row[key] for row in mine), 0) for key in ("seconds", "epochs")]
    return [*line, mine[0]["fits"], mine[0]["validation"]]


def summary(rows: list[Row]) -> Iterable[str]:
    """Where evidence stands among the methods, on the seeds that all of them have."""
    seeds = [row["seed"] for row in rows]
    whole = {seed for seed in seeds if seeds.count(seed) == len(demo.TASKS) * len(METHODS)}
    rows = [row for row in rows if row["seed"] in whole]
    if not rows:
        return
    for task in demo.TASKS:
        found = _by_method(rows, task)
        for key, what, sign in (("accuracy", "Accuracy", -1), ("nll", "NLL", 1)):
            means = {method: fmean(row[key] for row in mine) for method, mine in found.items()}
            order = sorted(means, key=lambda method: sign * means[method])
            ahead = [f"{name} ({means[name]:.3f})" for name in order[: order.index("evidence")]]
            yield (
                f"* {what} on *{task}*, mean of {len(whole)} seeds: evidence "
                f"{means['evidence']:.3f}; better: {', '.join(ahead) or 'none'}."
            )
    counts = [
        f"{method} {sum(row['right'] for row in rows if row['method'] == method)}"
        for method in METHODS
    ]
    total = len(whole) * len(demo.TASKS)
    yield f"* Right verdicts on both tasks together, of {total}: {', '.join(counts)}."


def _by_method(rows: list[Row], task: str) -> dict[str, list[Row]]:
    """The rows of a task by method, methods without one left out."""
    found = {
        method: [row for row in rows if (row["task"], row["method"]) == (task, method)]
        for method in METHODS
    }
    return {method: mine for method, mine in found.items() if mine}


def main() -> None:
    """Run what is missing and write the tables."""
    given = options(__doc__)
    panels = {"accuracy": "test accuracy", "nll": "test NLL, nats"}
    picture = bar_picture(lambda row: row["method"], lambda row: row["task"], panels)
    study = Study("baselines", __doc__, tables, picture)

    def go(task: str, method: str, seed: int) -> Row:
        spent = {
            (row["task"], row["seed"]): row["seconds"]
            for row in study.rows(given.out)
            if row["method"] == "evidence"
        }
        return run(task, method, seed, spent.get((task, seed)))

    for seed in given.seeds:
        for task in demo.TASKS:
            for method in METHODS:
                study.add(go, task=task, method=method, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
