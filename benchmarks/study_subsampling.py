"""Claim: exactly shift-equivariant subsampling loses at most one point to max-pooling.

Strict CNNs (maximum a posteriori) that subsample by strides or by 2x2 max-pools, with a fixed grid
("keep": not equivariant) or with a grid that moves with each image by one of the rules:

* digit: the demo's task on MNIST digits, 16x16, an object on an empty canvas; 30 epochs;
* fashion: 5,000 images of Fashion-MNIST, 32x32, objects that fill the frame; 10 epochs;
* texture: 2,000 images of band-passed noise in 8 directions, 32x32, without a position; 10 epochs.

"shifted" is the accuracy when each test image is shifted at random around the circle: the same for
an equivariant network. "grids" is the perplexity of the sampling grid (the position modulo 8) on
training images as they lie: 1 if all are sampled alike, 64 if none are. Each run writes a JSON of
its own under ``results/subsampling``, so that the study can be resumed and shared out. Some runs:
``python benchmarks/study_subsampling.py --tasks digit --rules keep template --seeds 0``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from benchmarks.support.harness import RESULTS, Cell, environment, markdown_table
from benchmarks.support.toy import load, one_thread
from symlearn import Circular, FitConfig
from symlearn.datasets import ImageSet, fashion_mnist
from symlearn.models import small_cnn
from symlearn.subsample import PHASES, PhaseReference

EPOCHS = {"digit": 30, "fashion": 10, "texture": 10}
NETS = ("stride", "max-pool")
RULES = ("keep", *PHASES)


def data(task: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a task."""
    if task == "digit":
        return load("mnist5k", "digit", seed)
    if task == "texture":
        return textures(2000, 2 * seed), textures(2000, 2 * seed + 1)
    everything, test = fashion_mnist()
    train, _ = everything.split(5_000, len(everything) - 5_000, seed=seed)
    test = test.standardised(train)
    train = train.standardised()
    return padded(train), padded(test)


def padded(images: ImageSet) -> ImageSet:
    """Images of 32x32: two pixels more on each side."""
    x = F.pad(images.x, (2, 2, 2, 2), value=float(images.x.min()))
    return ImageSet(x, images.y, images.classes, images.name)


def textures(n: int, seed: int, size: int = 32, classes: int = 8) -> ImageSet:
    """Noise of which frequencies along one direction are kept, and white noise on top."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    spectrum = torch.fft.fft2(torch.randn(n, size, size, generator=generator))
    rows, columns = torch.meshgrid(*[torch.fft.fftfreq(size)] * 2, indexing="ij")
    angle = y.mul(math.pi / classes).reshape(-1, 1, 1)
    along = angle.cos() * rows + angle.sin() * columns
    across = angle.cos() * columns - angle.sin() * rows
    kept = torch.exp(-(((along.abs() - 0.2) / 0.06) ** 2) - (across / 0.08) ** 2)
    x = torch.fft.ifft2(spectrum * kept).real
    x = x / x.std() + 1.5 * torch.randn(n, size, size, generator=generator)
    return ImageSet(x.unsqueeze(1).float(), y, classes, "textures")


def network(net: str, train: ImageSet, seed: int) -> nn.Sequential:
    """The demo's CNN, or the same with 2x2 max-pools in place of its strides."""
    cnn = small_cnn(train.classes, in_channels=train.x.shape[1], padding_mode="circular", seed=seed)
    if net == "stride":
        return cnn
    layers: list[nn.Module] = []
    for conv, act in zip(cnn[0:8:2], cnn[1:8:2], strict=True):
        layers += [conv, act]
        if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
            conv.stride = (1, 1)
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *cnn[8:])


def run(task: str, net: str, rule: str, seed: int) -> dict[str, Any]:
    """Figures of one fit."""
    train, test = data(task, seed)
    boundary = "keep" if rule == "keep" else Circular(rule)
    model = symlearn.wrap(
        network(net, train, seed), train.x[:2], paths="conv", boundary=boundary, seed=seed
    )
    config = FitConfig(objective="map", epochs=EPOCHS[task], seed=seed, progress=False)
    start = time.process_time()
    result = symlearn.fit(model, train.pair, config)
    seconds = time.process_time() - start
    moved = shuffled(test.x, seed)
    return {
        "task": task,
        "net": net,
        "rule": rule,
        "seed": seed,
        **result.score(test.pair),
        "shifted": result.score((moved, test.y))["accuracy"],
        "grids": grids(result.model, train.x),
        "seconds": seconds,
        "environment": environment(),
    }


def shuffled(x: Tensor, seed: int) -> Tensor:
    """Each image shifted at random around the circle."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.stack([torch.randint(s, (len(x),), generator=generator) for s in x.shape[2:]], 1)
    return torch.stack([v.roll(tuple(by), (1, 2)) for v, by in zip(x, moves.tolist(), strict=True)])


def grids(model: nn.Module, x: Tensor, total: int = 8) -> float | None:
    """Perplexity of the position modulo the total stride; None where layers decide on their own."""
    reference = next((m for m in model.modules() if isinstance(m, PhaseReference)), None)
    if reference is None:
        return None
    reference.decide(model, (x[:2000],), {})
    place = reference.pose.shift % total @ torch.tensor([total, 1])
    reference.forget(model, (), None)
    share = torch.bincount(place).double() / len(place)
    return float(torch.special.entr(share).sum().exp())


def markdown(rows: list[dict[str, Any]]) -> str:
    """One table of means over seeds for each task."""
    parts = [
        "# Exactly shift-equivariant subsampling",
        "Mean over seeds (standard deviation); CPU seconds on one thread, on a shared machine.",
    ]
    columns = ["net and rule", "seeds", "accuracy", "shifted", "NLL", "grids", "CPU s"]
    for task in EPOCHS:
        cells: list[list[Cell]] = []
        for net in NETS:
            for rule in RULES:
                mine = [r for r in rows if (r["task"], r["net"], r["rule"]) == (task, net, rule)]
                if mine:
                    cells.append([f"{net}, {rule}", len(mine), *_means(mine)])
        parts += [f"## {task}", markdown_table(columns, cells)]
    latest = max((row["environment"] for row in rows), key=lambda e: e["date"])
    parts.append("\n".join(f"* {key}: {value}" for key, value in latest.items()))
    return "\n\n".join(parts) + "\n"


def _means(rows: list[dict[str, Any]]) -> list[Cell]:
    found: list[Cell] = []
    for key in ("accuracy", "shifted", "nll"):
        values = [row[key] for row in rows]
        spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
        found.append(f"{statistics.mean(values):.3f}{spread}")
    known = [row["grids"] for row in rows if row["grids"] is not None]
    found.append(f"{statistics.mean(known):.1f}" if known else "")
    found.append(f"{statistics.mean(row['seconds'] for row in rows):.0f}")
    return found


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    one_thread()
    folder = given.out / "subsampling"
    folder.mkdir(parents=True, exist_ok=True)
    names = [
        (task, net, rule, seed)
        for seed in given.seeds
        for task in given.tasks
        for net in given.nets
        for rule in given.rules
    ]
    for task, net, rule, seed in names:
        file = folder / f"{task}_{net}_{rule}_{seed}.json"
        if not file.exists():
            torch.manual_seed(seed)
            found = run(task, net, rule, seed)
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(file.name, f"{found['accuracy']:.4f}", f"{found['seconds']:.0f} s", flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    (given.out / "subsampling.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
