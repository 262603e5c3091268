"""Claim: networks of torchvision and timm are the same function after `wrap`, or refused by name.

Every network has random weights and gets two random images of 64x64 (LeNet, the 1-D network and
others their own). It is wrapped twice: all convolutions with the path "conv", and those of the last
stage with "conv" and "ffc" (where that is affordable). Outputs in eval mode and in train mode (with
the same random numbers) and running statistics afterwards are compared, in float32 and float64. The
largest difference, relative to the scale of the tensor, is given in units of what is tolerated:
1e-5 in float32, 1e-12 in float64. Random weights in all relaxed layers must change the outputs, and
survive copying, saving and loading.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.support.harness import RESULTS, Cell, Report
from benchmarks.support.zoo import ZOO, Outcome, examine

LIBRARIES = ("torchvision", "timm")


def row(name: str) -> list[Cell]:
    """Line of the table for one network."""
    start = time.perf_counter()
    try:
        found = examine(ZOO[name])
    except Exception as error:  # the others are still worth a line
        text = str(error).partition("\n")[0]
        found = Outcome(problems=[f"{type(error).__name__}: {text}"])
    verdict = "fails" if found.problems else "same" if found.relaxed else "left alone"
    print(f"{name}: {verdict}, {time.perf_counter() - start:.0f} s", flush=True)
    notes = [note for note in (ZOO[name].trap, *found.problems, *found.notes) if note]
    counts = [found.convs, found.relaxed, found.late]
    return [name, ZOO[name].library, *counts, found.worst, verdict, "; ".join(notes)]


def main(names: Sequence[str], out: Path) -> None:
    """Examine networks and write the table."""
    torch.set_num_threads(1)
    rows = [row(name) for name in names]
    report = Report.described("zoo", __doc__)
    versions = [f"{library} {importlib.metadata.version(library)}" for library in LIBRARIES]
    report.conditions += f" Here with {' and '.join(versions)}."
    report.goal("networks that fail", sum(row[6] == "fails" for row in rows), 0)
    columns = ["network", "from", "convolutions", "conv", "conv+ffc", "worst", "verdict", "notes"]
    report.table("Networks, and convolutions relaxed with these paths", columns, rows)
    report.write(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(ZOO), help="networks; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    main(given.names, given.out)
