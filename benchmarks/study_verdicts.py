"""Claim: from scratch, with one set of defaults, the verdict follows the task, for every seed.

The same pictures, network and code; only the labels differ. Defaults were chosen on one half of
MNIST-5k; this study reports on UCI digits and on the other half. Rows:

* learned, from scratch, strictly shift-equivariant (``boundary="circular"``), both tasks;
* MAP-CONV and MAP-FC on both tasks (the baselines);
* continued: a run on *digit* labels whose weights and precisions go on with *quadrant* labels;
* pretrained: a plain CNN with circular padding, trained by MAP, then wrapped keeping its function.

Stored: the first for all seeds; of the others, those that the tables show. Some runs:
``--only "digits_learned"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, pick, spread
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet, mnist5k, shrink
from symlearn.models import small_cnn

SOURCES = {"digits": "UCI digits", "mnist5k": "half of MNIST-5k"}
CONFIG = FitConfig(progress=False)
KEYS = ("accuracy", "nll", "log_evidence_per_sample", "seconds")


def load(source: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test digits: UCI, or the half of MNIST-5k that no default was chosen on."""
    if source == "digits":
        return demo.load("digits", seed)
    _, untouched = shrink(mnist5k(), 20, 8).split(2500, 2500, seed=7)
    train, test = untouched.split(2000, 500, seed=seed)
    return train, test


def figures(result: symlearn.FitResult, test: ImageSet) -> Row:
    """Figures of one fit."""
    report = result.report
    return {
        **result.score(test.pair),
        "log_evidence_per_sample": report.log_evidence / report.n_data,
        "seconds": report.meta["seconds"],
        "verdicts": [layer.verdict for layer in report],
        "relative_ffc": [
            round(layer.paths["ffc"].relative_effective_params, 3) if "ffc" in layer.paths else None
            for layer in report
        ],
        "without": {k: v for k, v in report.meta.items() if k.startswith("without")},
        "subsampling": symlearn.Circular().phase,  # the default that circular rows use
    }


def baseline(name: str, task: str) -> Callable[[str, int], Row]:
    """A row of the demo's table."""

    def run(source: str, seed: int) -> Row:
        train, test = demo.make_task(task, *load(source, seed), seed)
        return figures(demo.run(name, train, test, CONFIG, seed).result, test)

    return run


def continued(source: str, seed: int) -> Row:
    """Digit labels first, then quadrant labels from the learned weights and precisions."""
    train, _ = demo.make_task("digit", *load(source, seed), seed)
    cnn = small_cnn(40, seed=seed)
    relaxed = symlearn.wrap(cnn, train.x[:2], boundary="circular", seed=seed)
    first = symlearn.fit(relaxed, train.pair, replace(CONFIG, seed=seed))
    train, test = demo.make_task("quadrant", *load(source, seed), seed)
    second = symlearn.fit(first.model, train.pair, replace(CONFIG, seed=seed), resume=first)
    return {**figures(second, test), "verdicts_before": [layer.verdict for layer in first.report]}


def wrapped(task: str, pretrained: bool) -> Callable[[str, int], Row]:
    """A plain circular CNN, wrapped keeping its function: pretrained by MAP, or not."""

    def run(source: str, seed: int) -> Row:
        train, test = demo.make_task(task, *load(source, seed), seed)
        cnn: nn.Module = small_cnn(train.classes, padding_mode="circular", seed=seed)
        config = replace(CONFIG, seed=seed)
        if pretrained:
            alone = symlearn.wrap(cnn, train.x[:2], paths="conv")
            mapped = symlearn.fit(alone, train.pair, replace(config, objective="map"))
            cnn = mapped.collapse()
        result = symlearn.fit(symlearn.wrap(cnn, train.x[:2]), train.pair, config)
        return figures(result, test)

    return run


ROWS: dict[str, Callable[[str, int], Row]] = {
    **{f"{name} {task}": baseline(name, task) for task in demo.TASKS for name in demo.MODELS},
    "continued digit to quadrant": continued,
    **{f"plain wrapped {task}": wrapped(task, pretrained=False) for task in demo.TASKS},
    **{f"pretrained wrapped {task}": wrapped(task, pretrained=True) for task in demo.TASKS},
}


def tables(rows: list[Row]) -> Iterable[str]:
    """Means over seeds and all runs, a table each for each source."""
    heads = ["accuracy", "NLL", "log evidence / N", "s", "verdicts"]
    for source, title in SOURCES.items():
        mine = pick(rows, source=source)
        yield f"## {title}"
        names = dict.fromkeys(row["row"] for row in mine)
        yield markdown_table(["row", "seeds", *heads[:-1]], [_mean(mine, name) for name in names])
        runs: list[list[Cell]] = [
            [f"{row['row']}, seed {row['seed']}", *(row[key] for key in KEYS), _verdicts(row)]
            for row in mine
        ]
        yield f"All runs of {title}:"
        yield markdown_table(["run", *heads], runs)


def _mean(rows: list[Row], name: str) -> list[Cell]:
    mine = pick(rows, row=name)
    return [name, len(mine), *(spread(row[key] for row in mine) for key in KEYS)]


def _verdicts(row: Row) -> str:
    return ", ".join(row["verdicts"])


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__, seeds=5)
    panels = {"accuracy": "test accuracy", "nll": "test NLL, nats"}
    picture = bar_picture(lambda row: row["row"], lambda row: SOURCES[row["source"]], panels)
    study = Study("verdicts", __doc__, tables, picture)

    def run(source: str, row: str, seed: int) -> Row:
        return ROWS[row](source, seed)

    for seed in given.seeds:
        for source in SOURCES:
            for name in ROWS:
                study.add(run, source=source, row=name, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
