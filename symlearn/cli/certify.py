"""``symlearn certify``: bound the error on new images by compression, and check such a bound."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from symlearn.certify import Certificate, CertifyConfig, certify
from symlearn.certify.bounds import BOUNDS
from symlearn.certify.config import PRIORS
from symlearn.certify.projectors import PROJECTORS
from symlearn.cli.arguments import (
    DONE,
    Commands,
    add_architecture,
    add_images,
    command,
    names,
    numbers,
)
from symlearn.cli.console import Console
from symlearn.cli.images import prepared
from symlearn.cli.networks import network
from symlearn.cli.outputs import check_file
from symlearn.cli.results import read
from symlearn.datasets import ImageSet
from symlearn.fit import FitResult
from symlearn.report import schema

FORMAT = "symlearn.certify/1"
_DEFAULT = CertifyConfig()


@dataclass(frozen=True)
class Certified:
    """A bound that holds, for JSON; see `Certificate`.

    Attributes:
        bound: Largest error on new samples.
        kind: Name of the bound.
        delta: Probability that it fails.
        bounds: Every bound by name.
        vacuous: Whether the bound says no more than always naming the most frequent class would.
        train_error: Error on the training samples.
        n_data: Samples that the bound is formed on.
        message_bits: Length of the message that names the network.
        source: The data.
    """

    bound: float
    kind: str
    delta: float
    bounds: dict[str, float]
    vacuous: bool
    train_error: float
    n_data: int
    message_bits: int
    source: str


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "certify",
        run,
        about="bound the error on new images, or check such a bound",
        examples={
            "symlearn certify --data digits --width 4 --out digits.cert": "make a certificate",
            "symlearn certify --result run/ --data digits --out run.cert": "of a fit's network",
            "symlearn certify --verify digits.cert": "check it; the status is 2 if it is wrong",
        },
    )
    parser.add_argument(
        "--verify", metavar="FILE", help="check this certificate; --data if it names no source"
    )
    add_images(parser, required=False)
    add_architecture(parser)
    parser.add_argument(
        "--result", metavar="DIR", help="certify the collapsed network of this saved result instead"
    )
    parser.add_argument("--out", metavar="FILE", help="file for the certificate")
    _add_search(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    """Add the options that `CertifyConfig` documents; lists are comma-separated."""
    lists: dict[str, Callable[[str], Any]] = {
        **{"dimensions": numbers(int), "levels": numbers(int)},
        **{"quantise_rates": numbers(float), "inits": names},
    }
    for name, kind in lists.items():
        shown = ",".join(map(str, getattr(_DEFAULT, name)))
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="LIST",
            default=getattr(_DEFAULT, name),
            help=f"to search over (default {shown})",
        )
    closed = {"prior": PRIORS, "projector": PROJECTORS, "bound": BOUNDS}
    for name, choices in closed.items():
        default = getattr(_DEFAULT, name)
        parser.add_argument(
            f"--{name}",
            choices=list(choices),
            metavar="NAME",
            default=default,
            help=f"{', '.join(choices)} (default {default})",
        )
    rates = ("split", "delta", "learning_rate", "prior_rate")
    counts = ("epochs", "quantise_epochs", "prior_epochs", "batch_size", "alternatives", "seed")
    for name in (*rates, *counts):
        default = getattr(_DEFAULT, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name in counts else float,
            metavar="N" if name in counts else "X",
            default=default,
            help=f"default {default}",
        )


def run(options: argparse.Namespace, console: Console) -> int:
    """Make a certificate, or check one."""
    if options.verify is not None:
        return _verify(options, console)
    if options.data is None or options.out is None:
        raise ValueError("give --data and --out to make a certificate, or --verify to check one")
    check_file(options.out, "--out", made=True)
    chosen = {name: getattr(options, name) for name in vars(_DEFAULT) if name != "progress"}
    config = CertifyConfig(**chosen, progress=console.progress)
    given = prepared(options.data, options)
    certificate = certify(_model(options, given), given.pair, config, source=options.data)
    certificate.save(options.out)
    console.say(str(certificate))
    console.finish(_as_json(certificate, options.data), "", [options.out])
    return DONE


def _verify(options: argparse.Namespace, console: Console) -> int:
    certificate = Certificate.load(options.verify)
    source = options.data or certificate.source
    if not source:
        raise ValueError(f"{options.verify} does not say what its data are: give --data")
    given = prepared(source, options)
    described = certificate.terms.architecture is not None
    found = certificate.verify(given.pair, None if described else _base(options, given))
    bound = f"{found.bounds[certificate.terms.bound]:.2%}"
    console.say(str(certificate))
    console.say(f"verified on {source}: {found.wrong} mistakes in {found.n}, bound {bound}")
    console.finish(_as_json(certificate, source), bound)
    return DONE


def _as_json(certificate: Certificate, source: str) -> str:
    found, terms = certificate.figures, certificate.terms
    figures = Certified(
        bound=certificate.bound,
        kind=terms.bound,
        delta=terms.delta,
        bounds=dict(found.bounds),
        vacuous=certificate.vacuous,
        train_error=certificate.train_error,
        n_data=found.n,
        message_bits=certificate.message_bits,
        source=source,
    )
    return schema.dumps(figures, FORMAT)


def _model(options: argparse.Namespace, given: ImageSet) -> nn.Module | FitResult:
    if options.result is not None:
        return read(options.result, options.arch)
    return network(options.arch, given, width=options.width, seed=options.seed)


def _base(options: argparse.Namespace, given: ImageSet) -> nn.Module:
    """The network of a certificate that has no description of it."""
    model = _model(options, given)
    return model.model if isinstance(model, FitResult) else model
