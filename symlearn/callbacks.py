"""What can watch a fit: callbacks for ``symlearn.fit(..., callbacks=[...])``.

A callback is called with the running `Fitting` after every epoch (after trials, once for all their
epochs). It may read ``fitting.history`` (one record per epoch), ``fitting.model``,
``fitting.state`` and ``fitting.epoch``; if it returns True, the fit ends after this epoch. A
function will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symlearn.atomic import as_folder, as_path

if TYPE_CHECKING:
    from symlearn.fit.fitting import Fitting
    from symlearn.fit.history import EpochRecord


class _Records:
    """Base of those that write the history: a resumed fit's earlier epochs come again at first."""

    def __init__(self) -> None:
        self._written = 0

    def _new(self, fitting: Fitting) -> Iterator[EpochRecord]:
        yield from fitting.history[self._written :]
        self._written = len(fitting.history)


class JsonLines(_Records):
    """Writes a line of JSON for each epoch, the record's fields; see `EpochRecord`.

    Args:
        path: The file; one that is there is replaced.

    Raises:
        TypeError: If it is no path.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = as_path(path, "path")

    def __call__(self, fitting: Fitting) -> None:
        """Write what is new."""
        with self.path.open("a" if self._written else "w", encoding="utf-8") as file:
            for record in self._new(fitting):
                file.write(json.dumps(record.to_dict()) + "\n")


class TensorBoard(_Records):
    """Writes curves for TensorBoard: loss, step size, evidence per sample, and all precisions.

    Args:
        folder: Folder of the event files.

    Raises:
        ModuleNotFoundError: If tensorboard is not installed.
        TypeError: If ``folder`` is no path.
        NotADirectoryError: If it is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = as_folder(folder, "folder")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError(
                "TensorBoard needs tensorboard: pip install 'symlearn-torch[tensorboard]'"
            ) from error
        # steps that an interrupted fit wrote are hidden behind those of this one
        self._writer: Any = SummaryWriter(str(self.folder), purge_step=0)

    def __call__(self, fitting: Fitting) -> None:
        """Write what is new."""
        for record in self._new(fitting):
            for name, value in _curves(record, fitting.data.n):
                self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()


def _curves(record: EpochRecord, n_data: int) -> Iterator[tuple[str, float]]:
    yield "train/nll", record.train_nll
    yield "train/learning_rate", record.learning_rate
    if record.log_evidence is not None:
        yield "evidence/per_sample", record.log_evidence / n_data
    for group, precision in record.precision.items():
        yield f"precision/{group}", precision
