"""Files and folders that appear whole or not at all, also if the process or the machine dies.

What is written goes beside its place, is flushed to the disk, and is then renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".part"
"""Ending of what a killed process may leave behind; the name starts with a dot."""


def as_path(given: object, what: str) -> Path:
    """A path that a user gave.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{what} must be a path, got {type(given).__name__}")
    return Path(given)


def as_folder(given: object, what: str) -> Path:
    """The path of a folder that is there or may be made.

    Raises:
        TypeError: If it is no path.
        NotADirectoryError: If a file has this path.
    """
    folder = as_path(given, what)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{what} is {folder}, which is a file; give a folder")
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; at the end the file there takes the place of ``path``.

    Args:
        path: The file; an existing one stays as it is until the new one is complete.
    """
    draft = _beside(path)
    try:
        yield draft
        _flush(draft)
        draft.replace(path)
        _flush_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write files to; at the end it takes the place of ``folder``.

    Args:
        folder: The folder; an existing one is moved aside (".name.number.old") once the new one is
            complete, and removed when that has its name.
    """
    draft = _beside(folder)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        for path in draft.iterdir():
            _flush(path)
        _flush_folder(draft)
        _swap(draft, folder)
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, folder: Path) -> None:
    """Put one folder in the place of another; both are as they were if that fails."""
    if not folder.exists():
        draft.replace(folder)
        return
    old = _beside(folder, ".old")
    folder.replace(old)
    try:
        draft.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old)


def _beside(path: Path, ending: str = UNFINISHED) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{ending}")


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can be asked for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
