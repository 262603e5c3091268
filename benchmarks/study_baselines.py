"""Claim: evidence chooses paths without validation data; here beside six other ways, equal compute.

Both tasks of `symlearn demo` on UCI digits (1,400 training images), the same network with the paths
``conv`` and ``ffc``. Every other method has as many epochs as its weight steps can make in the
seconds of the evidence fit, those of a grid divided among its points. Methods with validation data
take a fifth of the training images for it. A verdict is right if every layer is strict on *digit*
and some layer has a free path on *quadrant*; it is read from shares of the output for all methods,
and from the report's own rule for evidence as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.study import Row, Study, options, spread
from symlearn import FitConfig, baselines, demo
from symlearn.baselines import BaselineResult
from symlearn.datasets import ImageSet
from symlearn.models import small_cnn

CONFIG = FitConfig(progress=False)
VALIDATION = 0.2


def network(train: ImageSet, seed: int) -> nn.Module:
    """The demo's network, relaxed."""
    cnn = small_cnn(train.classes, seed=seed)
    return symlearn.wrap(cnn, train.x[:2], boundary="circular", seed=seed)


def evidence(train: ImageSet, config: FitConfig) -> BaselineResult:
    """The evidence fit, in the form of the others."""
    began = time.perf_counter()
    result = symlearn.fit(network(train, config.seed), train.pair, config)
    return BaselineResult("evidence", result, time.perf_counter() - began)


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


def epochs_in(seconds: float, train: ImageSet, seed: int) -> int:
    """Epochs of plain weight steps that take so many seconds; at least those of the config."""
    began = time.perf_counter()
    baselines.mixture(network(train, seed), train.pair, replace(CONFIG, epochs=4, seed=seed))
    return max(CONFIG.epochs, round(seconds / (time.perf_counter() - began) * 4))


def run(task: str, method: str, seed: int, seconds: float | None) -> Row:
    """One fit, at the compute of an evidence fit, whose seconds are given for the others."""
    train, test = demo.make_task(task, *demo.load("digits", seed), seed)
    config = replace(CONFIG, seed=seed)
    if method != "evidence":
        if seconds is None:
            raise ValueError(f"run the evidence fit of {task}, seed {seed}, first")
        config = replace(config, epochs=epochs_in(seconds, train, seed))
    found = METHODS[method](train, config)
    report = found.result.report
    score = found.result.score(test.pair)
    if method == "augerino":
        score = averaged(found, test, seed)
    return {
        **score,
        "seconds": found.seconds,
        "epochs": config.epochs,
        "fits": found.fits,
        "validation": found.n_validation,
        "chosen": dict(found.chosen),
        "by output": found.verdicts,
        "by rule": {layer.name: layer.verdict for layer in report},
        "right": right(task, found.verdicts.values()),
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
    """One table a task: means and spread over seeds."""
    for task in demo.TASKS:
        cells: list[list[Cell]] = []
        for method in METHODS:
            mine = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            if not mine:
                continue
            counts = f"{sum(row['right'] for row in mine)} of {len(mine)}"
            if method == "evidence":
                counts += f" (by rule {sum(row['right by rule'] for row in mine)})"
            line: list[Cell] = [method, spread(row["accuracy"] for row in mine)]
            line += [spread(row["nll"] for row in mine), counts]
            line += [spread((row["seconds"] for row in mine), 0), mine[0]["validation"]]
            cells.append(line)
        if cells:
            yield f"## {task}"
            columns = ["method", "accuracy", "NLL", "right verdicts", "seconds", "validation"]
            yield markdown_table(columns, cells)


def main() -> None:
    """Run what is missing and write the tables."""
    given = options(__doc__)
    study = Study("baselines", __doc__, tables)

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
