"""``symlearn locate``: in which layers free paths are needed, or that this cannot be told."""

from __future__ import annotations

import argparse
from dataclasses import replace

from torch import nn

from symlearn.cli.arguments import (
    DONE,
    Commands,
    add_images,
    add_relaxed,
    add_training,
    command,
)
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.keeping import add_checkpoints, kept
from symlearn.cli.networks import relaxed
from symlearn.cli.outputs import check_file, keep
from symlearn.cli.results import read
from symlearn.fit import FitConfig, FitResult
from symlearn.report.rule import NOISE
from symlearn.verdict import locate
from symlearn.verdict.locating import REFIT_EPOCHS


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "locate",
        run,
        about="say in which layers free paths are needed, or that this cannot be told",
        examples={
            "symlearn locate run/ --data digits": "by refits of a fit without each free path",
            "symlearn locate --data digits --epochs 30 --out where.json": (
                "by fits from several starts, and refits of the best"
            ),
        },
    )
    parser.add_argument(
        "result",
        metavar="RESULT",
        nargs="?",
        help="folder of a saved result, in place of the starts; give the data it was fitted to",
    )
    add_images(parser, required=True)
    add_relaxed(parser)
    add_training(parser)
    parser.add_argument(
        "--refit-epochs",
        type=int,
        default=REFIT_EPOCHS,
        metavar="N",
        help=f"epochs of each refit (default {REFIT_EPOCHS})",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=NOISE,
        metavar="NATS",
        help="per sample, by which evidences of two trainings of one network differ "
        f"(default {NOISE})",
    )
    parser.add_argument("--out", metavar="FILE", help="file for the comparison, as JSON")
    add_checkpoints(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Compare the networks, print the comparison, and write it."""
    check_file(options.out, "--out")
    config = FitConfig(
        epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed
    )
    given = prepared(options.data, options)
    model: nn.Module | FitResult
    with kept(options) as keeping:
        if options.result is None:
            model = relaxed(given, options, options.seed)
        else:
            model = read(options.result, options.arch)
            config = model.config
            _check_data(options, len(given), model.report.n_data)
        found = locate(
            model,
            given.pair,
            replace(config, progress=console.progress),
            refit_epochs=options.refit_epochs,
            noise=options.noise,
            **keeping,
        ).report
    console.report(found, keep(found, options.out))
    return DONE


def _check_data(options: argparse.Namespace, given: int, fitted: int) -> None:
    if given != fitted:
        raise ValueError(
            f"{options.result} was fitted to {fitted} images, and {options.data} gives {given}: "
            "give the data of the fit, with the same --samples"
        )
