"""``symlearn demo``: both toy tasks on real digits."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from rich.table import Table

from symlearn import demo
from symlearn.cli.arguments import (
    DONE,
    Commands,
    add_epochs,
    add_seed,
    add_threads,
    command,
)
from symlearn.cli.console import Console
from symlearn.cli.outputs import check_folder
from symlearn.fit import FitConfig
from symlearn.report import schema, side_by_side

FORMAT = "symlearn.demo/1"


@dataclass(frozen=True)
class Scores:
    """One model on one task; see `demo.Outcome`."""

    accuracy: float
    nll: float
    log_evidence_per_sample: float
    seconds: float
    epochs: int
    verdicts: dict[str, str]


@dataclass(frozen=True)
class Scored:
    """What came out, for JSON: task -> model -> scores."""

    tasks: dict[str, dict[str, Scores]]


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "demo",
        run,
        about="learn two tasks on the same digits: one wants convolutions, one does not",
        examples={
            "symlearn demo": "on UCI digits, two minutes on one core; writes build/demo/",
            "symlearn demo --data mnist5k --out digits/": "on MNIST digits",
        },
    )
    parser.add_argument(
        "--data", choices=demo.SOURCES, default="digits", help="which digits (default digits)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="build/demo",
        help="folder for reports and pictures (default build/demo)",
    )
    add_epochs(parser)
    add_seed(parser)
    add_threads(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Compare the models on both tasks, print and write the reports."""
    check_folder(options.out, "--out")

    def tell(task: str, name: str, outcome: demo.Outcome) -> None:
        console.say(
            f"{task:9} {name:9} accuracy {outcome.accuracy:.3f}  NLL {outcome.nll:.3f}  "
            f"{outcome.result.report.meta['seconds']} s"
        )

    config = FitConfig(epochs=options.epochs, progress=console.progress)
    outcomes = demo.compare(options.data, config, options.seed, tell)
    learned = {task: rows["learned"].result.report for task, rows in outcomes.items()}
    console.say("\n" + side_by_side(learned))
    console.say(_scores(outcomes))
    written = demo.write(outcomes, options.out)
    scores = {t: {n: Scores(**o.to_dict()) for n, o in r.items()} for t, r in outcomes.items()}
    console.finish(schema.dumps(Scored(scores), FORMAT), "", written)
    return DONE


def _scores(outcomes: dict[str, dict[str, demo.Outcome]]) -> Table:
    table = Table("test set", *(f"{t}: {c}" for t in outcomes for c in ("accuracy", "NLL")))
    for name in demo.MODELS:
        cells = [
            text
            for rows in outcomes.values()
            for text in (f"{100 * rows[name].accuracy:.1f} %", f"{rows[name].nll:.3f}")
        ]
        table.add_row(name, *cells)
    return table
