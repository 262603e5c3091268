"""Claim: evidence weighs an equivariant against a free pathway as the data ask for.

Residual pathway priors (Finzi's thesis, chapter 3) whose two variances are learned by the evidence
rather than set by hand, on networks of relaxed layers (`symlearn.relaxed_mlp`): ``rpp`` has the
paths ``emlp`` and ``fc``, ``emlp`` and ``fc`` one of them, all fitted in the same way. Errors are
mean squared test errors, of targets scaled to mean square one.

* Levels of symmetry, as in Figure 3.2: the double spring pendulum's vector field (300 states, one
  hidden layer of 24 channels), and the smallest task of the kind (`twist`).
* Data sizes, as in Figure 2.5: the O(5)-invariant function; ``augmented`` is ``fc`` on eight
  randomly rotated copies of the data.
* Tables, as in Table 3.1: sets of scikit-learn, beside cyclic shifts of their columns.

Smaller networks and data, and more epochs per step, than the thesis has: compare rows, not figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

import symlearn
from benchmarks.support.harness import markdown_table
from benchmarks.support.study import Row, Study, options, spread
from symlearn.datasets import SYMMETRIES, TABLES, VectorTask, o5, pendulum, tabular, twist

MODELS = {"emlp": ("emlp",), "fc": ("fc",), "rpp": ("emlp", "fc"), "augmented": ("fc",)}
SIZES = (100, 300, 1000)
COPIES = 8


def task_of(name: str, variant: str, seed: int) -> tuple[VectorTask, VectorTask]:
    """Training and test part of a task."""
    if name == "table":
        task = tabular(variant, seed)
        sizes = (round(0.7 * len(task)), len(task) - round(0.7 * len(task)))
    elif name == "o5":
        sizes = (int(variant), 1000)
        task = o5(sum(sizes), seed)
    else:
        sizes = (300, 1000)
        make = pendulum if name == "pendulum" else twist
        task = make(sum(sizes), seed, symmetry=variant)
    train, test = task.split(*sizes)
    return train, test


def augmented(task: VectorTask, seed: int) -> VectorTask:
    """The task with randomly moved copies of its samples."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = [task.x], [task.y]
    rep_in, rep_out = task.rep_in(task.group), task.rep_out
    for _ in range(COPIES - 1):
        moved = [task.group.sample(generator) for _ in range(len(task))]
        xs.append(torch.stack([rep_in.rho(g) @ x for g, x in zip(moved, task.x, strict=True)]))
        acting = [rep_out.rho(g) for g in moved]
        ys.append(torch.stack([a @ y for a, y in zip(acting, task.y, strict=True)]))
    return replace(task, x=torch.cat(xs), y=torch.cat(ys))


def run(name: str, variant: str, model: str, seed: int) -> Row:
    """Error, evidence and verdicts of one fit."""
    train, test = task_of(name, variant, seed)
    train = train.scaled()
    test = test.scaled(train)
    if model == "augmented":
        train = augmented(train, seed)
    net = symlearn.relaxed_mlp(
        train.rep_in,
        train.rep_out,
        train.group,
        width={"o5": 32}.get(name, 24),
        depth=0 if name == "twist" else 1,
        paths=MODELS[model],
        seed=seed,
    )
    steps = max(1, -(-len(train) // 50))
    config = symlearn.FitConfig(
        epochs=max(20, 2000 // steps),
        seed=seed,
        likelihood="gaussian",
        noise=0.1,
        batch_size=50,
        learning_rate=0.01,
        burn_in=0.2,
        anneal=0.3,
        evidence_pause=2,
        patience=60,
        check_images=0,
        progress=False,
    )
    result = symlearn.fit(net, train.pair, config)
    x, y = test.pair
    with torch.no_grad():
        error = float((result.model(x) - y).square().mean())
    return {
        "error": error,
        "log_evidence_per_sample": result.log_evidence / len(train),
        "verdicts": [layer.verdict for layer in result.report],
        "noise": getattr(result.likelihood, "noise", None),
    }


def tables(rows: list[Row]) -> Iterable[str]:
    """One table per task: errors of all models, and verdicts of the one with both paths."""
    for name, title in (
        ("twist", "Levels of symmetry: a linear map of the plane"),
        ("pendulum", "Levels of symmetry: the double spring pendulum"),
        ("o5", "Data sizes: an O(5)-invariant function"),
        ("table", "Tables without a symmetry"),
    ):
        mine = [row for row in rows if row["name"] == name]
        models = [m for m in MODELS if any(row["model"] == m for row in mine)]
        body = [
            [variant, *_cells(mine, variant, models)]
            for variant in dict.fromkeys(row["variant"] for row in mine)
        ]
        if body:
            yield f"## {title}"
            yield markdown_table(["data", *models, "verdicts of rpp, layer by layer"], body)


def _cells(rows: list[Row], variant: str, models: list[str]) -> list[Any]:
    mine = [row for row in rows if row["variant"] == variant]
    cells: list[Any] = []
    for model in models:
        errors = [row["error"] for row in mine if row["model"] == model]
        cells.append(spread(errors, 5 if errors and fmean(errors) < 0.1 else 3))
    found = [", ".join(row["verdicts"]) for row in mine if row["model"] == "rpp"]
    return [*cells, "; ".join(f"{found.count(v)}x {v}" for v in dict.fromkeys(found))]


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__)
    study = Study("emlp", __doc__, tables)
    for seed in given.seeds:
        for name in ("twist", "pendulum"):
            for variant in SYMMETRIES:
                for model in ("emlp", "fc", "rpp"):
                    study.add(run, name=name, variant=variant, model=model, seed=seed)
        for table in TABLES:
            for model in ("emlp", "fc", "rpp"):
                study.add(run, name="table", variant=table, model=model, seed=seed)
        for size in SIZES:
            for model in ("emlp", "fc", "augmented", "rpp"):
                study.add(run, name="o5", variant=str(size), model=model, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
