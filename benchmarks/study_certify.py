"""Claim: networks that suit the structure of their data can be named in few bits, and so certified.

* mnist, fashion: data-independent bounds on all 60,000 training images (the paper: 11.6 % and
  32.8 %);
* figure: Figure 5.3 at laptop scale, on 20,000 images of MNIST: a CNN and an MLP of as many
  weights, on the data as they are, with shuffled pixels, and with shuffled labels, where no bound
  may say anything;
* rotated: a network on p4 and an ordinary one of as many weights, on 12,000 MNIST digits in random
  poses and upright;
* learned: the collapsed network of a fit, beside the CNN it came from and an MLP, on 10,000 images
  of Fashion-MNIST as they are and with shuffled pixels.

Each run writes its certificate and a JSON of its own under ``results/certify``, so that the study
can be resumed and shared out. Some runs: ``python benchmarks/study_certify.py --tasks mnist``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import symlearn
from benchmarks.support.harness import RESULTS, Cell, environment, markdown_table
from benchmarks.support.toy import one_thread
from symlearn import FitConfig
from symlearn.certify import Certificate, CertifyConfig, certify
from symlearn.datasets import ImageSet, fashion_mnist, mnist, variants
from symlearn.fit import FitResult

# Sizes, rates and the network were found by 20 trials on the training images of the first two data
# sets, for which all messages pay.
_SHARED: dict[str, Any] = {"quantise_rates": (0.05,), "alternatives": 32, "progress": False}
SEARCHES = {
    "mnist": CertifyConfig(
        dimensions=(1000,),
        levels=(7,),
        inits=("kmeans", "uniform"),
        epochs=20,
        quantise_epochs=15,
        **_SHARED,
    ),
    "fashion": CertifyConfig(
        dimensions=(1500,), levels=(5,), epochs=8, quantise_epochs=6, **_SHARED
    ),
    "figure": CertifyConfig(
        dimensions=(100, 300), levels=(5,), epochs=4, quantise_epochs=3, **_SHARED
    ),
    "learned": CertifyConfig(
        dimensions=(100, 300), levels=(5,), epochs=6, quantise_epochs=5, **_SHARED
    ),
    "rotated": CertifyConfig(
        dimensions=(100, 300), levels=(5,), epochs=6, quantise_epochs=5, **_SHARED
    ),
}
SOURCES = {"mnist": "mnist", "fashion": "fashion-mnist"}  # names for `symlearn certify --verify`
Problem = tuple["nn.Module | FitResult", ImageSet, ImageSet]


def cnn(classes: int = 10) -> nn.Module:
    """A LeNet-like network for 28x28 images: three strided convolutions; 19,434 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 16, classes)),
    )


def mlp(classes: int = 10) -> nn.Module:
    """Three hidden layers; 19,402 weights."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 23), nn.ReLU(), nn.Linear(23, 23), nn.ReLU()),
        *(nn.Linear(23, 23), nn.ReLU(), nn.Linear(23, classes)),
    )


def standardised(parts: tuple[ImageSet, ImageSet]) -> tuple[ImageSet, ImageSet]:
    """Training and test images, by the mean and variance of the former."""
    train, test = parts
    return train.standardised(), test.standardised(train)


def part(images: ImageSet, size: int) -> ImageSet:
    """So many of the images, by class in proportion."""
    return images.split(size, len(images) - size, seed=0)[0]


def shuffled_labels(images: ImageSet) -> ImageSet:
    """Every image with the label of another."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return replace(images, y=images.y[order])


CHANGES: dict[str, Callable[[ImageSet], ImageSet]] = {
    "default": lambda images: images,
    "pixels": lambda images: variants.permuted(images, seed=0),
    "labels": shuffled_labels,
}


def whole(source: Callable[[], tuple[ImageSet, ImageSet]]) -> Problem:
    """All training images and the CNN."""
    return (cnn(), *standardised(source()))


def figure(change: str, network: Callable[[], nn.Module]) -> Problem:
    """20,000 images of MNIST, changed."""
    train, test = mnist()
    parts = standardised((part(train, 20_000), test))
    changed, held_out = (CHANGES[change](images) for images in parts)
    return network(), changed, held_out


def turned(turn: bool, group: bool) -> Problem:
    """12,000 digits, turned or not, and a network on p4 or an ordinary one."""
    train, test = mnist()
    train = part(train, 12_000)
    if turn:
        train, test = variants.rotated(train, seed=0), variants.rotated(test, seed=1)
    train, test = standardised((train, test))
    return pooled(group, train.x[:2]), train, test


def pooled(group: bool, x: torch.Tensor) -> nn.Module:
    """Four convolutions at 14x14 and 7x7 and a pooled head; on p4 with half of the channels."""
    width = 12 if group else 24
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    for i, c_in in enumerate((1, width, width, width)):
        layers += [nn.Conv2d(c_in, width, 3, padding=1), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] if i == 1 else []
    plain = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    if not group:
        return plain
    lifted = symlearn.lift(plain, "p4", init="fresh")
    return symlearn.wrap(lifted, x, paths=("gconv",), init="fresh")


def learned(change: str, kind: str) -> Problem:
    """10,000 images of Fashion-MNIST, changed, and the network of that kind."""
    train, test = fashion_mnist()
    parts = standardised((part(train, 10_000), test))
    train, test = (CHANGES[change](images) for images in parts)
    if kind == "mlp":
        return mlp(), train, test
    if kind == "cnn":
        return cnn(), train, test
    relaxed = symlearn.wrap(cnn(), train.x[:2], seed=0)
    result = symlearn.fit(relaxed, train.pair, FitConfig(epochs=10, seed=0, progress=False))
    return result, train, test


RUNS: dict[str, dict[str, Callable[[], Problem]]] = {
    "mnist": {"cnn": lambda: whole(mnist)},
    "fashion": {"cnn": lambda: whole(fashion_mnist)},
    "figure": {
        f"{change}, {name}": lambda change=change, net=net: figure(change, net)  # type: ignore[misc]
        for change in CHANGES
        for name, net in (("cnn", cnn), ("mlp", mlp))
    },
    "rotated": {
        f"{'turned' if turn else 'upright'}, {'p4' if group else 'ordinary'}": (
            lambda turn=turn, group=group: turned(turn, group)  # type: ignore[misc]
        )
        for turn in (True, False)
        for group in (True, False)
    },
    "learned": {
        f"{change}, {kind}": lambda change=change, kind=kind: learned(change, kind)  # type: ignore[misc]
        for change in ("default", "pixels")
        for kind in ("collapsed", "cnn", "mlp")
    },
}


def run(task: str, name: str, file: Path) -> dict[str, Any]:
    """Certify, write the certificate, check it from its file, and tell the figures."""
    start = time.process_time()
    torch.manual_seed(0)
    model, train, test = RUNS[task][name]()
    found = certify(model, train.pair, SEARCHES[task], source=SOURCES.get(task, ""))
    found.save(file)
    figures = Certificate.load(file).verify(train.pair)
    network = found.network()
    with torch.no_grad():
        out = torch.cat([network(x) for x in test.x.split(500)])
    return {
        "task": task,
        "run": name,
        "weights": sum(p.numel() for p in network.parameters()),
        "n": figures.n,
        "bounds": dict(found.bounds),
        "vacuous": found.vacuous,
        "train_error": found.train_error,
        "test_error": float((out.argmax(1) != test.y).float().mean()),
        "bits": found.message_bits,
        "parts": dict(found.parts),
        "choice": found.choice,
        "tried": list(found.tried),
        "search": asdict(SEARCHES[task]),
        "cpu_seconds": time.process_time() - start,
        "environment": environment(),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of all runs."""
    cells: list[list[Cell]] = [
        [
            f"{row['task']}: {row['run']}",
            *(100 * row["bounds"][name] for name in ("catoni", "occam")),
            row["vacuous"],
            *(100 * row[key] for key in ("train_error", "test_error")),
            row["bits"] / 8192,
            row["choice"]["dimension"],
            row["choice"]["levels"],
            row["weights"],
            row["cpu_seconds"],
        ]
        for row in rows
    ]
    columns = [
        *("run", "bound, %", "binomial, %", "vacuous", "train error, %", "test error, %"),
        *("message, KB", "d", "levels", "weights", "CPU s"),
    ]
    parts = [
        "# Certificates",
        "Catoni's bound at 95 %, and the binomial tail at the same confidence. Weights are drawn "
        "from the seed, so nothing but the message depends on the data. CPU seconds of one thread "
        "include training, the check from the file and, for the collapsed network, the fit.",
        markdown_table(columns, cells),
        "![bounds](certify.png)",
    ]
    return "\n\n".join(parts) + "\n"


def picture(rows: list[dict[str, Any]], file: Path) -> None:
    """Bound over dimension for Figure 5.3's three data sets, and for turned and upright digits."""
    from matplotlib.figure import Figure

    panels: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["task"] in ("figure", "rotated"):
            panels.setdefault(row["run"].partition(",")[0], []).append(row)
    if not panels:
        return
    fig = Figure(figsize=(2.6 * len(panels), 2.6), layout="constrained")
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, mine) in zip(axes, panels.items(), strict=True):
        for row in mine:
            tried = sorted(row["tried"], key=lambda point: point["dimension"])
            x = [point["dimension"] for point in tried]
            y = [100 * point["bound"] for point in tried]
            ax.plot(x, y, "o-", label=row["run"].partition(", ")[2])
        ax.axhline(90, color="grey", linewidth=0.8)
        ax.set(title=title, xlabel="d", xscale="log", ylim=(0, 100))
        ax.legend()
    axes[0].set_ylabel("bound, % (grey: guessing)")
    fig.savefig(file, dpi=150)


def main() -> None:
    """Run what is missing, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    one_thread()
    folder = given.out / "certify"
    folder.mkdir(parents=True, exist_ok=True)
    for task in given.tasks:
        for name in RUNS[task]:
            file = folder / f"{task}_{name.replace(', ', '_')}.json"
            if not file.exists():
                found = run(task, name, file.with_suffix(".cert"))
                file.write_text(json.dumps(found, indent=1) + "\n")
                print(file.name, {k: f"{v:.3f}" for k, v in found["bounds"].items()}, flush=True)
            rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
            (given.out / "certify.md").write_text(markdown(rows))
            picture(rows, given.out / "certify.png")


if __name__ == "__main__":
    main()
