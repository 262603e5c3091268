"""A progress bar on standard error."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Context manager around a measurement of several steps.

    Args:
        wanted: True, False, or None to show it on terminals only.
        name: What is measured.
        total: Number of steps.
    """

    def __init__(self, wanted: bool | None, name: str, total: int) -> None:
        shown = sys.stderr.isatty() if wanted is None else wanted
        self._bar = RichProgress(
            TextColumn("audit {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One step is done."""
        self._bar.advance(self._task)
