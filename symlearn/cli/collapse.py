"""``symlearn collapse``: turn a saved result into a plain network."""

from __future__ import annotations

import argparse

from rich.console import Console

from symlearn.cli.arguments import DATA, Commands, add_images
from symlearn.cli.inputs import prepared
from symlearn.collapse import collapse_report, export_onnx
from symlearn.fit import load
from symlearn.plainfile import save_plain


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("collapse", help="turn a saved result into a plain network")
    parser.add_argument("result", help="folder of a saved result")
    parser.add_argument("--out", required=True, help="file for the plain network (safetensors)")
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
        help="drop paths with a smaller share of effective parameters (default 0)",
    )
    parser.add_argument(
        "--fine-tune", type=int, default=0, help="epochs after dropping (default 0)"
    )
    parser.add_argument(
        "--prune-channels", action="store_true", help="remove channels without effect"
    )
    parser.add_argument("--onnx", help="ONNX file to write as well; needs --data")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    """Collapse, tell what it costs, and write the files."""
    if options.onnx is not None and options.data is None:
        raise ValueError("--onnx compares outputs on images: give --data too")
    data, train = (
        None if source is None else prepared(source, options).pair
        for source in (options.data, options.train)
    )
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
