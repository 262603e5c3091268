"""The program: its commands, and how it ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from symlearn.cli import (
    audit,
    certify,
    collapse,
    completion,
    demo,
    fit,
    locate,
    plan,
    propose,
    report,
    screen,
)
from symlearn.cli.arguments import INTERRUPTED, PIPE, REFUSED, Parser, epilog
from symlearn.cli.console import PROGRAM, Console

COMMANDS = (
    *(demo, plan, screen, fit, report, locate, audit),
    *(propose, certify, collapse, completion),
)
EXAMPLES = {
    "symlearn demo": "two tasks on real digits, in two minutes",
    "symlearn fit --data digits --out run/": "fit a small network to images",
    "symlearn report run/ --format html --out report.html": "its report as a page",
    "symlearn fit --help": "examples and options of a command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command line; returns the exit status (see `arguments.EXITS`)."""
    options = parser().parse_args(arguments)
    console = Console(quiet=options.quiet, as_json=options.json)
    try:
        with console.warnings():
            _set_threads(options.threads)
            status: int = options.run(options, console)
            sys.stdout.flush()
    except BrokenPipeError:
        # what is left in the buffer would fail once more when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        console.error(str(error))
        return REFUSED
    except KeyboardInterrupt as stop:
        console.error(str(stop) or "interrupted")
        return INTERRUPTED
    return status


def parser(kind: type[Parser] = Parser) -> Parser:
    """The whole command line, as argparse sees it."""
    program = kind(
        prog=PROGRAM,
        description="Which symmetry does each layer of a CNN want?",
        epilog=epilog(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.set_defaults(threads=None)
    commands = program.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(commands)
    return program


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads is {threads}; give at least 1")
        torch.set_num_threads(threads)
