"""``symlearn fit``: learn the symmetries of a network from your own images."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from torch import nn

from curvature.checking import check_count
from symlearn.cli.arguments import ARCH, Commands, add_images, training
from symlearn.cli.inputs import network, prepared
from symlearn.cli.launch import DEVICES, launched
from symlearn.datasets import ImageSet
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.fit.checkpoint import checkpoints
from symlearn.lift import lift
from symlearn.verdict import SeedsResult, fit_seeds
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
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="fit from N seeds, --seed and the next ones, and report mean and spread (default 1)",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="where the network is (default cpu)"
    )
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="folder for checkpoints")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="epochs between them (default 1)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
    )
    parser.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="memory that the fit may take, such as 2GiB (default: no limit)",
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
    """Wrap, fit, print the report and save the result; once for all processes of ``torchrun``."""
    with launched(options.device) as speaks:
        result = _fitted(options)
    if speaks:
        result.save(options.out)
        console.print(str(result.report), markup=False)
        console.print(f"wrote {options.out}", markup=False)
    return 0


def _fitted(options: argparse.Namespace) -> FitResult | SeedsResult:
    given = prepared(options.data, options)
    config = FitConfig(
        epochs=options.epochs,
        seed=options.seed,
        objective=options.objective,
        memory_budget=options.memory_budget,
    )
    if options.seeds == 1:
        return fit(
            _relaxed(given, options, options.seed),
            given.pair,
            config,
            checkpoint_dir=options.checkpoint_dir,
            every=options.every,
            resume=_resumed(options),
        )
    check_count("--seeds", options.seeds)
    return fit_seeds(
        lambda seed: _relaxed(given, options, seed),
        given.pair,
        config,
        seeds=range(options.seed, options.seed + options.seeds),
        checkpoint_dir=options.checkpoint_dir,
        every=options.every,
        resume=options.resume,
    )


def _relaxed(given: ImageSet, options: argparse.Namespace, seed: int) -> nn.Module:
    plain = network(options.arch, given, width=options.width, seed=seed)
    relaxed = wrap(
        _lifted(plain, options, seed),
        given.x[:2],
        paths=options.paths.split(","),
        layers=None if options.layers is None else options.layers.split(","),
        boundary=options.boundary,
        seed=seed,
    )
    return relaxed.to(options.device)


def _lifted(plain: nn.Module, options: argparse.Namespace, seed: int) -> nn.Module:
    if options.lift is None:
        if options.lift_width is not None:
            raise ValueError("--lift-width is for lifted networks: give --lift too")
        return plain
    width = 1.0 if options.lift_width is None else options.lift_width
    return lift(plain, options.lift, width=width, seed=seed)


def _resumed(options: argparse.Namespace) -> Path | None:
    """The folder to resume from; None to start anew."""
    if not options.resume:
        return None
    if options.checkpoint_dir is None:
        raise ValueError("--resume needs to know the checkpoints: give --checkpoint-dir too")
    folder = Path(options.checkpoint_dir)
    return folder if folder.is_dir() and checkpoints(folder) else None
