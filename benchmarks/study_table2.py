"""Claim: evidence makes learnable layers as good as convolutions (the paper's Tables 2 and 4).

One network with each of the paper's layers, by MAP and with precisions learned by evidence. Priors
are on the weights, on the anchor values u, or on the lengthscales omega as well. Table 4 is the
structure report of FC+CONV.

Stored results: 1,000 training images and all 10,000 test images of Fashion-MNIST, the paper's
network of ten layers at alpha = 2, images of 32x32, 30 epochs, steps of 3e-3 and default options
otherwise: by evidence, free paths begin absent beside a convolution and grow if they pay. With the
default steps of 8e-3, S-CONV and networks with all paths of full size died in some seeds; the
steps were changed after such runs. The paper: CIFAR-10, alpha = 10, 4000 epochs with flips and
shifts, all paths from the start. ``--full`` runs that on your copy of CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.support import tables
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bars
from benchmarks.support.study import Row, Study, pick, spread
from benchmarks.support.tables import Claim, Scale
from symlearn import Circular
from symlearn.models import PAPER_KINDS, paper_cnn

SMALL = Scale(n=1_000, epochs=30, width=2, batch=32, step=3e-3)
FULL = Scale(n=0, epochs=4000, width=10, published=True)
MODELS = {
    "fc": ("FC", "theta"),
    "conv": ("CONV", "theta"),
    "fc+conv": ("FC+CONV", "theta"),
    "ffc": ("F-FC", "theta"),
    "ffc+conv": ("F-FC+CONV", "theta"),
    "sfc": ("S-FC", "u"),
    "sconv": ("S-CONV", "u"),
    "sfc+sconv": ("S-FC+S-CONV", "u"),
    "sfc-omega": ("S-FC", "omega"),
    "sconv-omega": ("S-CONV", "omega"),
    "sfc+sconv-omega": ("S-FC+S-CONV", "omega"),
}
# a layer with a choice, and what it is to equal
STRICT = {
    "fc+conv": "conv",
    "ffc+conv": "conv",
    "sfc+sconv": "sconv",
    "sfc+sconv-omega": "sconv-omega",
}
WITHIN = -1.0  # points of accuracy
CHANCE = 0.15  # of ten classes, and a half more
TABLE_4 = "fc+conv"


def run(data: str, model: str, objective: str, seed: int, *, scale: Scale) -> Row:
    """One fit."""
    images = tables.framed(tables.load(data, scale, seed), tables.FRAME)
    train, _ = images
    boundary = Circular("polyphase") if scale.published else "circular"
    size = (train.x.shape[1], train.classes, tables.FRAME)
    net = paper_cnn(model, scale.width, *size, boundary=boundary, seed=seed)
    return tables.fitted(net, images, scale, objective, seed)


def report(rows: list[Row]) -> Iterable[str]:
    """The claims, the paper's two tables, and all runs."""
    yield tables.conditions(rows)
    yield tables.claims_table(list(claims(rows)))
    yield "## Table 2"
    yield "Mean ± standard deviation over seeds."
    columns = ["layer", "choice", "prior on", "parameters", "MAP NLL", "MAP accuracy, %"]
    columns += ["NLL", "accuracy, %", "-log evidence / N"]
    yield markdown_table(columns, [_layer(rows, model) for model in MODELS])
    learned = pick(rows, model=TABLE_4, objective="evidence")
    if learned:
        yield "## Table 4"
        yield f"{MODELS[TABLE_4][0]} by evidence, seed {learned[0]['seed']}."
        yield structure(learned[0], tuple(PAPER_KINDS[TABLE_4]))
    yield "## All runs"
    heads = ["run", "accuracy", "NLL", "log evidence / N", "CPU s", "verdicts"]
    yield markdown_table(heads, [_line(row) for row in rows])


def _layer(rows: list[Row], model: str) -> list[Cell]:
    label, prior = MODELS[model]
    mine = pick(rows, model=model)
    cells: list[Cell] = [label, model in STRICT, prior, mine[0]["n_params"] if mine else "-"]
    for objective in tables.OBJECTIVES:
        found = pick(mine, objective=objective)
        cells.append(spread(row["nll"] for row in found))
        cells.append(spread((100 * row["accuracy"] for row in found), 2))
    learned = pick(mine, objective="evidence")
    return [*cells, spread(-row["log_evidence_per_sample"] for row in learned)]


def structure(row: Row, names: tuple[Any, ...]) -> str:
    """The paper's Table 4 of one run: the layers that have these paths, four figures of each."""
    figures = {
        "precision": "prior_precision",
        "norm²": "weight_norm_sq",
        "gamma / P": "normalised_effective_params",
        "relative": "relative_effective_params",
    }
    columns = [f"{name.upper()} {title}" for title in figures for name in names]
    lines: list[list[Cell]] = [
        [
            layer["name"],
            *(layer["paths"][name][key] for key in figures.values() for name in names),
            layer["verdict"],
        ]
        for layer in row["layers"]
        if set(layer["paths"]) == set(names)
    ]
    return markdown_table(["layer", *columns, "verdict"], lines)


def _line(row: Row) -> list[Cell]:
    run = f"{row['objective']} {row['model']}, seed {row['seed']}"
    figures = [row[key] for key in ("accuracy", "nll", "log_evidence_per_sample", "cpu_seconds")]
    return [run, *figures, ", ".join(layer["verdict"] for layer in row["layers"])]


def claims(rows: list[Row]) -> Iterator[Claim]:
    """What the paper says of its table, where the rows are there."""
    for model, strict in STRICT.items():
        label, prior = MODELS[model]
        pair = [pick(rows, model=name, objective="evidence") for name in (model, strict)]
        if all(pair):
            mean, text = tables.difference(*pair)
            what = f"{label}, prior on {prior}: at least within a point of {MODELS[strict][0]}"
            learned = all(row["accuracy"] > CHANCE for rows_of in pair for row in rows_of)
            text += "" if learned else ", but a network is at chance"
            yield Claim(what, text, learned and mean >= WITHIN)
    nll = {
        model: [
            [row["nll"] for row in pick(rows, model=model, objective=objective)]
            for objective in tables.OBJECTIVES
        ]
        for model in MODELS
    }
    both = {model: [fmean(found) for found in pair] for model, pair in nll.items() if all(pair)}
    if both:
        lower = sum(learned < fixed for fixed, learned in both.values())
        what = "evidence has the lower test NLL than MAP, in every row"
        yield Claim(what, f"{lower} of {len(both)}", lower == len(both))
    accuracy = {
        model: fmean(row["accuracy"] for row in found)
        for model in MODELS
        if (found := pick(rows, model=model, objective="map"))
    }
    if len(accuracy) == len(MODELS):
        top = max(accuracy, key=lambda model: accuracy[model])
        text = f"{MODELS[top][0]} is, {100 * accuracy[top]:.2f} %"
        yield Claim("CONV is the most accurate by MAP", text, top == "conv")


def picture(rows: list[Row], file: Path) -> None:
    """Test NLL and accuracy of all layers."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(10, 6), layout="constrained")
    upper, lower = fig.subplots(2, 1, sharex=True)
    names = [f"{label}\n({prior})" for label, prior in MODELS.values()]
    for ax, key, factor in ((upper, "nll", 1), (lower, "accuracy", 100)):
        series = {
            objective: [
                [factor * row[key] for row in pick(rows, model=model, objective=objective)]
                for model in MODELS
            ]
            for objective in tables.OBJECTIVES
        }
        bars(ax, names, series)
    upper.set_ylabel("test NLL, nats")
    lower.set_ylabel("test accuracy, %")
    lower.tick_params(axis="x", labelsize=8)
    upper.legend()
    fig.savefig(file, dpi=130)


def main() -> None:
    """Run what is missing and write the page."""
    given, scale, name = tables.command("table2", __doc__, SMALL, FULL)
    study = Study(name, __doc__, report, picture)
    data = "cifar10" if given.full else "fashion"
    for seed in given.seeds:
        for objective in tables.OBJECTIVES[::-1]:
            for model in MODELS:
                what = {"data": data, "model": model, "objective": objective, "seed": seed}
                study.add(partial(run, scale=scale), **what)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
