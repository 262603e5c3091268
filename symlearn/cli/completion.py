"""``symlearn completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

from rich.console import Console

from symlearn.cli.arguments import Commands

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help='print the completion script of a shell: eval "$(symlearn completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the script."""
    from symlearn.cli.program import parser  # which lists this command

    try:
        import shtab
    except ImportError as error:
        raise ModuleNotFoundError(
            "completion needs shtab: pip install 'symlearn-torch[completion]'"
        ) from error
    console.out(shtab.complete(parser(), shell=options.shell), highlight=False)
    return 0
