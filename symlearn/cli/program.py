"""The program: its commands, and how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from rich.console import Console

from symlearn.cli import audit, certify, collapse, completion, demo, fit, report

COMMANDS = (demo, fit, report, audit, certify, collapse, completion)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command line; returns the exit status.

    Errors of use (unknown names, missing files, bad data) are printed in one line, status 2; an
    interrupted run has status 130.
    """
    options = parser().parse_args(arguments)
    try:
        _set_threads(options.threads)
        status: int = options.run(options, Console(soft_wrap=True, highlight=False))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        Console(stderr=True, soft_wrap=True).print(f"symlearn: {error}", markup=False)
        return 2
    except KeyboardInterrupt as stop:
        note = str(stop) or "interrupted"
        Console(stderr=True, soft_wrap=True).print(f"symlearn: {note}", markup=False)
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line, as argparse sees it."""
    program = argparse.ArgumentParser(
        prog="symlearn", description="Which symmetry does each layer of a CNN want?"
    )
    program.set_defaults(threads=None)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return program


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads is {threads}; give at least 1")
        torch.set_num_threads(threads)
