"""Claim: rotating the images moves a network's weight from CONV to GCONV paths.

UCI digits in a frame of 12x12 pixels, upright or each turned by a random angle, and a CNN lifted
to the quarter turns (`symlearn.lift`) with the paths ``conv`` and ``gconv`` in every layer. A layer
can become strict on shifts and turns (``gconv``), on shifts alone (``conv``), or mix both.

Two starts, and the fit with the larger evidence is taken, as training data alone can: "strict"
starts from group convolutions and grows convolutions that pay, "fresh" starts from both. All fits
are listed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import symlearn
from benchmarks.support.harness import RESULTS, Cell, environment, markdown_table
from symlearn.datasets import ImageSet, digits, rotated

STARTS = {"strict": "keep", "fresh": "fresh"}
IMAGES = ("upright", "rotated")
PATHS = ("conv", "gconv")
EPOCHS = 30


def images(kind: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Standardised training and test images in a wider frame, which nothing leaves on turning."""
    train, test = (
        replace(part, x=F.pad(part.x, (2, 2, 2, 2)))
        for part in digits().split(1400, 397, seed=seed)
    )
    if kind == "rotated":
        train, test = rotated(train, seed=seed), rotated(test, seed=1000 + seed)
    return train.standardised(), test.standardised(train)


def network(seed: int, width: int = 8) -> nn.Module:
    """Three convolutions with circular padding and a pooled head, on the quarter turns."""
    torch.manual_seed(seed)
    sizes = [1, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers += [nn.Conv2d(c_in, c_out, 3, stride=1 + (i > 0), padding=1), nn.ReLU()]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 10)]
    return symlearn.lift(nn.Sequential(*layers), "p4", width=0.5, seed=seed)


def run(kind: str, start: str, seed: int) -> dict[str, Any]:
    """Figures of one fit."""
    began = time.process_time()
    train, test = images(kind, seed)
    relaxed = symlearn.wrap(
        network(seed),
        train.x[:2],
        paths=PATHS,
        boundary="circular",
        init=STARTS[start],
        seed=seed,
    )
    config = symlearn.FitConfig(epochs=EPOCHS, seed=seed, progress=False)
    result = symlearn.fit(relaxed, train.pair, config)
    return {
        "images": kind,
        "start": start,
        "seed": seed,
        **result.score(test.pair),
        "log_evidence_per_sample": result.report.log_evidence / result.report.n_data,
        "verdicts": [layer.verdict for layer in result.report],
        "relative": [
            {name: layer.paths[name].relative_effective_params for name in PATHS}
            for layer in result.report
        ],
        "seconds": time.process_time() - began,
        "environment": environment(),
    }


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each pair of starts the fit with the larger evidence."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = row["images"], row["seed"]
        if key not in best or row["log_evidence_per_sample"] > best[key]["log_evidence_per_sample"]:
            best[key] = row
    return list(best.values())


def markdown(rows: list[dict[str, Any]]) -> str:
    """Mean and range of the relative effective parameters per layer, and all fits."""
    table: list[list[Cell]] = []
    for kind in IMAGES:
        mine = [row for row in chosen(rows) if row["images"] == kind]
        for layer in range(len(mine[0]["relative"]) if mine else 0):
            cells: list[Cell] = [f"{kind}, layer {layer}", len(mine)]
            for name in PATHS:
                values = [row["relative"][layer][name] for row in mine]
                cells.append(f"{statistics.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})")
            table.append(cells)
    fits: list[list[Cell]] = [
        [
            f"{row['images']}, {row['start']} start, seed {row['seed']}",
            *(row[key] for key in ("log_evidence_per_sample", "accuracy", "nll", "seconds")),
            ", ".join(row["verdicts"]),
        ]
        for row in rows
    ]
    parts = [
        "# Rotation moves weight from CONV to GCONV",
        "Relative effective parameters, mean (min-max) over seeds, in the fit with the larger "
        "evidence of the two starts.",
        markdown_table(["images and layer", "seeds", *PATHS], table),
        "## All fits",
        markdown_table(["fit", "log evidence / N", "accuracy", "NLL", "CPU s", "verdicts"], fits),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.out / "groups"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for kind in IMAGES:
            for start in STARTS:
                file = folder / f"{kind}_{start}_{seed}.json"
                if not file.exists():
                    found = run(kind, start, seed)
                    file.write_text(json.dumps(found, indent=1) + "\n")
                    print(file.name, f"{found['seconds']:.0f} s", found["verdicts"], flush=True)
                rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
                (given.out / "groups.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
