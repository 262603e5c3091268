"""Claim: exactly shift-equivariant subsampling loses at most one point to max-pooling.

Strict CNNs (maximum a posteriori) that subsample by strides or by 2x2 max-pools, with a fixed grid
("keep": not equivariant) or with a grid that moves with each image by one of the rules:

* digit: the demo's task on MNIST digits, 16x16, an object on an empty canvas; 30 epochs;
* fashion: 5,000 images of Fashion-MNIST, 32x32, objects that fill the frame; 10 epochs;
* texture: 2,000 images of band-passed noise in 8 directions, 32x32, without a position; 10 epochs.

"shifted" is the accuracy when each test image is shifted at random around the circle: the same for
an equivariant network. "grids" is the perplexity of the sampling grid (the position modulo 8) on
training images as they lie: 1 if all are sampled alike, 64 if none are. Mean and standard deviation
over seeds; CPU seconds on one thread, on a shared machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, pick, spread
from benchmarks.support.toy import load
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


def run(task: str, net: str, rule: str, seed: int) -> Row:
    """Figures of one fit."""
    torch.manual_seed(seed)
    train, test = data(task, seed)
    boundary = "keep" if rule == "keep" else Circular(rule)
    model = symlearn.wrap(
        network(net, train, seed), train.x[:2], paths="conv", boundary=boundary, seed=seed
    )
    config = FitConfig(objective="map", epochs=EPOCHS[task], seed=seed, progress=False)
    start = time.process_time()
    result = symlearn.fit(model, train.pair, config)
    seconds = time.process_time() - start
    return {
        **result.score(test.pair),
        "shifted": result.score((shuffled(test.x, seed), test.y))["accuracy"],
        "grids": grids(result.model, train.x),
        "seconds": seconds,
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


def tables(rows: list[Row]) -> Iterable[str]:
    """One table of means over seeds for each task."""
    heads = ["net and rule", "seeds", "accuracy", "shifted", "NLL", "grids", "CPU s"]
    for task in EPOCHS:
        lines = [
            _line(f"{net}, {rule}", pick(rows, task=task, net=net, rule=rule))
            for net in NETS
            for rule in RULES
        ]
        yield f"## {task}"
        yield markdown_table(heads, [line for line in lines if line[1]])


def _line(name: str, rows: list[Row]) -> list[Cell]:
    """Mean and standard deviation over seeds; the number of rows is the second entry."""
    figures = [spread(row[key] for row in rows) for key in ("accuracy", "shifted", "nll")]
    figures.append(spread((row["grids"] for row in rows if row["grids"] is not None), 1))
    return [name, len(rows), *figures, spread((row["seconds"] for row in rows), 0)]


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__, seeds=2)
    panels = {"accuracy": "accuracy", "shifted": "accuracy, shifted", "nll": "NLL, nats"}
    group = bar_picture(lambda row: f"{row['task']}, {row['net']}", lambda row: row["rule"], panels)
    study = Study("subsampling", __doc__, tables, group)
    for seed in given.seeds:
        for task in EPOCHS:
            for net in NETS:
                for rule in RULES:
                    study.add(run, task=task, net=net, rule=rule, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
