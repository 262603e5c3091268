"""`symlearn.certify`: search for the network with the best bound, and write its message."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import torch
from torch import nn

from curvature import Data, outputs_of
from curvature.checking import check_module, check_real, check_weights
from symlearn import architecture
from symlearn.certify.certificate import Certificate, collected, measure
from symlearn.certify.config import CertifyConfig
from symlearn.certify.search import Search
from symlearn.certify.start import all_on, kept_tensors, path_names
from symlearn.certify.subspace import FlatNetwork
from symlearn.certify.terms import Terms
from symlearn.certify.training import Pair, Schedule, train_whole
from symlearn.collapse.report import ATTRIBUTE
from symlearn.fit import FitResult
from symlearn.relaxed import enabled_paths


def certify(
    model: nn.Module | FitResult,
    train: Data,
    config: CertifyConfig | None = None,
    *,
    source: str = "",
) -> Certificate:
    """Bound the error of a network on new samples by how short a message can name it.

    The network is trained in random subspaces of several dimensions, its coefficients are
    quantised and coded, and the choice with the best bound is kept (Algorithm 2). The bound is for
    the network that the message names, in eval mode; `Certificate.assumptions` says what it takes
    for granted.

    Args:
        model: A network from inputs to one output per class, which is left alone; or the result of
            a fit, for its collapsed network: the message then says which paths are on.
        train: ``(X, y)``, a Dataset, or a DataLoader that does not shuffle; y are class indices.
        config: What is searched and how.
        source: Name of the data, which the certificate keeps.

    Returns:
        The certificate: print it, ``save`` it, ``verify`` it.

    Raises:
        TypeError: If the model or the data are of another kind.
        ValueError: If the data are no images with classes, the network cannot start as the config
            says, a subspace does not fit it, or the network was collapsed from a fit (its structure
            then came from the data: give the result instead).

    Example:
        >>> import symlearn, torch
        >>> from symlearn.certify import CertifyConfig
        >>> x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
        >>> y = (x[:, 0] > 0).long()
        >>> options = CertifyConfig(
        ...     dimensions=(9,), learning_rate=0.3, quantise_rates=(0.1,), progress=False
        ... )
        >>> certificate = symlearn.certify(torch.nn.Linear(5, 2), (x, y), options)
        >>> certificate.train_error < certificate.bound < 0.5
        True
        >>> certificate.verify((x, y)) == certificate.figures
        True
    """
    config = config or CertifyConfig()
    data = collected(train)
    start = _start(model, config)
    terms = _terms(start, config, data)
    _, used = terms.parts(len(data[0]))
    search = Search(terms, start.structure, start.model, _taken(data, used), config)
    found = search.run()
    best = min(found, key=lambda candidate: candidate.bound)
    figures = measure(best.written, terms, data, start.model)
    tried = tuple(candidate.told() for candidate in found)
    return Certificate(best.written, terms, figures, tried, source)


@dataclass(frozen=True)
class Start:
    """What is certified.

    Attributes:
        model: The network, as it was before its structure was learned.
        paths: Its paths whose presence is part of the message.
        structure: Whether each of them is on.
    """

    model: nn.Module
    paths: tuple[str, ...] = ()
    structure: tuple[bool, ...] = ()


def _start(given: nn.Module | FitResult, config: CertifyConfig) -> Start:
    """The network to certify, and the choices of a fit that the message has to name."""
    if isinstance(given, FitResult):
        if config.prior == "weights":
            return Start(given.collapse())
        paths = path_names(given.model)
        on = {
            f"{layer}.{name}".lstrip(".")
            for layer, names in enabled_paths(given.model).items()
            for name in names
        }
        return Start(given.model, paths, tuple(path in on for path in paths))
    check_module(given)
    check_real(given)
    check_weights(given)
    if ATTRIBUTE in vars(given) and config.prior != "weights":
        raise ValueError(
            "the network was collapsed from a fit, which chose its structure by data: give the "
            "result of the fit, so that the message says which paths are on; or prior='weights' if "
            "that fit did not see these data"
        )
    return Start(given)


def _terms(start: Start, config: CertifyConfig, data: Pair) -> Terms:
    """The prior; one of kind "split" is trained here."""
    description = architecture.describe(start.model)
    if description is not None:  # as it will be read from the file
        description = json.loads(json.dumps(all_on(description) if start.paths else description))
    kind = "fresh" if config.prior == "split" else config.prior
    terms = Terms(
        prior=kind,
        grid=config.grid(),
        projector=config.projector,
        seed=config.seed,
        split=config.split if config.prior == "split" else 0.0,
        delta=config.delta,
        bound=config.bound,
        alternatives=config.alternatives,
        architecture=description,
        paths=start.paths,
        tensors={} if start.paths else kept_tensors(start.model, kind),
    )
    network = terms.network(start.structure, start.model)
    _check_outputs(network, data)
    if config.prior != "split":
        return terms
    first, second = terms.parts(len(data[0]))
    if not (len(first) and len(second)):
        raise ValueError(f"split={config.split} of {len(data[0])} samples leaves a part empty")
    rates = (config.prior_epochs, config.prior_rate, config.batch_size, config.seed)
    network.put(train_whole(network, _taken(data, first), Schedule(*rates, lambda: None)))
    return replace(terms, prior="split", tensors=kept_tensors(network.model, "split"))


def _taken(data: Pair, index: torch.Tensor) -> Pair:
    x, y = data
    return x[index], y[index]


def _check_outputs(network: FlatNetwork, data: Pair) -> None:
    """Refuse a network that does not have one output per class for these inputs.

    Raises:
        ValueError: If it has not.
    """
    x, y = data
    out = outputs_of(network.model, x[:2])
    classes = int(y.max()) + 1
    if out.ndim != 2 or out.shape[1] < classes:
        raise ValueError(
            f"the network's outputs have shape {list(out.shape)} for 2 samples, and the targets "
            f"name {classes} classes; one output per class is needed, [N, {classes}] or more"
        )
