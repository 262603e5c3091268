"""``symlearn audit``: measure how far a network is from respecting transformations."""

from __future__ import annotations

import argparse

from symlearn.audit import TRANSFORMATIONS, AuditConfig, audit
from symlearn.audit.auditing import DEFAULT
from symlearn.audit.images import LINKS
from symlearn.audit.resample import PADDINGS, RESAMPLINGS
from symlearn.cli.arguments import DONE, Commands, add_images, add_model, command, names
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.outputs import check_file, keep
from symlearn.cli.results import trained


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "audit",
        run,
        about="measure how far a network is from respecting transformations",
        examples={
            "symlearn audit run/ --data digits:test": "the network of a fit",
            "symlearn audit net.pt2 --data images.npz --transform rotation --out a.json": (
                "any network, exported"
            ),
            "symlearn audit timm:resnet18 --data folder:pictures --size 64 --plot a.png": (
                "with random weights"
            ),
        },
    )
    add_model(parser)
    add_images(parser, required=True)
    parser.add_argument(
        "--transform",
        action="extend",
        type=names,
        metavar="NAMES",
        help=f"comma-separated names, of {', '.join(TRANSFORMATIONS)} "
        f"(default {','.join(DEFAULT)})",
    )
    _add_options(parser)
    parser.add_argument("--out", metavar="FILE", help="file for the audit, as JSON")
    parser.add_argument("--plot", metavar="FILE", help="file for the layerwise picture")


def _add_options(parser: argparse.ArgumentParser) -> None:
    standard = AuditConfig()
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        default=standard.images,
        help=f"most images taken (default {standard.images})",
    )
    closed = {
        "link": (tuple(LINKS), "outputs that are compared"),
        "resampling": (RESAMPLINGS, "images between their pixels"),
        "padding": (PADDINGS, "images beyond their border"),
    }
    for name, (choices, what) in closed.items():
        default = getattr(standard, name)
        parser.add_argument(
            f"--{name}", choices=choices, default=default, help=f"{what} (default {default})"
        )
    parser.add_argument("--no-layers", action="store_true", help="leave out the modules")
    parser.add_argument("--eq-t", action="store_true", help="EQ-T and EQ-T_frac of the modules too")
    parser.add_argument(
        "--probes",
        type=int,
        metavar="N",
        default=standard.most_probes,
        help=f"most backward passes per batch of images (default {standard.most_probes})",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Audit, print the tables or JSON, and write the files."""
    if options.plot is not None and options.no_layers:
        raise ValueError("--plot draws the modules: leave out --no-layers")
    check_file(options.out, "--out")
    check_file(options.plot, "--plot")
    given = prepared(options.data, options)
    model = trained(given, options)
    config = AuditConfig(
        images=options.images,
        layers=not options.no_layers,
        eq_t=options.eq_t,
        link=options.link,
        resampling=options.resampling,
        padding=options.padding,
        most_probes=options.probes,
        seed=options.seed,
        progress=console.progress,
    )
    found = audit(model, given.x, options.transform or DEFAULT, config)
    written = keep(found, options.out)
    if options.plot is not None:
        found.plot(options.plot)
        written.append(options.plot)
    console.report(found, written)
    return DONE
