"""``symlearn plan``: what a fit would make of a network, and what that would cost."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from symlearn.cli.arguments import DONE, REFUSED, Commands, add_images, add_relaxed, command
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.networks import plain
from symlearn.datasets import ImageSet
from symlearn.plan import PlanRow, WrapPlan, plan
from symlearn.report import schema

FORMAT = "symlearn.plan/1"


@dataclass(frozen=True)
class Layer:
    """A row of the plan, for JSON; see `PlanRow`.

    Attributes:
        layer: Its name.
        module: Its class and options.
        in_shape: Shape of its input, [C, *size].
        out_shape: Shape of its output.
        action: What would be done.
        reason: Why not, if it would not be relaxed.
        paths: Names of the paths it would have.
        params_before: Its parameters now.
        params_after: Its parameters then.
        factor_gib: Memory of the curvature factors of its paths.
        gib: All memory of its paths.
    """

    layer: str
    module: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    action: str
    reason: str
    paths: tuple[str, ...]
    params_before: int
    params_after: int
    factor_gib: float
    gib: float

    @classmethod
    def of(cls, row: PlanRow) -> Layer:
        """Take a row of the plan."""
        same = (name for name in cls.__dataclass_fields__ if name != "paths")
        names = tuple(cost.spec.name for cost in row.paths)
        return cls(paths=names, **{name: getattr(row, name) for name in same})


@dataclass(frozen=True)
class Planned:
    """The plan, for JSON; see `WrapPlan`.

    Attributes:
        layers: Its rows.
        gib: Memory of all paths.
        memory_limit_gib: What they may take.
        possible: Whether a fit can do so.
    """

    layers: tuple[Layer, ...]
    gib: float
    memory_limit_gib: float
    possible: bool


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "plan",
        run,
        about="say what a fit would make of each layer, and what that costs; train nothing",
        examples={
            "symlearn plan --arch torchvision:resnet18 --shape 3,32,32 --layers 'layer2.*'": (
                "layers of a network of torchvision"
            ),
            "symlearn plan --data digits --paths conv,fc": "the small network, for these images",
            "symlearn plan --arch mine:net --shape 1,28,28 --layers 'features.*'": "your own",
        },
    )
    add_images(parser, required=False)
    parser.add_argument(
        "--shape", metavar="C,H,W", help="channels, height and width of images, if not --data"
    )
    parser.add_argument(
        "--classes", type=int, default=10, metavar="N", help="of images of --shape (default 10)"
    )
    add_relaxed(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the plan; refuse one that a fit would refuse."""
    given = _given(options)
    found = plan(
        plain(given, options, 0),
        given.x[:2],
        paths=options.paths,
        layers=options.layers,
        memory_limit_gib=options.memory_limit,
    )
    console.say(str(found))
    problem = _problem(found)
    rows = tuple(map(Layer.of, found.rows))
    planned = Planned(rows, found.gib, found.memory_limit_gib, not problem)
    console.finish(schema.dumps(planned, FORMAT), "refused" if problem else "possible")
    if problem:
        console.error(problem)
        return REFUSED
    return DONE


def _problem(found: WrapPlan) -> str:
    if found.refused:
        names = ",".join(row.layer for row in found.refused)
        return f"a fit would refuse {names}: name the other layers with --layers"
    if not found.relaxed:
        return "a fit would relax no layer"
    if not found.fits:
        return "this does not fit: select fewer layers with --layers, or give lighter --paths"
    return ""


def _given(options: argparse.Namespace) -> ImageSet:
    """The images, or blank ones of the shape."""
    if (options.data is None) == (options.shape is None):
        raise ValueError("give either --data or --shape")
    if options.data is not None:
        return prepared(options.data, options)
    try:
        channels, height, width = (int(part) for part in options.shape.split(","))
        blank = torch.zeros(2, channels, height, width)
        return ImageSet(blank, torch.zeros(2, dtype=torch.int64), options.classes, "shape")
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--shape is {options.shape!r} and --classes {options.classes}; give three whole "
            "numbers of at least 1, such as 3,64,64, and at least 1 class"
        ) from error
