"""Claim: evidence prefers convolutions, and generators that are learned once pixels are scrambled.

UCI digits, as they are or with all pixels in one random order, the same for all images, which
nobody tells the network. The plain CNN of `symlearn.demo` (four layers, a pooled head) is relaxed
to the paths ``conv`` (windows of 3x3), ``lconv`` (the identity and four learned generators of rank
8 per layer), or both, from fresh weights; each is fitted on the evidence for 25 epochs.

* ``placed``: each digit is in one of four quadrants of a 16x16 canvas (paper on layer-wise
  equivariance, Sec. 6.1), so that the images have a symmetry, which scrambling hides;
* ``centred``: 8x8 images in which digits are where they always are.

A convolution is one of few maps, and cheap by the evidence where windows are what the task needs;
generators of rank 8 can be any map of low rank, and pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, pick, spread
from symlearn import demo
from symlearn.datasets import ImageSet, permuted
from symlearn.models import small_cnn

TASKS = ("placed", "centred")
PIXELS = ("ordered", "scrambled")
PATHS = {"conv": ("conv",), "lconv": ("lconv",), "conv+lconv": ("conv", "lconv")}
EPOCHS = 25


def images(task: str, pixels: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images, standardised."""
    train, test = demo.load("digits", seed)
    if task == "placed":
        train, test = demo.make_task("digit", train, test, seed)
    if pixels == "scrambled":
        train, test = permuted(train, seed=0), permuted(test, seed=0)
    return train.standardised(), test.standardised(train)


def run(seed: int, task: str, pixels: str, paths: str) -> Row:
    """Evidence and verdicts of one fit."""
    train, test = images(task, pixels, seed)
    cnn = small_cnn(train.classes, seed=seed)
    relaxed = symlearn.wrap(cnn, train.x[:2], paths=PATHS[paths], init="fresh", seed=seed)
    config = symlearn.FitConfig(epochs=EPOCHS, seed=seed, check_images=0, progress=False)
    result = symlearn.fit(relaxed, train.pair, config)
    return {
        **result.score(test.pair),
        "log_evidence_per_sample": result.log_evidence / len(train),
        "verdicts": [layer.verdict for layer in result.report],
        "parameters": result.report.n_params,
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """Evidence by task, pixels and paths, what wins in how many seeds, and all verdicts."""
    evidence: list[list[Cell]] = []
    accuracy: list[list[Cell]] = []
    verdicts: list[list[Cell]] = []
    for task in TASKS:
        for pixels in PIXELS:
            mine = pick(rows, task=task, pixels=pixels)
            if not mine:
                continue
            by_paths = {paths: pick(mine, paths=paths) for paths in PATHS}
            cells = [
                [spread(row[key] for row in found) for found in by_paths.values()]
                for key in ("log_evidence_per_sample", "accuracy")
            ]
            evidence.append([task, pixels, *cells[0], _preferred(mine)])
            accuracy.append([task, pixels, *cells[1]])
            verdicts += [
                [task, pixels, row["seed"], ", ".join(row["verdicts"])]
                for row in by_paths["conv+lconv"]
            ]
    heads = ["images", "pixels", *PATHS]
    yield "## Log evidence per image, mean and standard deviation over seeds"
    yield markdown_table([*heads, "lconv before conv"], evidence)
    yield "## Test accuracy"
    yield markdown_table(heads, accuracy)
    yield "## Verdicts where a layer has both paths, layer by layer"
    yield markdown_table(["images", "pixels", "seed", "verdicts"], verdicts)
    yield "## Networks"
    sizes: list[list[Cell]] = [
        [
            task,
            *(next((r["parameters"] for r in pick(rows, task=task, paths=p)), "-") for p in PATHS),
        ]
        for task in TASKS
    ]
    yield markdown_table(["parameters", *PATHS], sizes)


def _preferred(rows: list[Row]) -> str:
    """In how many seeds the evidence of lconv is larger than that of conv."""
    found = {(row["paths"], row["seed"]): row["log_evidence_per_sample"] for row in rows}
    seeds = [seed for paths, seed in found if paths == "conv" and ("lconv", seed) in found]
    won = [seed for seed in seeds if found["lconv", seed] > found["conv", seed]]
    return f"{len(won)} of {len(seeds)} seeds"


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__)
    panels = {"log_evidence_per_sample": "log evidence / N", "accuracy": "test accuracy"}
    images = "{task}, {pixels}".format_map
    picture = bar_picture(images, lambda row: row["paths"], panels)
    study = Study("scrambled", __doc__, tables, picture)
    for task in TASKS:
        for seed in given.seeds:
            for pixels in PIXELS:
                for paths in PATHS:
                    study.add(run, seed=seed, task=task, pixels=pixels, paths=paths)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
