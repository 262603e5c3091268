"""The command line: ``symlearn demo | fit | report | collapse``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from symlearn import demo
from symlearn.collapse import collapse_report, export_onnx
from symlearn.datasets import ImageSet, from_arrays
from symlearn.fit import FitConfig, fit, load
from symlearn.fit.checkpoint import checkpoints
from symlearn.lift import lift
from symlearn.models import small_cnn
from symlearn.plainfile import save_plain
from symlearn.report import StructureReport, side_by_side
from symlearn.wrap import wrap

FORMATS = ("text", "markdown", "json", "html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command line; returns the exit status.

    Errors of use (unknown names, missing files, bad data) are printed in one line, status 2.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options, Console(soft_wrap=True, highlight=False))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        Console(stderr=True, soft_wrap=True).print(f"symlearn: {error}", markup=False)
        return 2
    except KeyboardInterrupt as stop:
        note = str(stop) or "interrupted"
        Console(stderr=True, soft_wrap=True).print(f"symlearn: {note}", markup=False)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="symlearn", description="Which symmetry does each layer of a CNN want?"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--epochs", type=int, default=60, help="passes over the data (default 60)")
    shared.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    shared.add_argument(
        "--threads", type=int, help="CPU threads of torch (default: its own choice)"
    )

    show = commands.add_parser("demo", parents=[shared], help="both toy tasks on real digits")
    show.add_argument("--data", choices=demo.SOURCES, default="digits", help="which digits")
    show.add_argument("--out", default="build/demo", help="folder for reports and pictures")
    show.set_defaults(run=_demo)

    learn = commands.add_parser("fit", parents=[shared], help="fit a network to your own images")
    learn.add_argument("data", help="NPZ file with X [N, C, H, W] and y [N], or 'digits'")
    learn.add_argument(
        "--model", help="module:function that returns the plain CNN (default: small CNN)"
    )
    learn.add_argument(
        "--paths", default="conv,ffc", help="comma-separated paths (default conv,ffc)"
    )
    learn.add_argument(
        "--lift", metavar="GROUP", help="group to lift the network to, such as p4 (for path gconv)"
    )
    learn.add_argument(
        "--lift-width",
        type=float,
        metavar="FACTOR",
        help="factor on the channels of the lifted network (default 1)",
    )
    learn.add_argument("--boundary", choices=("keep", "circular"), default="keep")
    learn.add_argument("--objective", choices=("evidence", "map"), default="evidence")
    learn.add_argument("--out", required=True, help="folder for the result")
    learn.add_argument("--checkpoint-dir", metavar="DIR", help="folder for checkpoints")
    learn.add_argument(
        "--every", type=int, default=1, metavar="N", help="epochs between them (default 1)"
    )
    learn.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
    )
    learn.set_defaults(run=_fit)

    tell = commands.add_parser("report", help="show or convert the report of a saved result")
    tell.add_argument("result", help="folder of a saved result, or a report's JSON file")
    tell.add_argument("--format", choices=FORMATS, default="text")
    tell.add_argument("--out", help="file to write instead of the terminal")
    tell.set_defaults(run=_report)

    plain = commands.add_parser("collapse", help="turn a saved result into a plain network")
    plain.add_argument("result", help="folder of a saved result")
    plain.add_argument("--out", required=True, help="file for the plain network (safetensors)")
    plain.add_argument("--data", help="images to compare and to measure on, as for fit")
    plain.add_argument("--train", help="training images, for --fine-tune and --prune-channels")
    plain.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        help="drop paths with a smaller share of effective parameters (default 0)",
    )
    plain.add_argument("--fine-tune", type=int, default=0, help="epochs after dropping (default 0)")
    plain.add_argument(
        "--prune-channels", action="store_true", help="remove channels without effect"
    )
    plain.add_argument("--onnx", help="ONNX file to write as well; needs --data")
    plain.set_defaults(run=_collapse)
    return parser


def _set_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads is {options.threads}; give at least 1")
        torch.set_num_threads(options.threads)


def _demo(options: argparse.Namespace, console: Console) -> int:
    _set_threads(options)

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


def _images(source: str) -> ImageSet:
    if source == "digits":
        return demo.load("digits", seed=0)[0].standardised()
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"no such file: {source} (give an NPZ file with X and y, or 'digits')"
        )
    try:
        arrays = np.load(path, allow_pickle=False)
        x, y = arrays["X"], arrays["y"]
    except (KeyError, IndexError, OSError, ValueError) as error:
        raise ValueError(f"{source} is not an NPZ file with arrays X and y: {error}") from error
    return from_arrays(x, y)


def _network(name: str | None, images: ImageSet, seed: int) -> nn.Module:
    if name is None:
        return small_cnn(images.classes, in_channels=images.x.shape[1], seed=seed)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"--model is {name!r}; give module:function")
    sys.path.insert(0, "")
    factory: Any = getattr(importlib.import_module(module), attribute, None)
    if factory is None:
        raise ValueError(f"module {module!r} has no {attribute!r}")
    network: nn.Module = factory()
    return network


def _lifted(network: nn.Module, options: argparse.Namespace) -> nn.Module:
    if options.lift is None:
        if options.lift_width is not None:
            raise ValueError("--lift-width is for lifted networks: give --lift too")
        return network
    width = 1.0 if options.lift_width is None else options.lift_width
    return lift(network, options.lift, width=width, seed=options.seed)


def _fit(options: argparse.Namespace, console: Console) -> int:
    _set_threads(options)
    images = _images(options.data)
    network = _lifted(_network(options.model, images, options.seed), options)
    relaxed = wrap(
        network,
        images.x[:2],
        paths=options.paths.split(","),
        boundary=options.boundary,
        seed=options.seed,
    )
    config = FitConfig(epochs=options.epochs, seed=options.seed, objective=options.objective)
    result = fit(
        relaxed,
        images.pair,
        config,
        checkpoint_dir=options.checkpoint_dir,
        every=options.every,
        resume=_resumed(options),
    )
    result.save(options.out)
    console.print(str(result.report), markup=False)
    console.print(f"wrote {options.out}", markup=False)
    return 0


def _resumed(options: argparse.Namespace) -> Path | None:
    """The folder to resume from; None to start anew."""
    if not options.resume:
        return None
    if options.checkpoint_dir is None:
        raise ValueError("--resume needs to know the checkpoints: give --checkpoint-dir too")
    folder = Path(options.checkpoint_dir)
    return folder if folder.is_dir() and checkpoints(folder) else None


def _report(options: argparse.Namespace, console: Console) -> int:
    path = Path(options.result)
    report = StructureReport.from_json(path / "report.json" if path.is_dir() else path)
    writers = {
        "text": report.to_text,
        "markdown": report.to_markdown,
        "json": report.to_json,
        "html": report.to_html,
    }
    text = writers[options.format](options.out)
    if options.out is None:
        console.print(text, markup=False)
    else:
        console.print(f"wrote {options.out}", markup=False)
    return 0


def _collapse(options: argparse.Namespace, console: Console) -> int:
    if options.onnx is not None and options.data is None:
        raise ValueError("--onnx compares outputs on images: give --data too")
    data = None if options.data is None else _images(options.data).pair
    train = None if options.train is None else _images(options.train).pair
    network = load(options.result).collapse(
        data,
        threshold=options.threshold,
        fine_tune=options.fine_tune,
        prune_channels=options.prune_channels,
        train=train,
    )
    console.print(str(collapse_report(network)), markup=False)
    save_plain(network, options.out)
    console.print(f"wrote {options.out}", markup=False)
    if options.onnx is not None and data is not None:
        error = export_onnx(network, data[0][:8], options.onnx)
        console.print(
            f"wrote {options.onnx}; onnxruntime's outputs differ by {error:.1e}", markup=False
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
