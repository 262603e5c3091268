"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

# argparse has no public name for what add_subparsers returns
Commands: TypeAlias = Any

DATA = (
    "digits, mnist5k, mnist, fashion-mnist or cifar10 (their training part; with :test the test "
    "part), folder:PATH with a folder of images per class, or an NPZ file with X [N, C, H, W] "
    "and y [N]"
)
ARCH = (
    "small, paper, torchvision:NAME, timm:NAME or module:function, which returns the plain CNN "
    "(default small)"
)


def training() -> argparse.ArgumentParser:
    """Parent parser of commands that train."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--epochs", type=int, default=60, help="passes over the data (default 60)")
    shared.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    add_threads(shared)
    return shared


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, which the program reads."""
    parser.add_argument(
        "--threads", type=int, help="CPU threads of torch (default: its own choice)"
    )


def add_images(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add ``--data`` and how its images are prepared."""
    parser.add_argument("--data", required=required, metavar="SOURCE", help=DATA)
    add_preparation(parser)


def add_preparation(parser: argparse.ArgumentParser) -> None:
    """Add ``--root``, ``--size`` and ``--rgb``, which hold for every source of images."""
    parser.add_argument(
        "--root", default="data", metavar="DIR", help="folder of the downloaded sets (default data)"
    )
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="resize the images to PIXELS x PIXELS"
    )
    parser.add_argument("--rgb", action="store_true", help="repeat grey images over three channels")
