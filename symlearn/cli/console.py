"""What a command prints: text for people, little for scripts, JSON for programs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console as RichConsole
from rich.console import RenderableType

from symlearn.cli.answers import answer
from symlearn.report import StructureReport
from symlearn.report.document import Document
from symlearn.report.text import WIDTH

PROGRAM = "symlearn"


class Console:
    """Where all that a command prints goes; a command says everything, the mode decides.

    Results go to the standard output, everything else to the standard error.

    Args:
        quiet: Print neither progress nor text: only the files written, or else the answer.
        as_json: Print one JSON document in place of the text.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet, self._as_json = quiet, as_json
        self._out, self._err = _Plain(stderr=False), _Plain(stderr=True)

    @property
    def progress(self) -> bool | None:
        """The option ``progress`` of what takes long: None is a bar on terminals."""
        return False if self._quiet else None

    def say(self, *what: RenderableType) -> None:
        """Print something for people."""
        if not (self._quiet or self._as_json):
            self._out.print(*what)

    def finish(self, document: str, short: str, written: Sequence[str | Path] = ()) -> None:
        """Say what came out; each command does so once.

        Args:
            document: All of it, as JSON.
            short: The answer in few words.
            written: Files and folders written.
        """
        if self._as_json:
            self._out.print(document.rstrip("\n"))
        elif self._quiet:
            for line in map(str, written or filter(None, [short])):
                self._out.print(line)
        else:
            for path in written:
                self._out.print(f"wrote {path}")

    def report(self, document: Document, written: Sequence[str | Path] = ()) -> None:
        """Print a report, and finish with it."""
        if isinstance(document, StructureReport):
            self.say(document.to_text(width=self._width))
        else:
            self.say(str(document))
        self.finish(document.to_json(), answer(document), written)

    def error(self, message: str) -> None:
        """Say in one line why there is no result."""
        self._err.print(f"{PROGRAM}: {one_line(message)}")

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Show warnings in one line each; not at all in quiet mode."""
        with warnings.catch_warnings():
            warnings.showwarning = self._warn
            yield

    @property
    def _width(self) -> int:
        """Columns for tables: those of the terminal, if it has fewer than tables aim for."""
        return min(WIDTH, self._out.width) if self._out.is_terminal else WIDTH

    def _warn(self, message: Warning | str, *_: object, **__: object) -> None:
        if not self._quiet:
            self._err.print(f"{PROGRAM}: warning: {one_line(str(message))}")


class _Plain(RichConsole):
    """A console that prints text as it is."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Let the program end as it says; newer versions of rich would end it themselves.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError


def one_line(text: str) -> str:
    """Put a message of several lines, a heading and its points, into one."""
    head, *points = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return " ".join([head, "; ".join(points)]).rstrip()
