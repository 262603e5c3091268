"""``symlearn screen``: which absent path would pay in which layer, without training any."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from symlearn.cli.arguments import (
    DONE,
    Commands,
    add_images,
    add_model,
    add_paths,
    command,
)
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.results import trained
from symlearn.report import schema
from symlearn.screen import SAMPLES, ScreenRow, screen

FORMAT = "symlearn.screen/1"


@dataclass(frozen=True)
class Screened:
    """What came out, for JSON: the rows, the largest gain first."""

    rows: tuple[ScreenRow, ...]


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "screen",
        run,
        about="rank the paths that a trained network lacks by the evidence; train nothing",
        examples={
            "symlearn screen plain.safetensors --data digits:test": "a collapsed network",
            "symlearn screen mine:trained --data images.npz --paths ffc,fc": "your own",
        },
    )
    add_model(parser)
    add_images(parser, required=True)
    add_paths(parser, "ffc")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table."""
    given = prepared(options.data, options)
    found = screen(
        trained(given, options),
        given.pair,
        paths=options.paths,
        layers=options.layers,
        samples=SAMPLES if options.samples is None else options.samples,
        seed=options.seed,
    )
    console.say(str(found))
    paying = "\n".join(f"{row.layer} {row.path}" for row in found if row.pays)
    console.finish(schema.dumps(Screened(tuple(found)), FORMAT), paying)
    return DONE
