"""What names of networks stand for, and what the options make of one."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from symlearn.cli.arguments import ARCH
from symlearn.datasets import ImageSet
from symlearn.lift import lift
from symlearn.models import paper_backbone, small_cnn
from symlearn.wrap import wrap

_COLOURS = 3


def plain(given: ImageSet, options: argparse.Namespace, seed: int) -> nn.Module:
    """The plain or lifted network that the options of `arguments.add_relaxed` describe.

    Raises:
        ValueError: If it cannot be built; see `network` and `symlearn.lift`.
    """
    built = network(options.arch, given, width=options.width, seed=seed)
    if options.lift is None:
        if options.lift_width is not None:
            raise ValueError("--lift-width is for lifted networks: give --lift too")
        return built
    width = 1.0 if options.lift_width is None else options.lift_width
    return lift(built, options.lift, width=width, seed=seed)


def relaxed(given: ImageSet, options: argparse.Namespace, seed: int) -> nn.Module:
    """The relaxed network that the options of `arguments.add_relaxed` describe.

    Raises:
        ValueError: If it cannot be built; see `plain` and `symlearn.wrap`.
    """
    return wrap(
        plain(given, options, seed),
        given.x[:2],
        paths=options.paths,
        layers=options.layers,
        boundary=options.boundary,
        seed=seed,
        memory_limit_gib=options.memory_limit,
    )


def network(name: str, given: ImageSet, *, width: int | None = None, seed: int = 0) -> nn.Module:
    """Build a plain network by name.

    Args:
        name: As `arguments.ARCH` says.
        given: Images it is for, which tell channels, classes and size.
        width: Width factor of ``small`` and ``paper``; None for their own.
        seed: Seed of the weights.

    Raises:
        ValueError: For an unknown name, or a width or channels that it cannot have.
        ModuleNotFoundError: If the library or module it names is not installed.
        TypeError: If a function returns something other than a network.
    """
    if width is not None and name not in _SIZED:
        raise ValueError(f"--width is for the networks {' and '.join(_SIZED)}, not for {name!r}")
    with torch.random.fork_rng(devices=()):  # others draw weights from the global generator
        torch.manual_seed(seed)
        if name in _SIZED:
            return _SIZED[name](given, width, seed)
        origin, colon, what = name.partition(":")
        if not colon:
            raise ValueError(f"unknown network {name!r}; give {ARCH}")
        if origin in LIBRARIES:
            return LIBRARIES[origin](what, given)
        return _own(origin, what)


def _small(given: ImageSet, width: int | None, seed: int) -> nn.Module:
    options: dict[str, Any] = {} if width is None else {"width": width}
    return small_cnn(given.classes, in_channels=given.x.shape[1], seed=seed, **options)


def _paper(given: ImageSet, width: int | None, seed: int) -> nn.Module:
    options: dict[str, Any] = {} if width is None else {"alpha": width}
    channels, size = given.x.shape[1], given.x.shape[-1]
    return paper_backbone(
        in_channels=channels, classes=given.classes, size=size, seed=seed, **options
    )


_SIZED: dict[str, Callable[[ImageSet, int | None, int], nn.Module]] = {
    "small": _small,
    "paper": _paper,
}


def _torchvision(what: str, given: ImageSet) -> nn.Module:
    if given.x.shape[1] != _COLOURS:
        raise ValueError(
            f"networks of torchvision take {_COLOURS} channels, the images have "
            f"{given.x.shape[1]}: give --rgb for grey images"
        )
    models = _library("torchvision.models")
    return _called(lambda: models.get_model(what, weights=None, num_classes=given.classes))


def _timm(what: str, given: ImageSet) -> nn.Module:
    timm = _library("timm")
    sizes = {"num_classes": given.classes, "in_chans": given.x.shape[1]}
    return _called(lambda: timm.create_model(what, pretrained=False, **sizes))


LIBRARIES: dict[str, Callable[[str, ImageSet], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}


def _own(module: str, what: str) -> nn.Module:
    """What a function of a module returns; the working directory is a place for modules."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = getattr(importlib.import_module(module), what, None)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module}:{what}: {error}; run the command in the folder of {module}.py, or install it"
        ) from error
    if found is None:
        raise ValueError(f"module {module!r} has no {what!r}")
    if isinstance(found, nn.Module) or not callable(found):
        raise TypeError(
            f"{module}:{what} is a {type(found).__name__}; give a function without arguments that "
            "returns the network"
        )
    built = found()
    if not isinstance(built, nn.Module):
        raise TypeError(
            f"{module}:{what} returned {type(built).__name__}; it must return an nn.Module"
        )
    return built


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{name.split('.')[0]} cannot be imported ({error}): "
            "pip install 'symlearn-torch[vision]'"
        ) from error


def _called(build: Callable[[], Any]) -> nn.Module:
    try:
        network: nn.Module = build()
    except Exception as error:  # what a library raises for an unknown name is its own business
        raise ValueError(f"the network cannot be built: {error}") from error
    return network
