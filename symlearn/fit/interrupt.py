"""Ctrl-C during a fit: once to stop after the epoch under way, twice to stop at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType

_NOTE = b"\nfinishing the epoch, then saving; Ctrl-C once more to stop at once\n"


class Interrupts:
    """Context in which the first Ctrl-C is noted rather than raised.

    Nothing changes outside the main thread, or where the program has a handler of its own.

    Args:
        wanted: Whether to do so; if not, Ctrl-C does what it always does.

    Attributes:
        asked: Whether Ctrl-C was pressed.
    """

    def __init__(self, wanted: bool) -> None:
        main = threading.current_thread() is threading.main_thread()
        own = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        self._active, self.asked, self._process = wanted and main and not own, False, os.getpid()

    def __enter__(self) -> Interrupts:
        if self._active:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # not print: a handler may run in the middle of one. Workers of a loader share the handler.
        if os.getpid() == self._process:
            with suppress(OSError):
                os.write(2, _NOTE)
