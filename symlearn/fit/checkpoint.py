"""Checkpoints of a fit: one safetensors file per epoch, each written whole; nothing is pickled.

epoch-00000012.safetensors   all tensors of the fit's state; "facts" holds the rest as JSON (UTF-8)

The file's metadata hold the format, package versions, and a checksum of all tensors.
"""

from __future__ import annotations

import platform
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from curvature import ALONE, Reduction
from curvature.checking import check_count
from symlearn.atomic import UNFINISHED, as_folder, whole_file
from symlearn.fit.processes import together
from symlearn.fit.tree import checksum, pack, unpack

FORMAT = "symlearn.checkpoint/1"
_FAMILY = FORMAT.partition("/")[0]
_NAME = re.compile(r"epoch-(\d+)\.safetensors")


class Checkpoints:
    """The checkpoints of one fit in a folder; the newest few are kept.

    Args:
        folder: The folder; made if it is not there.
        every: Epochs between checkpoints.
        keep: How many are kept.
        resumed: Where the fit was resumed from, or None if it starts anew.
        processes: Processes of the fit; the first writes.

    Raises:
        ValueError: If ``every`` or ``keep`` is no whole number of at least 1.
        FileExistsError: If the folder holds checkpoints of another fit.
        NotADirectoryError: If the folder is a file.
        TypeError: If the folder is no path.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        keep: int,
        resumed: Path | None,
        processes: Reduction = ALONE,
    ) -> None:
        check_count("every", every)
        check_count("keep", keep)
        self.folder, self.every, self.keep = as_folder(folder, "checkpoint_dir"), every, keep
        self.folder.mkdir(parents=True, exist_ok=True)
        origin = resumed.parent if resumed is not None and resumed.is_file() else resumed
        same = origin is not None and origin.resolve() == self.folder.resolve()
        if checkpoints(self.folder) and not same:
            raise FileExistsError(
                f"{self.folder} holds checkpoints of another fit; go on with it by "
                f"resume={str(self.folder)!r}, or choose another folder"
            )
        self._last: int | None = None
        self._processes = processes

    def due(self, epoch: int) -> bool:
        """Whether a checkpoint is to be written after the epoch."""
        return self._last is None or epoch >= self._last + self.every

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then remove old ones, and ones of a future that was given up.

        Args:
            epoch: Epochs done.
            state: Tree of plain values and tensors.

        Raises:
            OSError: If it cannot be written; the checkpoints before it stay.
            RuntimeError: In the other processes, if the first cannot write it.
        """
        if epoch == self._last:
            return
        with together(self._processes, "write a checkpoint"):
            if self._processes.rank == 0:
                self._write(epoch, state)
        self._last = epoch

    def _write(self, epoch: int, state: dict[str, Any]) -> None:
        path = self.folder / f"epoch-{epoch:08d}.safetensors"
        try:
            with whole_file(path) as draft:
                draft.write_bytes(_encoded(state))
        except OSError as error:
            before = [p.name for e, p in checkpoints(self.folder).items() if e != epoch]
            whole = f"whole ones: {', '.join(before)}" if before else "there is no earlier one"
            raise OSError(
                error.errno, f"cannot write a checkpoint: {error.strerror or error} ({whole})"
            ) from error
        self._tidy(epoch)

    def _tidy(self, epoch: int) -> None:
        found = checkpoints(self.folder)
        kept = sorted(e for e in found if e <= epoch)[-self.keep :]
        for path in [p for e, p in found.items() if e not in kept]:
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f".epoch-*{UNFINISHED}"):  # left by a killed process
            path.unlink(missing_ok=True)


def checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoints in a folder by epoch, oldest first."""
    names = {path: _NAME.fullmatch(path.name) for path in folder.iterdir()}
    return dict(sorted((int(name[1]), path) for path, name in names.items() if name is not None))


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint: the tree that `Checkpoints.save` was given.

    Args:
        path: A checkpoint, or a folder of them, whose newest one is read.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, foreign, or of another format version.
    """
    path = Path(path)
    found = checkpoints(path) if path.is_dir() else {}
    if found:
        *earlier, path = found.values()
        hint = f"; the one before it is resume={str(earlier[-1])!r}" if earlier else ""
    elif path.is_dir() or not path.exists():
        raise FileNotFoundError(
            f"no checkpoint at {path}; give a folder that symlearn.fit(..., checkpoint_dir=...) "
            "wrote to, or one file of it (a saved result is read by symlearn.load)"
        )
    else:
        hint = ""
    try:
        return _decoded(path)
    except ValueError as error:
        raise ValueError(f"cannot resume from {path}: {error}{hint}") from error


def versions() -> dict[str, str]:
    """Versions of what a fit's numbers depend on."""
    try:
        own = metadata.version("symlearn-torch")
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "unknown"
    return {
        "symlearn": own,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _encoded(state: dict[str, Any]) -> bytes:
    tensors = pack(state)
    heading = {"format": FORMAT, "sha256": checksum(tensors), **versions()}
    return save(tensors, metadata=heading)


def _decoded(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            heading = file.metadata() or {}
            _check_format(heading)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or no checkpoint ({error})") from error
    if checksum(tensors) != heading.get("sha256"):
        raise ValueError("it is damaged: its checksum is not that of its contents")
    _compare_versions(heading)
    state: dict[str, Any] = unpack(tensors)
    return state


def _check_format(heading: dict[str, str]) -> None:
    given = heading.get("format", "none")
    if given == FORMAT:
        return
    if given.partition("/")[0] == _FAMILY:
        raise ValueError(
            f"it is in the format {given!r} and this version reads only {FORMAT!r}; resume it with "
            f"symlearn {heading.get('symlearn', 'of that time')}"
        )
    raise ValueError(f"it is no checkpoint: its format is {given!r}, not {FORMAT!r}")


def _compare_versions(heading: dict[str, str]) -> None:
    changed = [
        f"{name} {heading.get(name)}, now {version}"
        for name, version in versions().items()
        if heading.get(name) != version
    ]
    if changed:
        warnings.warn(
            f"the checkpoint was written with {'; '.join(changed)}: the fit goes on from it, but "
            "its numbers may differ from those of an uninterrupted run",
            stacklevel=5,
        )
