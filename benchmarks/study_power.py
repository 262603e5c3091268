"""Claim: a power series of rotations tells angles better than one of scalings or shifts.

PowerNet's regression (its Sec. 4.2) on UCI digits: each image, in a frame of 15x15 pixels, is
turned by a random angle from the full circle, and the angle is to be predicted, in radians
(predicting its mean has a squared error of 3.29). Networks are three blocks of two power layers
with powers -2 to 2 of one base matrix (a vertical shift, a scaling or a rotation, one pixel a
step), batch normalisation, LeakyReLU(0.2) and residual connections, average pools between blocks
and a linear head. All three have the same number of weights, and all are trained by Adam for 60
epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, spread
from benchmarks.support.training import train_by_adam, trained
from symlearn.datasets import digits
from symlearn.datasets.variants import rotate_images
from symlearn.paths import Power

BASES = {"shift": "translation_y", "scaling": "scaling", "rotation": "rotation"}
PUBLISHED = {"shift": 1.485, "scaling": 1.456, "rotation": 0.949}
SIDE, CHANNELS, EPOCHS, BATCH = 15, 12, 60, 50


def images(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Turned images and their angles in radians, training and test; test angles never change."""
    parts = []
    for part, draw in zip(digits().split(1400, 397, seed=seed), (seed, 1000), strict=True):
        edge = (SIDE - 8) // 2
        x = F.pad(part.x, (edge, SIDE - 8 - edge, edge, SIDE - 8 - edge))
        generator = torch.Generator().manual_seed(draw)
        degrees = 360 * torch.rand(len(x), generator=generator, dtype=torch.float64) - 180
        turned = replace(part, x=rotate_images(x, degrees))
        parts.append((turned, (degrees * math.pi / 180).float().unsqueeze(1)))
    (train, train_angles), (test, test_angles) = parts
    return (train.standardised().x, train_angles), (test.standardised(train).x, test_angles)


def network(base: str, seed: int) -> nn.Module:
    """Three blocks on maps of 15, 7 and 3 pixels."""
    torch.manual_seed(seed)
    power = Power((BASES[base],), powers=2)
    layers: list[nn.Module] = []
    for c_in, side in ((1, SIDE), (CHANNELS, SIDE // 2), (CHANNELS, SIDE // 4)):
        block = symlearn.PowerBlock(c_in, CHANNELS, (side, side), power, layers=2, seed=seed)
        layers += [block, nn.AvgPool2d(2) if side > 3 else nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(9 * CHANNELS, 1))


def run(base: str, seed: int) -> Row:
    """Squared errors of one network, in square radians."""
    (x, y), (x_test, y_test) = images(seed)
    net = network(base, seed)
    train_by_adam(
        *(net, (x, y), 0.01),
        epochs=EPOCHS,
        batch=BATCH,
        seed=seed,
        weight_decay=1e-4,
        loss=F.mse_loss,
    )
    net.eval()
    with torch.no_grad():
        errors = F.mse_loss(net(x), y), F.mse_loss(net(x_test), y_test)
    return {
        **dict(zip(("train_mse", "test_mse"), map(float, errors), strict=True)),
        "weights": trained(net),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """Errors by base matrix, and in how many seeds rotation is best."""
    table: list[list[Cell]] = []
    for base in BASES:
        mine = [row for row in rows if row["base"] == base]
        if mine:
            figures = [spread(row[key] for row in mine) for key in ("train_mse", "test_mse")]
            table.append([base, len(mine), mine[0]["weights"], *figures, PUBLISHED[base]])
    heads = ["base matrix", "seeds", "weights", "training MSE", "test MSE", "published (MNIST)"]
    yield markdown_table(heads, table)
    found = {(row["base"], row["seed"]): row["test_mse"] for row in rows}
    whole = [seed for base, seed in found if base == "rotation" and _whole(found, seed)]
    best = [seed for seed in whole if min(BASES, key=lambda b: found[b, seed]) == "rotation"]
    yield f"Rotation has the smallest test error in {len(best)} of {len(whole)} seeds."


def _whole(found: dict[tuple[str, int], float], seed: int) -> bool:
    return all((base, seed) in found for base in BASES)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__)
    panels = {"train_mse": "MSE in training", "test_mse": "test MSE"}
    picture = bar_picture(lambda row: row["base"], lambda row: "", panels)
    study = Study("power", __doc__, tables, picture)
    for seed in given.seeds:
        for base in BASES:
            study.add(run, base=base, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
