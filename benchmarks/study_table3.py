"""Claim: rotating the images raises the share of GCONV (the paper's Tables 3 and 7).

Every layer is a sum of F-FC, CONV and GCONV over the quarter turns, each with a prior precision of
its own, and evidence says how much of the layer each is: the relative effective number of
parameters. Beside it, accuracies of networks of one kind of layer on rotated images, by MAP: CONV,
and GCONV with full, separable and pointwise filters (Table 7). GCONV is the pointwise one of the
paper's Table 3 (1.2 M parameters).

Stored results: 4,000 training images and all 10,000 test images, the paper's 32x32 with shifts of
up to 8 pixels or turns by any angle, reduced to 16x16; three convolutions and a pooled head, of 4
to 16 channels (for each group element), 15 epochs of batches of 64, default options otherwise;
CONV and GCONV start at full size, F-FC absent, until it would pay. (With 1,000 images and 12 epochs
networks on rotated images had less evidence than guessing.) The paper: all images, and CIFAR-10, at
32x32, its network of ten layers with alpha = 2 (10 in Table 7), 1000 epochs (4000 on CIFAR-10,
augmented), all paths from the start. ``--full`` runs that on your copy of CIFAR-10, but subsamples
on the grid of `symlearn.Circular`, for the paper's polyphase rule is not equivariant to turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

import symlearn
from benchmarks.support import tables
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bars
from benchmarks.support.study import Row, Study, pick, spread
from benchmarks.support.tables import Claim, Scale
from symlearn.datasets import ImageSet
from symlearn.models import GROUP_KINDS, paper_cnn
from symlearn.relaxed import relaxed_layers

SMALL = Scale(n=4_000, epochs=15, width=4)
FULL = Scale(n=0, epochs=1000, width=2, published=True)
CIFAR_EPOCHS, TABLE_7_WIDTH = 4000, 10
DATA = {
    "mnist-upright": "MNIST",
    "mnist-translated": "translated MNIST",
    "mnist-rotated": "rotated MNIST",
    "fashion-upright": "Fashion-MNIST",
    "fashion-rotated": "rotated Fashion-MNIST",
}
FULL_DATA = {
    **{key: title for key, title in DATA.items() if key.startswith("mnist")},
    "cifar10-upright": "CIFAR-10",
    "cifar10-rotated": "rotated CIFAR-10",
}
TITLES = {**DATA, **FULL_DATA}
SEVERAL = "ffc+conv+gconv"
PATHS = {"ffc": "F-FC", "conv": "CONV", "gconv": "GCONV"}
# Table 7, channel matched, by the accuracy it has there
FACTORS = {
    "gconv-depthwise-separable": "GCONV, depthwise separable",
    "conv": "CONV",
    "gconv-separable": "GCONV, separable",
    "gconv-pointwise": "GCONV, pointwise",
    "gconv-full": "GCONV, full",
}


def plain(channels: int, classes: int, width: int, seed: int) -> nn.Sequential:
    """Three convolutions and a pooled head, for images of 16x16."""
    torch.manual_seed(seed)
    sizes = [channels, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers += [nn.Conv2d(c_in, c_out, 3, stride=1 + (i > 0), padding=1), nn.ReLU()]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], classes)]
    return nn.Sequential(*layers)


def network(model: str, train: ImageSet, scale: Scale, seed: int) -> nn.Module:
    """The relaxed network of a run: the paper's, or a small one with the same paths."""
    channels, size = train.x.shape[1], train.x.shape[-1]
    if scale.published:
        return paper_cnn(model, scale.width, channels, train.classes, size, seed=seed)
    net: nn.Module = plain(channels, train.classes, scale.width, seed)
    if model != "conv":
        net = symlearn.lift(net, "p4", first="repeat")
    paths = GROUP_KINDS.get(model, ("conv",))
    example = train.x[:2]
    relaxed = symlearn.wrap(net, example, paths=paths, boundary="circular", init="fresh", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in relaxed_layers(relaxed).values():
        if "ffc" in layer.paths:
            layer.reset_parameters(generator, absent=["ffc"])
    return relaxed


def run(data: str, model: str, objective: str, seed: int, *, scale: Scale) -> Row:
    """One fit."""
    source, _, variant = data.partition("-")
    size = tables.FRAME if scale.published else 16
    images = tables.framed(tables.load(source, scale, seed), size, variant, seed)
    return tables.fitted(network(model, images[0], scale, seed), images, scale, objective, seed)


def scale_of(given: argparse.Namespace, scale: Scale, data: str, model: str) -> Scale:
    """Settings of a run: the paper's differ between its tables and its data sets."""
    if given.full and given.width is None and model != SEVERAL:
        scale = replace(scale, width=TABLE_7_WIDTH)
    if given.full and given.epochs is None and data.startswith("cifar10"):
        scale = replace(scale, epochs=CIFAR_EPOCHS)
    return scale


def shares(row: Row) -> dict[str, list[float]]:
    """Relative effective parameters of each path in the layers that have all of them."""
    layers = [layer["paths"] for layer in row["layers"] if set(layer["paths"]) == set(PATHS)]
    return {
        path: [100 * paths[path]["relative_effective_params"] for paths in layers] for path in PATHS
    }


def several(rows: Iterable[Row], data: str) -> list[Row]:
    """The rows of the network of several groups, by evidence."""
    return pick(rows, data=data, model=SEVERAL, objective="evidence")


def pooled(rows: Iterable[Row], path: str) -> list[float]:
    """Shares of a path in all layers of all rows."""
    return [share for row in rows for share in shares(row)[path]]


def report(rows: list[Row]) -> Iterable[str]:
    """The claims, the paper's two tables, and all runs."""
    yield tables.conditions(rows)
    yield tables.claims_table(list(claims(rows)))
    yield "## Table 3"
    yield (
        "Relative effective parameters in percent: mean (least-largest) over layers and seeds. "
        "Figures of the fits: mean ± standard deviation over seeds."
    )
    columns = ["images", "MAP NLL", "MAP accuracy", "NLL", "accuracy", "-log evidence / N"]
    cells = [_several(rows, data, title) for data, title in TITLES.items()]
    yield markdown_table([*columns, *PATHS.values()], [line for line in cells if line])
    if singles := [row for row in rows if row["model"] != SEVERAL]:
        yield "## Table 7"
        yield "Networks of one kind of layer, MAP, in the order that the paper found."
        yield markdown_table(
            ["layers", "images", "parameters", "accuracy, %", "NLL"],
            [_single(pick(singles, model=model), FACTORS[model]) for model in _models(singles)],
        )
    yield "## All runs"
    heads = ["run", "accuracy", "NLL", "log evidence / N", "parameters", "CPU s", "verdicts"]
    yield markdown_table(heads, [_line(row) for row in rows])


def _models(rows: Iterable[Row]) -> list[str]:
    there = {row["model"] for row in rows}
    return [model for model in FACTORS if model in there]


def _several(rows: list[Row], data: str, title: str) -> list[Cell]:
    learned, fixed = several(rows, data), pick(rows, data=data, model=SEVERAL, objective="map")
    if not learned:
        return []
    cells: list[Cell] = [title]
    for found in (fixed, learned):
        cells.append(spread(row["nll"] for row in found))
        cells.append(spread((100 * row["accuracy"] for row in found), 2))
    cells.append(spread(-row["log_evidence_per_sample"] for row in learned))
    for path in PATHS:
        values = pooled(learned, path)
        cells.append(f"{fmean(values):.0f} ({min(values):.0f}-{max(values):.0f})")
    return cells


def _single(rows: list[Row], title: str) -> list[Cell]:
    accuracy = spread((100 * row["accuracy"] for row in rows), 2)
    data = TITLES[rows[0]["data"]]
    return [title, data, rows[0]["n_params"], accuracy, spread(row["nll"] for row in rows)]


def _line(row: Row) -> list[Cell]:
    run = f"{row['data']}, {row['objective']} {row['model']}, seed {row['seed']}"
    figures = [row[key] for key in ("accuracy", "nll", "log_evidence_per_sample")]
    shown = ", ".join(layer["verdict"] for layer in row["layers"])
    return [run, *figures, row["n_params"], row["cpu_seconds"], shown]


def _evidence(row: Row) -> float:
    return float(row["log_evidence_per_sample"])


def _rise(what: str, upright: list[Row], turned: list[Row]) -> Claim:
    before, after = (fmean(pooled(found, "gconv")) for found in (upright, turned))
    return Claim(what, f"{before:.0f} % upright, {after:.0f} % rotated", after > before)


def claims(rows: list[Row]) -> Iterator[Claim]:
    """What the paper's tables say, where the rows are there."""
    for source in ("mnist", "fashion", "cifar10"):
        upright, turned = (several(rows, f"{source}-{kind}") for kind in ("upright", "rotated"))
        if upright and turned:
            what = f"{TITLES[source + '-upright']}: GCONV's share is larger on rotated images"
            yield _rise(what, upright, turned)
            best = [[max(found, key=_evidence)] for found in (upright, turned)]
            yield _rise(f"{what}, in the seed with the largest evidence", *best)
    for data, title in TITLES.items():
        learned, fixed = several(rows, data), pick(rows, data=data, model=SEVERAL, objective="map")
        if learned and fixed:
            mean, text = tables.difference(learned, fixed)
            yield Claim(f"{title}: evidence is more accurate than MAP", text, mean > 0)
    singles = [row for row in rows if row["model"] != SEVERAL]
    order = _models(singles)
    for worse, better in zip(order[:-1], order[1:], strict=True):
        pair = [pick(singles, model=model) for model in (better, worse)]
        mean, text = tables.difference(*pair)
        yield Claim(f"rotated: {FACTORS[better]} above {FACTORS[worse]}", text, mean > 0)


def picture(rows: list[Row], file: Path) -> None:
    """Shares of the paths by images, and accuracies by kind of layer."""
    from matplotlib.figure import Figure

    there = {data: title for data, title in TITLES.items() if several(rows, data)}
    models = _models(row for row in rows if row["model"] != SEVERAL)
    fig = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=[3, 2])
    series = {
        label: [pooled(several(rows, data), path) for data in there]
        for path, label in PATHS.items()
    }
    bars(left, [title.replace(" ", "\n") for title in there.values()], series)
    left.set(ylabel="relative effective parameters, %", ylim=(0, 120))
    left.set_title("evidence (line: range over layers and seeds)")
    left.legend(loc="upper left", ncols=3)
    accuracies = [[100 * row["accuracy"] for row in pick(rows, model=model)] for model in models]
    names = [FACTORS[model].replace(", ", ",\n").replace(" sep", "\nsep") for model in models]
    bars(right, names, {"MAP": accuracies})
    right.set(ylabel="test accuracy, %", title="one kind of layer, rotated images")
    right.tick_params(axis="x", labelsize=8)
    fig.savefig(file, dpi=130)


def main() -> None:
    """Run what is missing and write the page."""
    given, scale, name = tables.command("table3", __doc__, SMALL, FULL)
    study = Study(name, __doc__, report, picture)
    rotated = "cifar10-rotated" if scale.published else "mnist-rotated"
    for seed in given.seeds:
        runs = [(data, SEVERAL, "evidence") for data in (FULL_DATA if given.full else DATA)]
        runs += [(rotated, model, "map") for model in FACTORS]
        runs += [(data, SEVERAL, "map") for data in (FULL_DATA if given.full else DATA)]
        for data, model, objective in runs:
            what = {"data": data, "model": model, "objective": objective, "seed": seed}
            study.add(partial(run, scale=scale_of(given, scale, data, model)), **what)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
