"""A study: many runs, each kept in a file of its own, so that a killed study goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.support.harness import RESULTS, environment
from symlearn.atomic import whole_file

Row = dict[str, Any]


@dataclass
class Study:
    """Runs by name, and how their figures become a page.

    Args:
        name: Name of the folder of runs and of the page.
        docstring: What the study claims and how; the page's head.
        tables: Markdown parts made of all rows.
        picture: Draws all rows into a PNG file.
    """

    name: str
    docstring: str | None
    tables: Callable[[list[Row]], Iterable[str]]
    picture: Callable[[list[Row], Path], None] | None = None
    runs: dict[str, Callable[[], Row]] = field(default_factory=dict)

    def add(self, run: Callable[..., Row], **what: Any) -> None:
        """Add a run; its name and its row are made of its arguments."""
        self.runs["_".join(map(str, what.values()))] = lambda: {**what, **run(**what)}

    def main(self, out: Path = RESULTS, only: str = "") -> None:
        """Run what is missing and write the page after each run.

        Args:
            out: Folder of the results.
            only: Part of the names of the runs to make.
        """
        torch.set_num_threads(1)
        folder = out / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, run in self.runs.items():
            file = folder / f"{name}.json"
            if only not in name or file.exists():
                continue
            began = time.process_time()
            row = run()
            row.update(cpu_seconds=time.process_time() - began, environment=environment())
            _write(file, json.dumps(row, indent=1) + "\n")
            print(f"{name}: {row['cpu_seconds']:.0f} s", flush=True)
            self.write(out)
        self.write(out)

    def rows(self, out: Path = RESULTS) -> list[Row]:
        """The rows of all finished runs of this study, in the order of the runs."""
        files = {name: out / self.name / f"{name}.json" for name in self.runs}
        return [json.loads(file.read_text()) for file in files.values() if file.exists()]

    def write(self, out: Path) -> None:
        """Write the page, and the picture if there is one."""
        rows = self.rows(out)
        if not rows:
            return
        first, _, rest = (self.docstring or "").partition("\n")
        claim = first.removeprefix("Claim: ").removesuffix(".")
        parts = [f"# {claim[:1].upper() + claim[1:]}", rest.strip(), *self.tables(rows)]
        picture = out / f"{self.name}.png"
        if self.picture is not None:
            self.picture(rows, picture)
        if picture.exists():
            parts.append(f"![The runs in a picture]({picture.name})")
        facts: Mapping[str, str] = rows[-1]["environment"]
        parts.append("\n".join(f"* {key}: {value}" for key, value in facts.items()))
        _write(out / f"{self.name}.md", "\n\n".join(part for part in parts if part) + "\n")


def _write(path: Path, text: str) -> None:
    with whole_file(path) as draft:
        draft.write_text(text)


def pick(rows: Iterable[Row], **what: Any) -> list[Row]:
    """The rows with the given entries."""
    return [row for row in rows if all(row[key] == value for key, value in what.items())]


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds, as text."""
    found = list(values)
    if len(found) < 2:
        return f"{found[0]:.{digits}f}" if found else "-"
    return f"{fmean(found):.{digits}f} ± {stdev(found):.{digits}f}"


def options(docstring: str | None, seeds: int = 3, **extra: dict[str, Any]) -> argparse.Namespace:
    """Command line of a study: ``--seeds``, ``--only``, ``--out`` and the given options.

    Args:
        docstring: The study's; its first line is shown.
        seeds: Number of seeds if none are given.
        extra: Name of an option to the keyword arguments of ``add_argument``.
    """
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds)))
    parser.add_argument("--only", default="", help="part of the names of the runs to make")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for name, settings in extra.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()
