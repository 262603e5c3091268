"""``symlearn fit``: learn the symmetries of a network from your own images."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from torch import nn

from symlearn.cli.arguments import ARCH, Commands, add_images, training
from symlearn.cli.inputs import network, prepared
from symlearn.fit import FitConfig, fit
from symlearn.fit.checkpoint import checkpoints
from symlearn.lift import lift
from symlearn.wrap import wrap


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "fit", parents=[training()], help="fit a network to your own images"
    )
    add_images(parser, required=True)
    _add_network(parser)
    parser.add_argument("--objective", choices=("evidence", "map"), default="evidence")
    parser.add_argument("--out", required=True, help="folder for the result")
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="folder for checkpoints")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="epochs between them (default 1)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
    )
    parser.set_defaults(run=run)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="small", help=ARCH)
    parser.add_argument(
        "--width", type=int, help="width factor of the networks small (default 8) and paper (10)"
    )
    parser.add_argument(
        "--paths", default="conv,ffc", help="comma-separated paths (default conv,ffc)"
    )
    parser.add_argument(
        "--layers", metavar="NAMES", help="comma-separated names or patterns (default all)"
    )
    parser.add_argument(
        "--lift", metavar="GROUP", help="group to lift the network to, such as p4 (for path gconv)"
    )
    parser.add_argument(
        "--lift-width",
        type=float,
        metavar="FACTOR",
        help="factor on the channels of the lifted network (default 1)",
    )
    parser.add_argument("--boundary", choices=("keep", "circular"), default="keep")


def run(options: argparse.Namespace, console: Console) -> int:
    """Wrap, fit, print the report and save the result."""
    given = prepared(options.data, options)
    plain = network(options.arch, given, width=options.width, seed=options.seed)
    relaxed = wrap(
        _lifted(plain, options),
        given.x[:2],
        paths=options.paths.split(","),
        layers=None if options.layers is None else options.layers.split(","),
        boundary=options.boundary,
        seed=options.seed,
    )
    result = fit(
        relaxed,
        given.pair,
        FitConfig(epochs=options.epochs, seed=options.seed, objective=options.objective),
        checkpoint_dir=options.checkpoint_dir,
        every=options.every,
        resume=_resumed(options),
    )
    result.save(options.out)
    console.print(str(result.report), markup=False)
    console.print(f"wrote {options.out}", markup=False)
    return 0


def _lifted(plain: nn.Module, options: argparse.Namespace) -> nn.Module:
    if options.lift is None:
        if options.lift_width is not None:
            raise ValueError("--lift-width is for lifted networks: give --lift too")
        return plain
    width = 1.0 if options.lift_width is None else options.lift_width
    return lift(plain, options.lift, width=width, seed=options.seed)


def _resumed(options: argparse.Namespace) -> Path | None:
    """The folder to resume from; None to start anew."""
    if not options.resume:
        return None
    if options.checkpoint_dir is None:
        raise ValueError("--resume needs to know the checkpoints: give --checkpoint-dir too")
    folder = Path(options.checkpoint_dir)
    return folder if folder.is_dir() and checkpoints(folder) else None
