"""Claim: deciding early loses nothing against slow settings beyond the noise of seeds.

Default options against slow ones (evidence every epoch with the exact estimator, a fixed burn-in,
no early stop) at the same number of epochs, and on the toy tasks the published schedule to its end
(not among the stored results):

* toy: the demo's two tasks on UCI digits;
* fashion: 10,000 images of Fashion-MNIST, the paper's network with alpha = 4 and both paths, 20
  epochs; the slow settings sketch here as well.

Mean and standard deviation over seeds; CPU seconds on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options, pick, spread
from benchmarks.support.toy import fit_for, load, relaxed, right_since
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet, fashion_mnist
from symlearn.models import paper_cnn

SLOW: dict[str, Any] = {
    **{"evidence_every": 1, "evidence_pause": 1, "estimator": "exact"},
    **{"early_start": False, "early_stop": False},
}
FIGURES = {
    "log_evidence_per_sample": "log evidence / N",
    "nll": "NLL",
    "accuracy": "accuracy",
    "seconds": "CPU s",
}
FASHION: dict[str, Any] = {"epochs": 20, "batch_size": 64}


def configs(task: str) -> dict[str, Callable[[int], FitConfig]]:
    """The settings of a task: name to options for a seed."""
    shared: dict[str, Any] = {"progress": False, "report_draws": 10}
    own = {**shared, **(FASHION if task == "fashion" else {})}
    slow = {**own, **SLOW}
    if task == "fashion":  # nine backward passes of this network at each epoch take an hour
        slow["estimator"] = "sketch"
    found: dict[str, Callable[[int], FitConfig]] = {
        "default": lambda seed: FitConfig(**own, seed=seed),
        "slow": lambda seed: FitConfig(**slow, seed=seed),
    }
    if task != "fashion":
        found["published"] = lambda seed: FitConfig.published(**shared, seed=seed)
    return found


def problem(task: str, setting: str, seed: int) -> tuple[nn.Module, ImageSet, ImageSet]:
    """The relaxed network, training images and test images."""
    options = {"init": "fresh", "tie": "tensor"} if setting == "published" else {}
    if task != "fashion":
        train, test = load("digits", task, seed)
        return relaxed(train, seed, **options), train, test
    everything, test = fashion_mnist()
    train, _ = everything.split(10_000, len(everything) - 10_000, seed=seed)
    train, test = (_padded(images) for images in (train.standardised(), test.standardised(train)))
    return paper_cnn("ffc+conv", alpha=4, in_channels=1, seed=seed), train, test


def _padded(images: ImageSet) -> ImageSet:
    """Images of 32x32: two pixels more on each side."""
    x = F.pad(images.x, (2, 2, 2, 2), value=float(images.x.min()))
    return ImageSet(x, images.y, images.classes, images.name)


def run(task: str, setting: str, seed: int) -> Row:
    """Figures of one fit."""
    torch.manual_seed(seed)
    model, train, test = problem(task, setting, seed)
    config = configs(task)[setting](seed)
    result, steps, seconds = fit_for(model, train, config, float("inf"))
    report = result.report
    return {
        "epochs": len(result.history),
        "log_evidence_per_sample": report.log_evidence / report.n_data,
        **result.score(test.pair),
        "verdicts": [layer.verdict for layer in report],
        "right_since": None if task == "fashion" else right_since(task, steps),
        "seconds": seconds,
        "evidence_steps": len(steps),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """One table of means over seeds, and one of all runs."""
    keys, heads = list(FIGURES), list(FIGURES.values())
    means: list[list[Cell]] = []
    for task, setting in dict.fromkeys((row["task"], row["setting"]) for row in rows):
        mine = pick(rows, task=task, setting=setting)
        figures = [spread(row[key] for row in mine) for key in keys]
        means.append([f"{task}, {setting}", len(mine), *figures])
    yield markdown_table(["task and settings", "seeds", *heads], means)
    yield "## All runs"
    runs: list[list[Cell]] = [
        [
            f"{row['task']}, {row['setting']}, seed {row['seed']}",
            *(row[key] for key in ("epochs", *keys)),
            "-" if row["right_since"] is None else row["right_since"],
            ", ".join(row["verdicts"]),
        ]
        for row in rows
    ]
    yield markdown_table(["run", "epochs", *heads, "right since, s", "verdicts"], runs)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__)
    picture = bar_picture(lambda row: row["task"], lambda row: row["setting"], FIGURES)
    study = Study("early", __doc__, tables, picture)
    for seed in given.seeds:
        for task in (*demo.TASKS, "fashion"):
            for setting in configs(task):
                study.add(run, task=task, setting=setting, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
