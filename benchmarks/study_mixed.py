"""Claim: on digits turned, scaled and shifted at once, a CNN of equal size beats a power network.

The source finds them equal; this study does not. Its rotations and scalings are about the middle of
the image and not of the digit, and do not commute with shifts: a product of their powers keeps none
of the transformations, where a convolution keeps one (but for the edges).

PowerNet's classification (its Sec. 4.2), smaller: each MNIST digit is put into the middle of an
image of twice the size, turned by any angle, scaled by 0.8 to 1.2 and shifted by up to 10 pixels
along each axis; the middle 48x48 pixels are averaged to 16x16. 2000 training and 2000 test images.
Networks are three residual blocks of two layers with batch normalisation and LeakyReLU(0.2), max
pools after each, and a linear head:

* ``power``: products of powers -1 to 1 of four base matrices (the two shifts, scaling and
  rotation), with 3, 6 and 12 channels;
* ``cnn``: windows of 5x5 padded with zeros, and the number of channels that comes nearest in
  parameters (12 % fewer);
* ``narrow-cnn``: 3, 6 and 12 of them, as in the paper's comparison.

All are trained by Adam with weight decay 1e-4 for 12 epochs, with a rate chosen for each network
from two, by the accuracy on validation images of another seed. The paper has 84 % for both its
networks, with 62 thousand parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, pick, spread
from benchmarks.support.training import accuracy, best_rates, train_by_adam, trained
from symlearn.datasets import ImageSet, mnist, shrink
from symlearn.paths import Power

MODELS = ("power", "cnn", "narrow-cnn")
RATES = (0.003, 0.01)
BASES = ("translation_y", "translation_x", "scaling", "rotation")  # the last acts first
SIDE, CROP, CLASSES, WIDTH = 16, 48, 10, 3
EPOCHS, BATCH = 12, 64
N_TRAIN, N_VALIDATION, N_TEST = 2000, 1000, 2000
CHOOSING_SEED = 100


def moved(images: ImageSet, seed: int) -> ImageSet:
    """Each image in a frame of twice the size, turned, scaled and shifted, then averaged."""
    draw = torch.Generator().manual_seed(seed)
    angle, size, down, right = torch.rand(4, len(images), generator=draw)
    angle, size = 2 * math.pi * angle, 0.8 + 0.4 * size
    height, width = images.x.shape[-2:]
    big = F.pad(images.x, (width // 2, width // 2, height // 2, height // 2))
    cos, sin = angle.cos() / size, angle.sin() / size
    # where each pixel of the result is read, in units of half of the frame
    shift = (2 * torch.stack([right, down], 1) - 1) * 10 / height
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    theta = torch.cat([turn, -turn @ shift.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, list(big.shape), align_corners=False)
    x = F.grid_sample(big, grid, align_corners=False)
    return shrink(replace(images, x=x), CROP, SIDE)


def images(part: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training images, and those to judge on: "validate" or "test"; both standardised."""
    train, test = mnist()
    train, validation = train.split(N_TRAIN, N_VALIDATION, seed=seed)
    judged = validation if part == "validate" else test.split(N_TEST, seed=0)[0]
    train, judged = moved(train, seed), moved(judged, 1000)
    return train.standardised(), judged.standardised(train)


def network(model: str, seed: int) -> nn.Module:
    """Three blocks on maps of 16, 8 and 4 pixels, and a head that sees 2 by 2."""
    torch.manual_seed(seed)
    if model == "power":
        return _network(model, WIDTH, seed)
    if model == "cnn":
        wanted = trained(_network("power", WIDTH, seed))
        widths = range(WIDTH, 4 * WIDTH)
        return _network(model, min(widths, key=lambda w: abs(_size(w) - wanted)), seed)
    return _network(model, WIDTH, seed)


def _size(width: int) -> int:
    return trained(_network("cnn", width, 0))


def _network(model: str, width: int, seed: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = (1, width, 2 * width, 4 * width)
    for i, (c_in, c_out) in enumerate(pairwise(channels)):
        size = (SIDE // 2**i,) * 2
        layers += [_block(model, c_in, c_out, size, seed), nn.MaxPool2d(2)]
    head = nn.Linear(4 * width * (SIDE // 8) ** 2, CLASSES)
    return nn.Sequential(*layers, nn.Flatten(), head)


def _block(model: str, c_in: int, c_out: int, size: tuple[int, int], seed: int) -> nn.Module:
    if model == "power":
        return symlearn.PowerBlock(c_in, c_out, size, Power(BASES, powers=1), seed=seed)
    body: list[nn.Module] = []
    for c in (c_in, c_out):
        body += [nn.Conv2d(c, c_out, 5, padding=2), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
    skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, bias=False)
    return symlearn.PowerBlock.assemble(nn.Sequential(*body), skip, rho=1.0)


def run(part: str, model: str, rate: float, seed: int) -> Row:
    """Accuracies of one network."""
    train, judged = images(part, seed)
    net = network(model, seed)
    train_by_adam(net, train.pair, rate, epochs=EPOCHS, batch=BATCH, seed=seed, weight_decay=1e-4)
    return {
        "accuracy": accuracy(net, judged),
        "train_accuracy": accuracy(net, train),
        "parameters": trained(net),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """Accuracies of the networks."""
    rates = best_rates(rows, MODELS, RATES)
    body: list[list[Cell]] = []
    for model in MODELS:
        mine = pick(rows, part="test", model=model)
        if mine:
            figures = [spread(row[key] for row in mine) for key in ("train_accuracy", "accuracy")]
            seconds = fmean(row["cpu_seconds"] for row in mine)
            body.append([model, mine[0]["parameters"], rates[model], *figures, seconds])
    heads = ["network", "parameters", "rate", "training accuracy", "test accuracy", "CPU s"]
    yield markdown_table(heads, body)


def picture(rows: list[Row], file: Path) -> None:
    """Accuracies of the final runs."""
    panels = {"train_accuracy": "training accuracy", "accuracy": "test accuracy"}
    draw = bar_picture(lambda row: row["model"], lambda row: "", panels)
    draw(pick(rows, part="test"), file)


def main() -> None:
    """Choose the rates, run what is missing and write the page."""
    given = options(__doc__)
    study = Study("mixed", __doc__, tables, picture)
    for model in MODELS:
        for rate in RATES:
            study.add(run, part="validate", model=model, rate=rate, seed=CHOOSING_SEED)
    study.main(given.out, given.only)
    rates = best_rates(study.rows(given.out), MODELS, RATES)
    for seed in given.seeds:
        for model, rate in rates.items():
            study.add(run, part="test", model=model, rate=rate, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
