"""Claim: rotating the images moves a network's weight from CONV to GCONV paths.

UCI digits in a frame of 12x12 pixels, upright or each turned by a random angle, and a CNN lifted
to the quarter turns (`symlearn.lift`) with the paths ``conv`` and ``gconv`` in every layer. A layer
can become strict on shifts and turns (``gconv``), on shifts alone (``conv``), or mix both.

Two starts, and the fit with the larger evidence is taken, as training data alone can: "strict"
starts from group convolutions and grows convolutions that pay, "fresh" starts from both. All fits
are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bars
from benchmarks.support.study import Row, Study, options, pick
from symlearn.datasets import ImageSet, digits, rotated

STARTS = {"strict": "keep", "fresh": "fresh"}
IMAGES = ("upright", "rotated")
PATHS = ("conv", "gconv")
EPOCHS = 30


def load(kind: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Standardised training and test images in a wider frame, which nothing leaves on turning."""
    train, test = (
        replace(part, x=F.pad(part.x, (2, 2, 2, 2)))
        for part in digits().split(1400, 397, seed=seed)
    )
    if kind == "rotated":
        train, test = rotated(train, seed=seed), rotated(test, seed=1000 + seed)
    return train.standardised(), test.standardised(train)


def network(seed: int, width: int = 8) -> nn.Module:
    """Three convolutions with circular padding and a pooled head, on the quarter turns."""
    torch.manual_seed(seed)
    sizes = [1, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers += [nn.Conv2d(c_in, c_out, 3, stride=1 + (i > 0), padding=1), nn.ReLU()]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 10)]
    return symlearn.lift(nn.Sequential(*layers), "p4", width=0.5, seed=seed)


def run(images: str, start: str, seed: int) -> Row:
    """Figures of one fit."""
    train, test = load(images, seed)
    relaxed = symlearn.wrap(
        network(seed),
        train.x[:2],
        paths=PATHS,
        boundary="circular",
        init=STARTS[start],
        seed=seed,
    )
    config = symlearn.FitConfig(epochs=EPOCHS, seed=seed, progress=False)
    result = symlearn.fit(relaxed, train.pair, config)
    return {
        **result.score(test.pair),
        "log_evidence_per_sample": result.report.log_evidence / result.report.n_data,
        "verdicts": [layer.verdict for layer in result.report],
        "relative": [
            {name: layer.paths[name].relative_effective_params for name in PATHS}
            for layer in result.report
        ],
    }


def chosen(rows: Iterable[Row]) -> list[Row]:
    """Of each pair of starts the fit with the larger evidence."""
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = row["images"], row["seed"]
        if key not in best or row["log_evidence_per_sample"] > best[key]["log_evidence_per_sample"]:
            best[key] = row
    return list(best.values())


def shares(rows: Iterable[Row], kind: str) -> list[dict[str, list[float]]]:
    """Relative effective parameters by layer and path, over the seeds, in the chosen fits."""
    mine = pick(chosen(rows), images=kind)
    layers = range(len(mine[0]["relative"]) if mine else 0)
    return [{path: [row["relative"][i][path] for row in mine] for path in PATHS} for i in layers]


def tables(rows: list[Row]) -> Iterable[str]:
    """Mean and range of the relative effective parameters per layer, and all fits."""
    yield (
        "Relative effective parameters, mean (min-max) over seeds, in the fit with the larger "
        "evidence of the two starts."
    )
    lines: list[list[Cell]] = [
        [
            f"{kind}, layer {i}",
            len(layer[PATHS[0]]),
            *(f"{fmean(v):.2f} ({min(v):.2f}-{max(v):.2f})" for v in layer.values()),
        ]
        for kind in IMAGES
        for i, layer in enumerate(shares(rows, kind))
    ]
    yield markdown_table(["images and layer", "seeds", *PATHS], lines)
    yield "## All fits"
    figures = ("log_evidence_per_sample", "accuracy", "nll", "cpu_seconds")
    yield markdown_table(
        ["fit", "log evidence / N", "accuracy", "NLL", "CPU s", "verdicts"],
        [
            [
                f"{row['images']}, {row['start']} start, seed {row['seed']}",
                *(row[key] for key in figures),
                ", ".join(row["verdicts"]),
            ]
            for row in rows
        ],
    )


def picture(rows: list[Row], file: Path) -> None:
    """Shares of both paths by layer."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8, 3), layout="constrained")
    for ax, kind in zip(fig.subplots(1, len(IMAGES), sharey=True), IMAGES, strict=True):
        layers = shares(rows, kind)
        series = {path: [layer[path] for layer in layers] for path in PATHS}
        bars(ax, [f"layer {i}" for i in range(len(layers))], series)
        ax.set_title(f"{kind} images")
    fig.axes[0].set_ylabel("relative effective parameters")
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    fig.savefig(file, dpi=130)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__)
    study = Study("groups", __doc__, tables, picture)
    for seed in given.seeds:
        for kind in IMAGES:
            for start in STARTS:
                study.add(run, images=kind, start=start, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
