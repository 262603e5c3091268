"""``symlearn collapse``: turn a saved result into a plain network."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from symlearn.architecture import describe
from symlearn.cli.arguments import DATA, DONE, Commands, add_images, add_own, command
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.outputs import check_file
from symlearn.cli.results import read
from symlearn.collapse import CollapseReport, collapse_report, export_onnx
from symlearn.plainfile import save_plain
from symlearn.report import schema

FORMAT = "symlearn.collapse/1"


@dataclass(frozen=True)
class Collapsed:
    """What came out, for JSON.

    Attributes:
        report: What was done.
        onnx_error: Largest difference of onnxruntime's outputs, nan if no ONNX file was written.
    """

    report: CollapseReport
    onnx_error: float


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "collapse",
        run,
        about="turn a saved result into a plain network",
        examples={
            "symlearn collapse run/ --out plain.safetensors": "drop the paths that are off",
            "symlearn collapse run/ --out p.safetensors --data mnist:test --threshold 0.01": (
                "weak ones too, and say what it costs"
            ),
            "symlearn collapse run/ --onnx plain.onnx --data mnist:test": "as an ONNX file",
        },
    )
    parser.add_argument("result", metavar="RESULT", help="folder of a saved result")
    add_own(parser)
    parser.add_argument("--out", metavar="FILE", help="file for the plain network (safetensors)")
    add_images(parser, required=False)
    parser.add_argument(
        "--train",
        metavar="SOURCE",
        help=f"training images, for --fine-tune and --prune-channels: {DATA}",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="drop paths with a smaller share of effective parameters (default 0)",
    )
    parser.add_argument(
        "--fine-tune",
        type=int,
        default=0,
        metavar="N",
        help="epochs of training after dropping (default 0)",
    )
    parser.add_argument(
        "--prune-channels", action="store_true", help="remove channels without effect"
    )
    parser.add_argument("--onnx", metavar="FILE", help="ONNX file to write; needs --data")


def run(options: argparse.Namespace, console: Console) -> int:
    """Collapse, tell what it costs, and write the files."""
    if options.out is None and options.onnx is None:
        raise ValueError("give --out or --onnx for the plain network")
    if options.onnx is not None and options.data is None:
        raise ValueError("--onnx compares outputs on images: give --data too")
    for file, option in ((options.out, "--out"), (options.onnx, "--onnx")):
        check_file(file, option, made=True)
    data, train = (
        None if source is None else prepared(source, options).pair
        for source in (options.data, options.train)
    )
    network = read(options.result, options.arch).collapse(
        data,
        threshold=options.threshold,
        fine_tune=options.fine_tune,
        prune_channels=options.prune_channels,
        train=train,
    )
    if options.out is not None and describe(network) is None:
        raise ValueError(
            "the network holds modules that cannot be rebuilt from their names, so --out cannot "
            "hold it: give --onnx and --data in place of --out"
        )
    report = collapse_report(network)
    console.say(str(report))
    written, error = [], math.nan
    if options.out is not None:
        save_plain(network, options.out)
        written.append(options.out)
    if options.onnx is not None and data is not None:
        error = export_onnx(network, data[0][:8], options.onnx)
        console.say(f"onnxruntime's outputs differ by {error:.1e}")
        written.append(options.onnx)
    console.finish(schema.dumps(Collapsed(report, error), FORMAT), "", written)
    return DONE
