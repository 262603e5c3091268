"""The folder of ``--log-dir``: curves for TensorBoard, and the history as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symlearn.callbacks import JsonLines, TensorBoard
from symlearn.cli.outputs import check_folder

if TYPE_CHECKING:
    from symlearn.fit.fitting import Fitting

HISTORY = "history.jsonl"


class Logs:
    """A callback that writes both for each fit that it watches.

    Args:
        folder: The folder; made if it is not there.
        seeds: Seeds of the fits; of several, each has a folder "seed-<seed>" in it.

    Raises:
        OSError: If nothing can be written there.
        ModuleNotFoundError: If tensorboard is not installed.
    """

    def __init__(self, folder: str, seeds: Sequence[int]) -> None:
        check_folder(folder, "--log-dir")
        self._writers = {}
        for seed in seeds:
            own = Path(folder, f"seed-{seed}") if len(seeds) > 1 else Path(folder)
            curves = TensorBoard(own)  # which makes the folder
            self._writers[seed] = (curves, JsonLines(own / HISTORY))

    def __call__(self, fitting: Fitting) -> None:
        """Write what is new."""
        for writer in self._writers[fitting.config.seed]:
            writer(fitting)
