"""``symlearn fit``: learn the symmetries of a network from your own images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from curvature.checking import check_count
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
from symlearn.cli.launch import DEVICES, launched
from symlearn.cli.logs import Logs
from symlearn.cli.networks import relaxed
from symlearn.cli.outputs import check_result
from symlearn.cli.results import save
from symlearn.datasets import ImageSet
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.fit.checkpoint import checkpoints
from symlearn.verdict import SeedsResult, fit_seeds

EXAMPLES = {
    "symlearn fit --data digits --out run/": "the small network on UCI digits",
    "symlearn fit --data fashion-mnist --arch paper --paths conv,ffc --out run/": (
        "the paper's network"
    ),
    "symlearn fit --data folder:pictures --size 32 --out run/": (
        "a folder of pictures for each class"
    ),
    "symlearn fit --data a.npz --arch torchvision:resnet18 --layers conv1 --out r/": (
        "some layers of a network of torchvision"
    ),
    "symlearn fit --data mnist --samples 5000 --epochs 20 --out run/": "a quick look",
    "symlearn fit --data digits --out run/ --checkpoint-dir kept --resume": (
        "can be stopped, and given again to go on"
    ),
    "symlearn fit --data digits --out run/ --seeds 3 --log-dir logs": (
        "is the verdict the data's, or the seed's?"
    ),
}


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "fit",
        run,
        about="learn from your own images which symmetry each layer wants",
        examples=EXAMPLES,
    )
    add_images(parser, required=True)
    add_relaxed(parser)
    add_training(parser)
    parser.add_argument(
        "--objective",
        choices=("evidence", "map"),
        default="evidence",
        help="map fixes the precisions, for a baseline (default evidence)",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the result")
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
    add_checkpoints(parser)
    parser.add_argument(
        "--log-dir",
        metavar="DIR",
        help="folder for curves of every epoch: TensorBoard, and JSON lines (history.jsonl)",
    )
    parser.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="memory that the fit may take, such as 2GiB (default: no limit)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Wrap, fit, print the report and save the result; once for all processes of ``torchrun``."""
    check_count("--seeds", options.seeds)
    seeds = range(options.seed, options.seed + options.seeds)
    for seed in seeds:
        check_result(str(Path(options.out, f"seed-{seed}")) if len(seeds) > 1 else options.out)
    with launched(options.device) as speaks, kept(options) as keeping:
        logs = [Logs(options.log_dir, seeds)] if speaks and options.log_dir is not None else []
        given = prepared(options.data, options)
        config = FitConfig(
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            seed=options.seed,
            objective=options.objective,
            memory_budget=options.memory_budget,
            progress=console.progress,
        )
        result = _fitted(options, given, config, seeds, {**keeping, "callbacks": logs})
    if speaks:
        save(result, options.out, options, given)
        console.report(result.report, [options.out])
    return DONE


def _fitted(
    options: argparse.Namespace,
    given: ImageSet,
    config: FitConfig,
    seeds: Sequence[int],
    watched: dict[str, Any],
) -> FitResult | SeedsResult:
    def network(seed: int) -> nn.Module:
        return relaxed(given, options, seed).to(options.device)

    if len(seeds) > 1:
        return fit_seeds(network, given.pair, config, seeds=seeds, **watched)
    watched["resume"] = _newest(watched) if watched["resume"] else None
    return fit(network(options.seed), given.pair, config, **watched)


def _newest(watched: dict[str, Any]) -> Path | None:
    """The folder of checkpoints, if it has any; None to start anew."""
    folder = Path(watched["checkpoint_dir"])
    return folder if folder.is_dir() and checkpoints(folder) else None
