"""Claim: with one set of defaults, the verdict follows the task, for every seed.

The same pictures, network and code; only the labels differ. Defaults were chosen on one half of
MNIST-5k; this study reports on UCI digits and on the other half. Rows:

* learned, from scratch, strictly shift-equivariant (``boundary="circular"``), both tasks;
* MAP-CONV and MAP-FC on both tasks (the baselines);
* continued: a run on *digit* labels whose weights and precisions go on with *quadrant* labels;
* pretrained: a plain CNN with circular padding, trained by MAP, then wrapped keeping its function.

Run all seeds: ``python benchmarks/study_verdicts.py``; some: ``--seeds 0 1 --sources digits``.
Finished rows are kept in ``benchmarks/results/verdicts.json``, so that a run can be resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import symlearn
from symlearn import FitConfig, demo
from symlearn.datasets import ImageSet, mnist5k, shrink
from symlearn.models import small_cnn

RESULTS = Path(__file__).parent / "results"
CONFIG = FitConfig(progress=False)


def load(source: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test digits: UCI, or the half of MNIST-5k that no default was chosen on."""
    if source == "digits":
        return demo.load("digits", seed)
    _, untouched = shrink(mnist5k(), 20, 8).split(2500, 2500, seed=7)
    train, test = untouched.split(2000, 500, seed=seed)
    return train, test


def row(result: symlearn.FitResult, test: ImageSet) -> dict[str, Any]:
    """Figures of one fit."""
    report = result.report
    return {
        **result.score(test.pair),
        "log_evidence_per_sample": report.log_evidence / report.n_data,
        "seconds": report.meta["seconds"],
        "verdicts": [layer.verdict for layer in report],
        "relative_ffc": [
            round(layer.paths["ffc"].relative_effective_params, 3) if "ffc" in layer.paths else None
            for layer in report
        ],
        "without": {k: v for k, v in report.meta.items() if k.startswith("without")},
        "subsampling": symlearn.Circular().phase,  # the default that circular rows use
    }


def baseline(name: str, task: str) -> Callable[[str, int], dict[str, Any]]:
    """A row of the demo's table."""

    def run(source: str, seed: int) -> dict[str, Any]:
        train, test = demo.make_task(task, *load(source, seed), seed)
        return row(demo.run(name, train, test, CONFIG, seed).result, test)

    return run


def continued(source: str, seed: int) -> dict[str, Any]:
    """Digit labels first, then quadrant labels from the learned weights and precisions."""
    train, _ = demo.make_task("digit", *load(source, seed), seed)
    cnn = small_cnn(40, seed=seed)
    relaxed = symlearn.wrap(cnn, train.x[:2], boundary="circular", seed=seed)
    first = symlearn.fit(relaxed, train.pair, replace(CONFIG, seed=seed))
    train, test = demo.make_task("quadrant", *load(source, seed), seed)
    second = symlearn.fit(first.model, train.pair, replace(CONFIG, seed=seed), resume=first)
    return {**row(second, test), "verdicts_before": [layer.verdict for layer in first.report]}


def wrapped(task: str, pretrained: bool) -> Callable[[str, int], dict[str, Any]]:
    """A plain circular CNN, wrapped keeping its function: pretrained by MAP, or not."""

    def run(source: str, seed: int) -> dict[str, Any]:
        train, test = demo.make_task(task, *load(source, seed), seed)
        cnn: nn.Module = small_cnn(train.classes, padding_mode="circular", seed=seed)
        config = replace(CONFIG, seed=seed)
        if pretrained:
            alone = symlearn.wrap(cnn, train.x[:2], paths="conv")
            mapped = symlearn.fit(alone, train.pair, replace(config, objective="map"))
            cnn = mapped.collapse()
        result = symlearn.fit(symlearn.wrap(cnn, train.x[:2]), train.pair, config)
        return row(result, test)

    return run


ROWS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    **{f"{name} {task}": baseline(name, task) for task in demo.TASKS for name in demo.MODELS},
    "continued digit to quadrant": continued,
    **{f"plain wrapped {task}": wrapped(task, pretrained=False) for task in demo.TASKS},
    **{f"pretrained wrapped {task}": wrapped(task, pretrained=True) for task in demo.TASKS},
}


def markdown(results: dict[str, Any]) -> str:
    """The results as one table per data source."""
    lines = ["# Verdicts by task and seed", ""]
    lines += [f"{key}: {value}  " for key, value in results["environment"].items()]
    for source in sorted({key.split("|")[0] for key in results["rows"]}):
        lines += [
            "",
            f"## {source}",
            "",
            "| row | seed | subsampling | accuracy | NLL | log evidence / N | seconds | verdicts |",
            "|---|---:|---|---:|---:|---:|---:|---|",
        ]
        for key, r in results["rows"].items():
            where, name, seed = key.split("|")
            if where == source:
                lines.append(
                    f"| {name} | {seed} | {r['subsampling']} | {r['accuracy']:.3f} | "
                    f"{r['nll']:.3f} | {r['log_evidence_per_sample']:.3f} | {r['seconds']:.0f} | "
                    f"{', '.join(r['verdicts'])} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument(
        "--sources", nargs="+", choices=("digits", "mnist5k"), default=["digits", "mnist5k"]
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path, default=RESULTS / "verdicts.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(exist_ok=True)
    results: dict[str, Any] = {"rows": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text())
    results["environment"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
    }
    for source in options.sources:
        for seed in options.seeds:
            for name in options.rows:
                key = f"{source}|{name}|{seed}"
                if key not in results["rows"]:
                    results["rows"][key] = ROWS[name](source, seed)
                    options.out.write_text(json.dumps(results, indent=1) + "\n")
                    options.out.with_suffix(".md").write_text(markdown(results))
                    shown = results["rows"][key]
                    print(key, f"{shown['accuracy']:.3f}", shown["verdicts"], flush=True)


if __name__ == "__main__":
    main()
