"""Claim: L-conv is best on scrambled images and a CNN on images as they are.

Figure 2 of the L-conv paper and its supplement, smaller: MNIST and Fashion-MNIST averaged to 12x12
pixels, 4000 training and 5000 test images, as they are (default), each turned by a random angle
(rotated), with all pixels in one random order (scrambled), and both. Networks have one hidden layer
and a linear head:

* ``lconv``: the identity and eight learned generators of rank 16, 16 channels, ReLU;
* ``random``: the same with generators that stay as they were drawn;
* ``cnn``: windows of 3x3, padded with zeros, ReLU;
* ``fc``: hidden units that see all pixels, ReLU.

All four train as many parameters as ``lconv`` does, by their number of channels or units (in the
paper, all but ``fc`` have 32 channels, and ``lconv`` so has more parameters). All are trained by
Adam for 15 epochs, with a rate chosen for each network from three, by the accuracy on
validation images of another seed, of Fashion-MNIST as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import nn

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.study import Row, Study, options, pick, spread
from benchmarks.support.training import accuracy, best_rates, train_by_adam, trained
from symlearn.datasets import ImageSet, fashion_mnist, mnist, permuted, rotated, shrink
from symlearn.paths import LConv

SOURCES: dict[str, Callable[[], tuple[ImageSet, ImageSet]]] = {
    "mnist": mnist,
    "fashion": fashion_mnist,
}
VARIANTS = ("default", "rotated", "scrambled", "rotated+scrambled")
COLOURS = {"lconv": "#0072B2", "random": "#56B4E9", "cnn": "#E69F00", "fc": "#999999"}
MODELS = tuple(COLOURS)
RATES = (0.001, 0.003, 0.01)
SIDE, CLASSES, EPOCHS, BATCH = 12, 10, 15, 50
N_TRAIN, N_VALIDATION, N_TEST = 4000, 2000, 5000
CHANNELS, GENERATORS, RANK = 16, 8, 16
CHOOSING_SEED = 100
PERMUTATION = 0


def images(source: str, variant: str, part: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training images, and those to judge on: "validate" or "test"; both standardised."""
    train, test = SOURCES[source]()
    train, validation = train.split(N_TRAIN, N_VALIDATION, seed=seed)
    judged = validation if part == "validate" else test.split(N_TEST, seed=0)[0]
    parts = [shrink(images, 28, SIDE) for images in (train, judged)]
    if "rotated" in variant:
        draws = (seed, 1000)
        parts = [rotated(images, seed=draw) for images, draw in zip(parts, draws, strict=True)]
    if "scrambled" in variant:
        parts = [permuted(images, seed=PERMUTATION) for images in parts]
    return parts[0].standardised(), parts[1].standardised(parts[0])


def network(model: str, seed: int) -> nn.Module:
    """One hidden layer and a linear head, with as many trained parameters as ``lconv`` has."""
    torch.manual_seed(seed)
    if model == "lconv":
        return _lconv(CHANNELS, seed)
    wanted = trained(_lconv(CHANNELS, seed))
    sites = SIDE**2
    if model == "fc":
        units = round((wanted - CLASSES) / (sites + 1 + CLASSES))
        hidden, read = [nn.Flatten(), nn.Linear(sites, units), nn.ReLU()], units
        return nn.Sequential(*hidden, nn.Linear(read, CLASSES))
    taps = GENERATORS + 1  # as many as a window of 3x3 has
    channels = round((wanted - CLASSES) / (taps + 1 + sites * CLASSES))
    if model == "cnn":
        return _one_hidden(channels)
    net = _lconv(channels, seed)
    for name, p in net.named_parameters():
        p.requires_grad_(not name.endswith(("U.weight", "V.weight")))
    return net


def _one_hidden(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(1, channels, 3, padding=1)
    head = nn.Linear(channels * SIDE**2, CLASSES)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head)


def _lconv(channels: int, seed: int) -> nn.Module:
    path = LConv(GENERATORS, rank=RANK)
    example = torch.zeros(2, 1, SIDE, SIDE)
    return symlearn.wrap(_one_hidden(channels), example, paths=path, init="fresh", seed=seed)


def run(part: str, source: str, variant: str, model: str, rate: float, seed: int) -> Row:
    """Accuracies of one network."""
    train, judged = images(source, variant, part, seed)
    net = network(model, seed)
    train_by_adam(net, train.pair, rate, epochs=EPOCHS, batch=BATCH, seed=seed)
    return {
        "accuracy": accuracy(net, judged),
        "train_accuracy": accuracy(net, train),
        "parameters": trained(net),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """Test accuracies, which network is best, and the networks."""
    final = pick(rows, part="test")
    models = [model for model in MODELS if pick(final, model=model)]
    body: list[list[Cell]] = []
    claims: list[list[Cell]] = []
    for source in SOURCES:
        for variant in VARIANTS:
            mine = pick(final, source=source, variant=variant)
            if not mine:
                continue
            by_model = {m: [row["accuracy"] for row in pick(mine, model=m)] for m in models}
            body.append([source, variant, *(spread(by_model[m]) for m in models)])
            claims.append([source, variant, *_claim(variant, mine)])
    if body:
        yield "## Test accuracy, mean and standard deviation over seeds"
        yield markdown_table(["images", "variant", *models], body)
        yield "## Whether the paper's best network is best"
        yield markdown_table(
            ["images", "variant", "paper", "here", "seeds in which it holds"], claims
        )
    yield "## Networks"
    networks = [_network_facts(rows, model) for model in MODELS if pick(rows, model=model)]
    yield markdown_table(["network", "trained parameters", "rate", "CPU s"], networks)


def _claim(variant: str, rows: list[Row]) -> list[Cell]:
    """The paper's best network, the best here by the mean, and the seeds that agree."""
    claimed = "cnn" if variant == "default" else "lconv"
    found = {(row["model"], row["seed"]): row["accuracy"] for row in rows}
    seeds = [s for s in dict.fromkeys(s for _, s in found) if all((m, s) in found for m in MODELS)]
    if not seeds:
        return [claimed, "-", "-"]
    best = max(MODELS, key=lambda m: fmean(found[m, s] for s in seeds))
    holds = [all(found[m, s] <= found[claimed, s] for m in MODELS) for s in seeds]
    return [claimed, best, f"{sum(holds)} of {len(seeds)}"]


def _network_facts(rows: list[Row], model: str) -> list[Cell]:
    mine = pick(rows, model=model)
    seconds = fmean(row["cpu_seconds"] for row in mine)
    return [model, mine[0]["parameters"], _rates(rows).get(model, "-"), seconds]


def _rates(rows: list[Row]) -> dict[str, float]:
    return best_rates(rows, MODELS, RATES)


def picture(rows: list[Row], file: Path) -> None:
    """Accuracies as bars, a panel for each data set, and the numbers of parameters."""
    from matplotlib.figure import Figure

    final = pick(rows, part="test")
    if not final:
        return
    fig = Figure(figsize=(11, 3.2), layout="constrained")
    *panels, last = fig.subplots(1, len(SOURCES) + 1, width_ratios=[3] * len(SOURCES) + [1])
    for ax, source in zip(panels, SOURCES, strict=True):
        _bars(ax, pick(final, source=source))
        ax.set(title=source, ylabel="test accuracy, %")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    numbers = {row["model"]: row["parameters"] for row in final}
    last.bar(list(numbers), list(numbers.values()), color=[COLOURS[m] for m in numbers])
    last.tick_params(axis="x", rotation=45)
    last.set_title("parameters")
    fig.savefig(file, dpi=150)


def _bars(ax: Any, rows: list[Row]) -> None:
    """A bar for each network in each variant; its error is the deviation over seeds."""
    for i, model in enumerate(MODELS):
        found = {
            j: [100 * row["accuracy"] for row in pick(rows, variant=variant, model=model)]
            for j, variant in enumerate(VARIANTS)
        }
        found = {j: values for j, values in found.items() if values}
        ax.bar(
            [j + (i - 1.5) / 5 for j in found],
            [fmean(values) for values in found.values()],
            yerr=[stdev(values) if len(values) > 1 else 0.0 for values in found.values()],
            width=0.19,
            capsize=2,
            color=COLOURS[model],
            label=model,
        )
    ax.set_xticks(range(len(VARIANTS)), [v.replace("+", "\n+ ") for v in VARIANTS])
    ax.set_ylim(max(0, min((100 * row["accuracy"] for row in rows), default=0) - 10), 100)


def main() -> None:
    """Choose the rates, run what is missing and write the page."""
    given = options(__doc__)
    study = Study("lconv", __doc__, tables, picture)
    for model in MODELS:
        for rate in RATES:
            what = {"part": "validate", "source": "fashion", "variant": "default"}
            study.add(run, **what, model=model, rate=rate, seed=CHOOSING_SEED)
    study.main(given.out, given.only)
    rates = _rates(study.rows(given.out))
    for seed in given.seeds:
        for source in SOURCES:
            for variant in VARIANTS:
                what = {"part": "test", "source": source, "variant": variant}
                for model, rate in rates.items():
                    study.add(run, **what, model=model, rate=rate, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
