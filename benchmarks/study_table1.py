"""Claim: one network learns both tasks, with and without the symmetry (the paper's Table 1).

Images sit in one of four quadrants of an empty canvas. *digit* asks for their class, which shifts
do not change; *quadrant* asks for the class and the quadrant, which no strictly shift-equivariant
network with an invariant head can tell. FC, CONV and F-FC+CONV are trained with fixed precisions
(MAP) and with those that evidence learns; F-FC+CONV by evidence is the learned model.

Stored results: 3,000 training images and all 10,000 test images of MNIST and of Fashion-MNIST, 8x8
(of MNIST the middle 20x20) on a canvas of 16x16, the demo's network of four layers and width 8,
30 epochs of batches of 64, default options otherwise. ``--n 60000 --epochs 8 --step 0.003`` takes
all training images, in twenty minutes for a seed of MNIST; with the default steps of 8e-3
convolutions died on *quadrant* there, and the steps were made smaller after that was seen.
The paper: all of MNIST, digits of 16x16 on 32x32, a network of ten layers with alpha = 10, 1000
epochs. ``--full`` runs that, and the same on Fashion-MNIST.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

import symlearn
from benchmarks.support import tables
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bars
from benchmarks.support.study import Row, Study, pick, spread
from benchmarks.support.tables import Claim, Scale
from symlearn import Circular, demo
from symlearn.datasets import shrink
from symlearn.models import paper_cnn, small_cnn

SMALL = Scale(n=3_000, epochs=30, width=8)
FULL = Scale(n=0, epochs=1000, width=10, published=True)
MODELS = {"fc": "FC", "conv": "CONV", "ffc+conv": "F-FC+CONV"}
SOURCES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
LEARNED = ("ffc+conv", "evidence")
GOAL = -0.5  # points of accuracy against the better of FC and CONV


def run(source: str, task: str, model: str, objective: str, seed: int, *, scale: Scale) -> Row:
    """One fit."""
    crop = 20 if source == "mnist" and not scale.published else 28
    size = 16 if scale.published else 8
    train, test = (shrink(part, crop, size) for part in tables.load(source, scale, seed))
    train, test = demo.make_task(task, train, test, seed)
    if scale.published:
        boundary = Circular("polyphase")
        net = paper_cnn(
            model, scale.width, 1, train.classes, 2 * size, boundary=boundary, seed=seed
        )
    else:
        net = symlearn.wrap(
            small_cnn(train.classes, width=scale.width, seed=seed),
            train.x[:2],
            paths=tuple(reversed(model.split("+"))),
            boundary="circular",
            init="fresh" if model == "fc" else "keep",
            seed=seed,
        )
    return tables.fitted(net, (train, test), scale, objective, seed)


def report(rows: list[Row]) -> Iterable[str]:
    """The claims, the paper's table for each data set, and what was learned."""
    yield tables.conditions(rows)
    yield tables.claims_table(list(claims(rows)))
    for source, title in SOURCES.items():
        if not pick(rows, source=source):
            continue
        yield f"## {title}"
        yield "Test accuracy in percent, mean ± standard deviation over seeds (paper, Table 1)."
        columns = ["task", *(f"{o}, {MODELS[m]}" for o in tables.OBJECTIVES for m in MODELS)]
        cells: list[list[Cell]] = []
        for task in demo.TASKS:
            cells.append([task])
            for objective in tables.OBJECTIVES:
                for model in MODELS:
                    what = {"source": source, "task": task, "model": model, "objective": objective}
                    found = pick(rows, **what)
                    cells[-1].append(spread((100 * row["accuracy"] for row in found), 2))
        yield markdown_table(columns, cells)
        yield markdown_table(
            ["run", "accuracy", "NLL", "log evidence / N", "parameters", "CPU s", "verdicts"],
            [_line(row) for row in pick(rows, source=source)],
        )


def _line(row: Row) -> list[Cell]:
    model = f"{row['task']}, {row['objective']} {MODELS[row['model']]}, seed {row['seed']}"
    figures = [row[key] for key in ("accuracy", "nll", "log_evidence_per_sample")]
    shown = ", ".join(verdicts(row))
    return [model, *figures, row["n_params"], row["cpu_seconds"], shown]


def verdicts(row: Row) -> list[str]:
    """Verdicts of the layers that have the row's paths."""
    paths = set(row["model"].split("+"))
    return [layer["verdict"] for layer in row["layers"] if set(layer["paths"]) == paths]


def claims(rows: list[Row]) -> Iterator[Claim]:
    """What the paper's table says, for each data set and task that has the rows."""
    for source, title in SOURCES.items():
        for task in demo.TASKS:
            mine = pick(rows, source=source, task=task)
            groups = {
                (model, objective): found
                for model in MODELS
                for objective in tables.OBJECTIVES
                if (found := pick(mine, model=model, objective=objective))
            }
            learned = groups.pop(LEARNED, [])
            strict = {key: found for key, found in groups.items() if key[0] != "ffc+conv"}
            if learned and len(strict) == 4:
                yield _within(f"{title}, {task}", learned, strict)
                yield _verdict(f"{title}, {task}", task, learned)


def _within(title: str, learned: list[Row], strict: dict[tuple[str, str], list[Row]]) -> Claim:
    key = max(strict, key=lambda key: fmean(row["accuracy"] for row in strict[key]))
    mean, text = tables.difference(learned, strict[key])
    what = f"{title}: learned at least within half a point of the better of FC and CONV"
    return Claim(what, f"{text} against {key[1]} {MODELS[key[0]]}", mean >= GOAL)


def _verdict(title: str, task: str, learned: list[Row]) -> Claim:
    free = [any("ffc" in verdict for verdict in verdicts(row)) for row in learned]
    strict = [set(verdicts(row)) == {"conv"} for row in learned]
    right = strict if task == "digit" else free
    what = "every layer a convolution" if task == "digit" else "a free path in some layer"
    return Claim(f"{title}: {what}", f"{sum(right)} of {len(right)} seeds", all(right))


def picture(rows: list[Row], file: Path) -> None:
    """Accuracies of all models."""
    from matplotlib.figure import Figure

    there = [source for source in SOURCES if pick(rows, source=source)]
    fig = Figure(figsize=(9, 2.8 * len(there) + 0.4), layout="constrained")
    panels = fig.subplots(len(there), 2, sharey=True, squeeze=False)
    for line, source in zip(panels, there, strict=True):
        for ax, objective in zip(line, tables.OBJECTIVES, strict=True):
            mine = pick(rows, source=source, objective=objective)
            series = {
                label: [
                    [100 * row["accuracy"] for row in pick(mine, task=task, model=model)]
                    for task in demo.TASKS
                ]
                for model, label in MODELS.items()
            }
            bars(ax, list(demo.TASKS), series)
            ax.set(title=f"{SOURCES[source]}, {objective}", ylim=(0, 100))
        line[0].set_ylabel("test accuracy, %")
    fig.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    fig.savefig(file, dpi=130)


def main() -> None:
    """Run what is missing and write the page."""
    given, scale, name = tables.command("table1", __doc__, SMALL, FULL)
    study = Study(name, __doc__, report, picture)
    for seed in given.seeds:
        for source in SOURCES:
            for task in demo.TASKS:
                for objective in tables.OBJECTIVES:
                    for model in MODELS:
                        study.add(
                            partial(run, scale=scale),
                            **{"source": source, "task": task, "model": model},
                            **{"objective": objective, "seed": seed},
                        )
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
