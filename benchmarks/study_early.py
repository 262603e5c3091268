"""Claim: deciding early loses nothing against slow settings beyond the noise of seeds.

Default options against slow ones (evidence every epoch with the exact estimator, a fixed burn-in,
no early stop) at the same number of epochs, and on the toy tasks the published schedule to its end:

* toy: the demo's two tasks on UCI digits;
* fashion: 10,000 images of Fashion-MNIST, the paper's network with alpha = 4 and both paths, 20
  epochs; the slow settings sketch here as well.

Each run writes a JSON of its own under ``results/early``, so that the study can be resumed and
shared out; the table holds all runs that are there. Some runs: ``python benchmarks/study_early.py
--tasks digit --settings default slow --seeds 0``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.support.harness import RESULTS, Cell, environment, markdown_table
from benchmarks.support.toy import fit_for, load, one_thread, relaxed, right_since
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet, fashion_mnist
from symlearn.models import paper_cnn

SLOW: dict[str, Any] = {
    **{"evidence_every": 1, "evidence_pause": 1, "estimator": "exact"},
    **{"early_start": False, "early_stop": False},
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


def run(task: str, setting: str, seed: int) -> dict[str, Any]:
    """Figures of one fit."""
    model, train, test = problem(task, setting, seed)
    config = configs(task)[setting](seed)
    result, steps, seconds = fit_for(model, train, config, float("inf"))
    report = result.report
    return {
        "task": task,
        "setting": setting,
        "seed": seed,
        "epochs": len(result.history),
        "log_evidence_per_sample": report.log_evidence / report.n_data,
        **result.score(test.pair),
        "verdicts": [layer.verdict for layer in report],
        "right_since": None if task == "fashion" else right_since(task, steps),
        "seconds": seconds,
        "evidence_steps": len(steps),
        "environment": environment(),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """One table of means over seeds, and one of all runs."""
    means: list[list[Cell]] = []
    for task, setting in sorted({(row["task"], row["setting"]) for row in rows}):
        mine = [row for row in rows if (row["task"], row["setting"]) == (task, setting)]
        means.append([f"{task}, {setting}", len(mine)])
        for key in ("log_evidence_per_sample", "nll", "accuracy", "seconds"):
            values = [row[key] for row in mine]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            means[-1].append(f"{statistics.mean(values):.3f} +- {spread:.3f}")
    runs: list[list[Cell]] = [
        [
            f"{row['task']}, {row['setting']}, seed {row['seed']}",
            *(row[key] for key in ("epochs", "log_evidence_per_sample", "nll", "accuracy")),
            row["seconds"],
            "-" if row["right_since"] is None else row["right_since"],
            ", ".join(row["verdicts"]),
        ]
        for row in rows
    ]
    figures = ["log evidence / N", "NLL", "accuracy", "CPU s"]
    parts = [
        "# Deciding early against slow settings",
        "Mean and standard deviation over seeds; CPU seconds on one thread.",
        markdown_table(["task and settings", "seeds", *figures], means),
        "## All runs",
        markdown_table(["run", "epochs", *figures, "right since, s", "verdicts"], runs),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    tasks = [*demo.TASKS, "fashion"]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    settings = ["default", "slow", "published"]
    parser.add_argument("--settings", nargs="+", choices=settings, default=settings)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    one_thread()
    folder = given.out / "early"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for task in given.tasks:
            for setting in given.settings:
                file = folder / f"{task}_{setting}_{seed}.json"
                if setting in configs(task) and not file.exists():
                    torch.manual_seed(seed)
                    found = run(task, setting, seed)
                    file.write_text(json.dumps(found, indent=1) + "\n")
                    print(file.name, f"{found['seconds']:.0f} s", found["verdicts"], flush=True)
                rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
                (given.out / "early.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
