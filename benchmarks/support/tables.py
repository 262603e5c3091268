"""What the studies of the paper's tables share: settings, images, fits as rows, claims, bars."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.study import Row, options
from curvature.checking import seeded
from symlearn import FitConfig
from symlearn.datasets import (
    ImageSet,
    cifar10,
    fashion_mnist,
    mnist,
    rotated,
    shift_images,
    shrink,
    translated,
)
from symlearn.relaxed import relaxed_layers

SOURCES: dict[str, Callable[[Path], tuple[ImageSet, ImageSet]]] = {
    "mnist": mnist,
    "fashion": fashion_mnist,
    "cifar10": cifar10,
}
VARIANTS: dict[str, Callable[[ImageSet, int], ImageSet]] = {
    "upright": lambda images, seed: images,
    "translated": lambda images, seed: translated(images, seed),
    "rotated": lambda images, seed: rotated(images, seed),
}
OBJECTIVES = ("map", "evidence")
FRAME = 32  # side of the paper's images
_SIZES = ("n", "epochs", "width", "step")


@dataclass(frozen=True)
class Scale:
    """How large the runs of a study are.

    Attributes:
        n: Training images, 0 for all there are.
        epochs: Passes over them.
        width: Channels of the network's first layer (the paper's alpha).
        batch: Images in a weight step.
        step: Size of weight steps, where fits are not the paper's.
        published: Whether fits are the paper's (App. F.6): its optimiser, its schedule, all paths
            at full size from the start, and on CIFAR-10 its augmentation.
        root: Where the images are.
        device: Where fits run.
    """

    n: int
    epochs: int
    width: int
    batch: int = 64
    step: float = FitConfig.learning_rate
    published: bool = False
    root: Path = Path("data")
    device: str = "cpu"

    def config(self, objective: str, seed: int) -> FitConfig:
        """Options of a fit."""
        shared: dict[str, Any] = {"objective": objective, "seed": seed, "progress": False}
        if self.published:
            return FitConfig.published(self.epochs, **shared)
        sizes: dict[str, Any] = {"batch_size": self.batch, "learning_rate": self.step}
        return FitConfig(epochs=self.epochs, **sizes, **shared)


def command(
    name: str, docstring: str | None, small: Scale, full: Scale
) -> tuple[argparse.Namespace, Scale, str]:
    """Command line of a study of the paper's tables.

    Args:
        name: Name of the study.
        docstring: Its docstring.
        small: The settings of the stored results.
        full: Those of ``--full``.

    Returns:
        What was given, the settings, and the study's name with what differs from the stored
        results' settings, so that results of other settings never mix.
    """
    given = options(
        docstring,
        full={"action": "store_true", "help": "the paper's own settings, on a GPU"},
        n={"type": int, "help": "training images, 0 for all"},
        epochs={"type": int, "help": "passes over them"},
        width={"type": int, "help": "channels of the network's first layer"},
        step={"type": float, "help": "size of weight steps, where fits are not the paper's"},
        root={"type": Path, "default": Path("data"), "help": "where the images are"},
        device={"help": "where fits run; cuda with --full, otherwise cpu"},
    )
    device = given.device or ("cuda" if given.full else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no GPU is there; --device cpu runs the same without one")
    base = full if given.full else small
    changed = {key: getattr(given, key) for key in _SIZES if getattr(given, key) is not None}
    scale = replace(base, root=given.root, device=device, **changed)
    marks = ["full"] if given.full else []
    marks += [f"{key}{value}" for key, value in changed.items() if value != getattr(base, key)]
    return given, scale, "_".join([name, *marks])


def load(source: str, scale: Scale, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training images, as many as the settings say, and all test images, in [0, 1]."""
    train, test = SOURCES[source](scale.root)
    return (train.split(scale.n, seed=seed)[0] if scale.n else train), test


def framed(
    pair: tuple[ImageSet, ImageSet], size: int, variant: str = "upright", seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """Images in a frame of 32x32, varied, reduced to a size and standardised.

    Args:
        pair: Training and test images, square, at most 32x32.
        size: Side of the result; at 32 nothing is reduced.
        variant: One of `VARIANTS`.
        seed: Determines the variation, which differs between training and test images.
    """
    train, test = (
        _framed(images, size, variant, 2 * seed + part) for part, images in enumerate(pair)
    )
    return train.standardised(), test.standardised(train)


def _framed(images: ImageSet, size: int, variant: str, seed: int) -> ImageSet:
    margin = (FRAME - images.x.shape[-1]) // 2
    images = VARIANTS[variant](replace(images, x=F.pad(images.x, [margin] * 4)), seed)
    return images if size == FRAME else shrink(images, FRAME, size)


def fitted(
    model: nn.Module, data: tuple[ImageSet, ImageSet], scale: Scale, objective: str, seed: int
) -> Row:
    """Fit a relaxed network and score it.

    Maximum a posteriori, and the published schedule, begin with all paths at full size; the
    package's defaults begin as the network was made and let paths grow.

    Args:
        model: The network; it is trained in place.
        data: Training and test images.
        scale: Settings.
        objective: "map" or "evidence".
        seed: Seed of the fit and of weights that are drawn anew.
    """
    train, test = data
    if objective == "map" or scale.published:
        full_size(model, seed)
    if scale.published and train.x.shape[1] == 3:
        augment(model, seed)
    result = symlearn.fit(model.to(scale.device), train.pair, scale.config(objective, seed))
    report = result.report
    layers = json.loads(report.to_json())["layers"]
    return {
        **result.score(test.pair),
        "log_evidence_per_sample": report.log_evidence / report.n_data,
        "n_params": report.n_params,
        "n_train": len(train),
        "n_test": len(test),
        "epochs": len(result.history),
        "layers": [{key: layer[key] for key in ("name", "verdict", "paths")} for layer in layers],
    }


def full_size(model: nn.Module, seed: int) -> None:
    """Draw all paths of layers that have several at full size, as in the paper."""
    generator = seeded(seed)
    for layer in relaxed_layers(model).values():
        if len(layer.paths) > 1:
            layer.reset_parameters(generator)


def augment(model: nn.Module, seed: int) -> None:
    """Flip images and shift them by up to four pixels in weight steps (paper, App. F.6).

    The evidence is measured on the images as they are: there the network is in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)

    def move(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if not module.training:
            return None
        x = args[0]
        flipped = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < 0.5
        shifts = torch.randint(-4, 5, (len(x), 2), generator=generator)
        return (shift_images(torch.where(flipped, x.flip(3), x), shifts),)

    model.register_forward_pre_hook(move)


@dataclass(frozen=True)
class Claim:
    """A sentence that the rows support or not.

    Attributes:
        what: The sentence.
        measured: The figures.
        holds: Whether it holds.
    """

    what: str
    measured: str
    holds: bool


def claims_table(claims: Sequence[Claim]) -> str:
    """The claims and whether they hold."""
    cells: list[list[Cell]] = [[claim.what, claim.measured, claim.holds] for claim in claims]
    return markdown_table(["claim", "measured", "holds"], cells)


def difference(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[float, str]:
    """By how many points the first rows are more accurate than the second of the same seeds.

    Returns:
        The mean over seeds, and the same in words, with each seed and standard errors: over seeds
        where there are several, and of one seed from the size of the test set (the two networks'
        errors taken as independent, which is on the safe side).

    Raises:
        ValueError: If no seed has both.
    """
    others = {row["seed"]: row for row in theirs}
    pairs = [(row, others[row["seed"]]) for row in ours if row["seed"] in others]
    if not pairs:
        raise ValueError("no seed has both rows")
    points = [100 * (a["accuracy"] - b["accuracy"]) for a, b in pairs]
    one = 100 * fmean(
        sum(row["accuracy"] * (1 - row["accuracy"]) / row["n_test"] for row in pair) ** 0.5
        for pair in pairs
    )
    text = f"{fmean(points):+.2f}"
    if len(points) > 1:
        text += f" ± {stdev(points) / len(points) ** 0.5:.2f}"
    seeds = ", ".join(f"{value:+.2f}" for value in points)
    return fmean(points), f"{text} points (seeds: {seeds}, each ± {one:.2f})"


def conditions(rows: Sequence[Row]) -> str:
    """What the rows were measured on, one sentence."""

    def values(key: str) -> str:
        return " or ".join(f"{value:,}" for value in sorted({row[key] for row in rows}))

    return (
        f"These runs: {values('n_train')} training images, {values('n_test')} test images, "
        f"{values('epochs')} epochs (trials of paths included), seeds {values('seed')}."
    )
