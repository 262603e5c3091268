"""``symlearn demo``: both toy tasks on real digits."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from symlearn import demo
from symlearn.cli.arguments import Commands, training
from symlearn.fit import FitConfig
from symlearn.report import side_by_side


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("demo", parents=[training()], help="both toy tasks on real digits")
    parser.add_argument("--data", choices=demo.SOURCES, default="digits", help="which digits")
    parser.add_argument("--out", default="build/demo", help="folder for reports and pictures")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    """Compare the models on both tasks, print and write the reports."""

    def tell(task: str, name: str, outcome: demo.Outcome) -> None:
        console.print(
            f"{task:9} {name:9} accuracy {outcome.accuracy:.3f}  NLL {outcome.nll:.3f}  "
            f"{outcome.result.report.meta['seconds']} s"
        )

    outcomes = demo.compare(options.data, FitConfig(epochs=options.epochs), options.seed, tell)
    console.print()
    console.print(
        side_by_side({t: rows["learned"].result.report for t, rows in outcomes.items()}),
        markup=False,
    )
    table = Table("test set", *(f"{t}: {c}" for t in outcomes for c in ("accuracy", "NLL")))
    for name in demo.MODELS:
        cells = [
            text
            for rows in outcomes.values()
            for text in (f"{100 * rows[name].accuracy:.1f} %", f"{rows[name].nll:.3f}")
        ]
        table.add_row(name, *cells)
    console.print(table)
    for path in demo.write(outcomes, options.out):
        console.print(f"wrote {path}", markup=False)
    return 0
