"""Checkpoints on the command line: their options, and what an interrupted command says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symlearn.cli.outputs import check_folder
from symlearn.fit.checkpoint import checkpoints


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the folder for checkpoints, and whether to go on from them."""
    parser.add_argument("--checkpoint-dir", metavar="DIR", help="folder for checkpoints")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="epochs between them (default 1)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
    )


@contextmanager
def kept(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give the options of `symlearn.fit_seeds` and `locate` that keep checkpoints.

    Raises:
        ValueError: If checkpoints to go on from are wanted, and no folder is given.
        OSError: If the folder cannot be written to.
        KeyboardInterrupt: After Ctrl-C; it says how to go on.
    """
    folder = options.checkpoint_dir
    check_folder(folder, "--checkpoint-dir")
    if options.resume and folder is None:
        raise ValueError("--resume needs to know the checkpoints: give --checkpoint-dir too")
    try:
        yield {"checkpoint_dir": folder, "every": options.every, "resume": options.resume}
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {_how_to_go_on(folder)}") from stop


def _how_to_go_on(folder: str | None) -> str:
    if folder is None:
        return "nothing is saved: with --checkpoint-dir DIR the next run can go on"
    places = [Path(folder), *(path for path in Path(folder).glob("*") if path.is_dir())]
    if any(place.is_dir() and checkpoints(place) for place in places):
        return f"the same command with --resume goes on from {folder}"
    return "there is no checkpoint yet"
