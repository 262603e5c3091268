"""A progress bar on standard error: epoch, loss, evidence and what grew."""

from __future__ import annotations

from typing import Protocol

from symlearn.fit.history import EpochRecord
from symlearn.progress import Progress as Bar


class _Run(Protocol):
    history: list[EpochRecord]
    epoch: int

    @property
    def total(self) -> int: ...


class Progress(Bar):
    """Context manager around a fit.

    Args:
        wanted: True, False, or None to show it on terminals only.
        total: Epochs planned.
    """

    def __init__(self, wanted: bool | None, total: int) -> None:
        super().__init__(wanted, "fit", total)
        self._note = ""

    def show(self, run: _Run) -> None:
        """Show the last epoch's record."""
        last = run.history[-1]
        if last.log_evidence is not None:
            paths = sorted({v for v in last.verdicts.values()})
            self._note = f"log evidence {last.log_evidence:.0f}, layers: {', '.join(paths)}"
        self.update(run.epoch, run.total, f"loss {last.train_nll:.3f}  {self._note}")
