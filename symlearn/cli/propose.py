"""``symlearn propose``: what to build into a network: paths that pay, and what it ignores."""

from __future__ import annotations

import argparse

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
from symlearn.cli.outputs import check_file, keep
from symlearn.cli.results import trained
from symlearn.paths import PATHS
from symlearn.propose import propose
from symlearn.screen import SAMPLES


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "propose",
        run,
        about="propose what to build into a trained network, by evidence and by invariance",
        examples={
            "symlearn propose plain.safetensors --data digits:test": "a collapsed network",
            "symlearn propose mine:trained --data images.npz --paths ffc --out p.json": "your own",
        },
    )
    add_model(parser)
    add_images(parser, required=True)
    add_paths(parser, ",".join(PATHS))
    parser.add_argument(
        "--images",
        type=int,
        default=300,
        metavar="N",
        help="most images for the invariances (default 300)",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=99,
        metavar="N",
        help="draws of each null distribution (default 99)",
    )
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        metavar="P",
        help="largest p-value of an invariance that is proposed (default 0.05)",
    )
    parser.add_argument("--out", metavar="FILE", help="file for the proposals, as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table, and write it."""
    check_file(options.out, "--out")
    given = prepared(options.data, options)
    found = propose(
        trained(given, options),
        given.pair,
        paths=options.paths,
        layers=options.layers,
        samples=SAMPLES if options.samples is None else options.samples,
        images=options.images,
        draws=options.draws,
        level=options.level,
        seed=options.seed,
        progress=console.progress,
    )
    console.report(found, keep(found, options.out))
    return DONE
