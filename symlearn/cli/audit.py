"""``symlearn audit``: measure how far a network is from respecting transformations."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from torch import nn

from symlearn.audit import TRANSFORMATIONS, AuditConfig, audit, load_exported
from symlearn.audit.auditing import DEFAULT
from symlearn.audit.images import LINKS
from symlearn.audit.resample import PADDINGS, RESAMPLINGS
from symlearn.cli.arguments import Commands, add_images, add_threads
from symlearn.cli.inputs import network, prepared
from symlearn.datasets import ImageSet
from symlearn.fit import load

STDOUT = "-"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "audit", help="measure how far a network is from respecting transformations"
    )
    parser.add_argument(
        "model",
        help="folder of a saved result, a torch.export file (.pt2), module:function, "
        "torchvision:NAME or timm:NAME (with random weights)",
    )
    add_images(parser, required=True)
    parser.add_argument(
        "--transform",
        action="append",
        metavar="NAMES",
        help=f"comma-separated names, of {', '.join(TRANSFORMATIONS)} "
        f"(default {','.join(DEFAULT)})",
    )
    _add_options(parser)
    parser.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="print JSON instead of tables, or write it to FILE as well",
    )
    parser.add_argument("--plot", metavar="FILE", help="file for the layerwise picture")
    add_threads(parser)
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    standard = AuditConfig()
    parser.add_argument(
        "--images",
        type=int,
        default=standard.images,
        help=f"most images taken (default {standard.images})",
    )
    parser.add_argument("--link", choices=tuple(LINKS), default=standard.link)
    parser.add_argument("--resampling", choices=RESAMPLINGS, default=standard.resampling)
    parser.add_argument("--padding", choices=PADDINGS, default=standard.padding)
    parser.add_argument("--no-layers", action="store_true", help="leave out the modules")
    parser.add_argument("--eq-t", action="store_true", help="EQ-T and EQ-T_frac of the modules too")
    parser.add_argument(
        "--probes",
        type=int,
        default=standard.most_probes,
        help=f"most backward passes per batch of images (default {standard.most_probes})",
    )
    parser.add_argument(
        "--seed", type=int, default=standard.seed, help="seed of probes and elements (default 0)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Audit, print the tables or JSON, and write the files."""
    if options.plot is not None and options.no_layers:
        raise ValueError("--plot draws the modules: leave out --no-layers")
    for file in (options.json, options.plot):
        if file is not None and not Path(file).parent.is_dir():
            raise FileNotFoundError(f"cannot write {file}: its folder does not exist")
    given = prepared(options.data, options)
    model = _model(options.model, given, options.seed)
    names = DEFAULT if options.transform is None else ",".join(options.transform).split(",")
    config = AuditConfig(
        images=options.images,
        layers=not options.no_layers,
        eq_t=options.eq_t,
        link=options.link,
        resampling=options.resampling,
        padding=options.padding,
        most_probes=options.probes,
        seed=options.seed,
    )
    found = audit(model, given.x, names, config)
    as_json = options.json == STDOUT
    console.print(found.to_json() if as_json else str(found), markup=False)
    written = []
    if options.json is not None and not as_json:
        found.to_json(options.json)
        written.append(options.json)
    if options.plot is not None:
        found.plot(options.plot)
        written.append(options.plot)
    for file in [] if as_json else written:  # the output is for a program then
        console.print(f"wrote {file}", markup=False)
    return 0


def _model(name: str, given: ImageSet, seed: int) -> nn.Module:
    """The network that the argument names."""
    path = Path(name)
    if path.is_dir():
        return load(path).model
    if path.suffix == ".pt2":
        return load_exported(path)
    if path.exists() or ":" not in name:
        raise ValueError(
            f"{name!r} is no model: give the folder of a saved result, a torch.export file (.pt2) "
            "or module:function"
        )
    model = network(name, given, seed=seed)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned {type(model).__name__}; it must return an nn.Module")
    return model
