"""A progress bar on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

Self = TypeVar("Self", bound="Progress")  # typing.Self needs Python 3.11

# Seconds of the past whose pace counts. With rich's 30, long epochs would have no estimate.
_PACE = 3600.0


class _Time(TimeRemainingColumn):
    """The time left, in words; at the end the time taken."""

    def render(self, task: Task) -> Text:
        """Write it."""
        return super().render(task) + (" taken" if task.finished else " left")


class Progress:
    """Context manager around work of several steps.

    Args:
        wanted: True, False, or None to show it on terminals only.
        name: What is done.
        total: Number of steps.
    """

    def __init__(self, wanted: bool | None, name: str, total: int) -> None:
        shown = sys.stderr.isatty() if wanted is None else wanted
        self._bar = RichProgress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            _Time(elapsed_when_finished=True),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=_PACE,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self: Self) -> Self:
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

    def update(self, completed: int, total: int, note: str) -> None:
        """So many steps are done, of a number that may have changed."""
        self._bar.update(self._task, completed=completed, total=total, description=note)
