"""A progress bar on standard error: epoch, loss, evidence and what grew."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from symlearn.fit.history import EpochRecord


class _Run(Protocol):
    history: list[EpochRecord]
    epoch: int

    @property
    def total(self) -> int: ...


class Progress:
    """Context manager around a fit.

    Args:
        wanted: True, False, or None to show it on terminals only.
        total: Epochs planned.
    """

    def __init__(self, wanted: bool | None, total: int) -> None:
        shown = sys.stderr.isatty() if wanted is None else wanted
        self._bar = RichProgress(
            TextColumn("fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("", total=total)
        self._note = ""

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

    def show(self, run: _Run) -> None:
        """Show the last epoch's record."""
        last = run.history[-1]
        if last.log_evidence is not None:
            paths = sorted({v for v in last.verdicts.values()})
            self._note = f"log evidence {last.log_evidence:.0f}, layers: {', '.join(paths)}"
        self._bar.update(
            self._task,
            completed=run.epoch,
            total=run.total,
            description=f"loss {last.train_nll:.3f}  {self._note}",
        )
