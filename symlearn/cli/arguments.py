"""What several commands have: the frame of a command, and arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn, TypeAlias

from symlearn.cli.console import Console
from symlearn.fit import FitConfig

# argparse has no public name for what add_subparsers returns
Commands: TypeAlias = Any
Run: TypeAlias = Callable[[argparse.Namespace, Console], int]

DONE, REFUSED, INTERRUPTED, PIPE = 0, 2, 130, 141
EXITS = {
    DONE: "done",
    1: "an error in symlearn itself, with a traceback: please report it",
    REFUSED: "refused: wrong use, bad input, or what was checked does not hold",
    INTERRUPTED: "interrupted by Ctrl-C",
    PIPE: "the reader of the output has gone",
}
"""Exit status -> what it means."""

DATA = (
    "digits, mnist5k, mnist, fashion-mnist or cifar10 (their training part; with :test the test "
    "part), folder:PATH with a folder of images per class, or an NPZ file with X [N, C, H, W] "
    "and y [N]"
)
ARCH = "small, paper, torchvision:NAME, timm:NAME, or module:function that returns the plain CNN"
MODEL = (
    "the folder of a saved result, a torch.export file (.pt2), a file of symlearn collapse "
    "(.safetensors), module:function, torchvision:NAME or timm:NAME (with random weights)"
)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong.

    Attributes:
        COMPLETED: Metavar -> what completes such arguments in a shell.
    """

    COMPLETED: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def add_argument(self, *args: Any, **options: Any) -> argparse.Action:
        """Add an argument as usual."""
        action = super().add_argument(*args, **options)
        if isinstance(action.metavar, str) and action.metavar in self.COMPLETED:
            vars(action)["complete"] = self.COMPLETED[action.metavar]
        return action

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage, which ``--help`` shows."""
        self.exit(REFUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def command(
    commands: Commands, name: str, run: Run, *, about: str, examples: Mapping[str, str]
) -> argparse.ArgumentParser:
    """Add a command to the program, with examples and with the options that all commands have.

    Args:
        commands: The program's commands.
        name: Name of the command.
        run: What it does; returns the exit status.
        about: What it does, in one line.
        examples: Command line -> what it does, in one line.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="print one JSON document in place of the text"
    )
    output.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="no text and no progress: print the files written, or else the answer alone",
    )
    parser.set_defaults(run=run)
    return parser


def epilog(examples: Mapping[str, str]) -> str:
    """The end of a help text: examples, and what the exit status says."""
    shown = [f"  {line}\n      {what}" for line, what in examples.items()]
    status = [f"  {number:<4} {meaning}" for number, meaning in EXITS.items()]
    return "\n".join(["examples:", *shown, "", "exit status:", *status])


def add_epochs(parser: argparse.ArgumentParser) -> None:
    """Add ``--epochs``."""
    parser.add_argument(
        "--epochs", type=int, default=60, metavar="N", help="passes over the data (default 60)"
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add what says how a network is trained: ``--epochs``, ``--learning-rate``, ``--seed``."""
    add_epochs(parser)
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=FitConfig.learning_rate,
        metavar="STEP",
        help="step size of the weights; a lower one where a report says that the network has "
        f"learned nothing (default {FitConfig.learning_rate})",
    )
    add_seed(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of everything random (default 0)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, which the program reads."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of torch (default: its own choice)"
    )


def add_images(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add ``--data``, how its images are prepared, and ``--threads``."""
    parser.add_argument("--data", required=required, metavar="SOURCE", help=DATA)
    parser.add_argument(
        "--root", default="data", metavar="DIR", help="folder of the downloaded sets (default data)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="take only N images, the classes in the same proportions",
    )
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="resize the images to PIXELS x PIXELS"
    )
    parser.add_argument("--rgb", action="store_true", help="repeat grey images over three channels")
    add_threads(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the trained network, and ``--seed``."""
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    add_own(parser)
    add_seed(parser)


def add_own(parser: argparse.ArgumentParser) -> None:
    """Add ``--arch`` of a command that reads a saved result."""
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="module:function of a saved result whose network is your own, to let it run",
    )


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """Add ``--arch`` and ``--width``."""
    parser.add_argument("--arch", default="small", metavar="NAME", help=f"{ARCH} (default small)")
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="width factor of the networks small (default 8) and paper (10)",
    )


def add_paths(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--paths`` and ``--layers``."""
    parser.add_argument(
        "--paths",
        metavar="NAMES",
        type=names,
        default=names(default),
        help=f"comma-separated paths (default {default})",
    )
    parser.add_argument(
        "--layers",
        metavar="NAMES",
        type=names,
        help="comma-separated names or patterns of layers (default all)",
    )


def add_relaxed(parser: argparse.ArgumentParser) -> None:
    """Add what says how a plain network becomes a relaxed one."""
    add_architecture(parser)
    add_paths(parser, "conv,ffc")
    parser.add_argument(
        "--lift",
        metavar="GROUP",
        help="group to lift the network to, such as p4 (for path gconv)",
    )
    parser.add_argument(
        "--lift-width",
        type=float,
        metavar="FACTOR",
        help="factor on the channels of the lifted network (default 1)",
    )
    parser.add_argument(
        "--boundary",
        choices=("keep", "circular"),
        default="keep",
        help="circular makes the strict paths exactly shift-equivariant (default keep)",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=8.0,
        metavar="GIB",
        help="refuse paths whose weights and factors need more (default 8)",
    )


def numbers(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    """A type of arguments: comma-separated numbers of a kind."""

    def read(text: str) -> tuple[float, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of {what}; separate them by commas"
            ) from error

    return read


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names.

    Raises:
        argparse.ArgumentTypeError: If one is empty.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; separate names by commas")
    return found
