"""``symlearn certify``: bound the error on new images by compression, and check such a bound."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console
from torch import nn

from symlearn.certify import Certificate, CertifyConfig, certify
from symlearn.certify.bounds import BOUNDS
from symlearn.certify.config import PRIORS
from symlearn.certify.projectors import PROJECTORS
from symlearn.cli.arguments import ARCH, Commands, add_images, add_threads
from symlearn.cli.inputs import network, prepared
from symlearn.datasets import ImageSet
from symlearn.fit import FitResult, load

_DEFAULT = CertifyConfig()


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("certify", help="bound the error on new images; check a bound")
    parser.add_argument(
        "--verify", metavar="FILE", help="check this certificate; --data if it names no source"
    )
    add_images(parser, required=False)
    add_threads(parser)
    parser.add_argument("--arch", default="small", help=ARCH)
    parser.add_argument("--width", type=int, help="width factor of the networks small and paper")
    parser.add_argument(
        "--result", metavar="DIR", help="certify the collapsed network of this saved result instead"
    )
    parser.add_argument("--out", metavar="FILE", help="file for the certificate")
    _add_search(parser)
    parser.set_defaults(run=run)


def _add_search(parser: argparse.ArgumentParser) -> None:
    """Add the options that `CertifyConfig` documents; lists are comma-separated."""
    lists: dict[str, Callable[[str], Any]] = {
        **{"dimensions": int, "levels": int},
        **{"quantise_rates": float, "inits": str},
    }
    for name, kind in lists.items():
        shown = ",".join(map(str, getattr(_DEFAULT, name)))
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=partial(_list, kind),
            metavar="LIST",
            default=getattr(_DEFAULT, name),
            help=f"to search over (default {shown})",
        )
    closed = {"prior": PRIORS, "projector": PROJECTORS, "bound": BOUNDS}
    for name, choices in closed.items():
        default = getattr(_DEFAULT, name)
        parser.add_argument(
            f"--{name}", choices=list(choices), default=default, help=f"default {default}"
        )
    numbers = ("split", "delta", "learning_rate", "prior_rate")
    counts = ("epochs", "quantise_epochs", "prior_epochs", "batch_size", "alternatives", "seed")
    for name in (*numbers, *counts):
        default = getattr(_DEFAULT, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name in counts else float,
            default=default,
            help=f"default {default}",
        )


def _list(kind: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    return tuple(kind(part) for part in text.split(","))


def run(options: argparse.Namespace, console: Console) -> int:
    """Make a certificate, or check one."""
    if options.verify is not None:
        return _verify(options, console)
    if options.data is None or options.out is None:
        raise ValueError("give --data and --out to make a certificate, or --verify to check one")
    given = prepared(options.data, options)
    names = [name for name in vars(_DEFAULT) if name != "progress"]
    config = CertifyConfig(**{name: getattr(options, name) for name in names})
    certificate = certify(_model(options, given), given.pair, config, source=options.data)
    certificate.save(options.out)
    console.print(str(certificate), markup=False)
    console.print(f"wrote {options.out}", markup=False)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    certificate = Certificate.load(options.verify)
    source = options.data or certificate.source
    if not source:
        raise ValueError(f"{options.verify} does not say what its data are: give --data")
    given = prepared(source, options)
    described = certificate.terms.architecture is not None
    found = certificate.verify(given.pair, None if described else _base(options, given))
    console.print(str(certificate), markup=False)
    console.print(
        f"verified on {source}: {found.wrong} mistakes in {found.n}, bound "
        f"{found.bounds[certificate.terms.bound]:.2%}",
        markup=False,
    )
    return 0


def _model(options: argparse.Namespace, given: ImageSet) -> nn.Module | FitResult:
    if options.result is not None:
        return load(options.result)
    return network(options.arch, given, width=options.width, seed=options.seed)


def _base(options: argparse.Namespace, given: ImageSet) -> nn.Module:
    """The network of a certificate that has no description of it."""
    model = _model(options, given)
    return model.model if isinstance(model, FitResult) else model
