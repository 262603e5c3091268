"""``symlearn completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import json

from symlearn.cli.arguments import DONE, Commands, Parser, command
from symlearn.cli.console import Console

SHELLS = ("bash", "zsh", "tcsh")
FORMAT = "symlearn.completion/1"


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "completion",
        run,
        about="print the script that completes commands and options in a shell",
        examples={
            'eval "$(symlearn completion bash)"': "for this shell",
            "symlearn completion bash > ~/.symlearn-completion": (
                "for good: put 'source ~/.symlearn-completion' into ~/.bashrc"
            ),
        },
    )
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the script."""
    from symlearn.cli.program import parser  # which lists this command

    try:
        import shtab
    except ImportError as error:
        raise ModuleNotFoundError(
            "completion needs shtab: pip install 'symlearn-torch[completion]'"
        ) from error

    class Completing(Parser):
        COMPLETED = {
            **dict.fromkeys(("FILE", "MODEL", "RESULT", "SOURCE"), shtab.FILE),
            "DIR": shtab.DIRECTORY,
        }

    script: str = shtab.complete(parser(Completing), shell=options.shell)
    console.say(script)
    document = {"format": FORMAT, "shell": options.shell, "script": script}
    console.finish(json.dumps(document), script)
    return DONE
