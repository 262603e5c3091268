"""What names on the command line stand for: images and networks."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.nn import functional as F

from symlearn import datasets
from symlearn.datasets import ImageSet
from symlearn.models import paper_backbone, small_cnn

Parts = tuple[ImageSet, ImageSet]


def _split(whole: ImageSet, n_train: int) -> Parts:
    train, test = whole.split(n_train, len(whole) - n_train, seed=0)
    return train, test


SOURCES: dict[str, Callable[[str], Parts]] = {
    "digits": lambda root: _split(datasets.digits(), 1400),
    "mnist5k": lambda root: _split(datasets.mnist5k(), 4000),
    "mnist": datasets.mnist,
    "fashion-mnist": datasets.fashion_mnist,
    "cifar10": datasets.cifar10,
}


def prepared(source: str, options: argparse.Namespace) -> ImageSet:
    """`images` with the preparation that the options ask for."""
    return images(source, options.root, options.size, rgb=options.rgb)


def images(
    source: str, root: str = "data", size: int | None = None, *, rgb: bool = False
) -> ImageSet:
    """Read images by the name of their source.

    Named sources are standardised by their training part, folders by themselves; NPZ files are
    taken as they are.

    Args:
        source: As `arguments.DATA` says.
        root: Folder of the downloaded sets.
        size: Height and width to resize to, in pixels.
        rgb: Repeat grey images over three channels.

    Raises:
        FileNotFoundError: If there is no such source or file.
        ValueError: If what is there cannot be read as images with classes.
    """
    found = _found(source, root, size)
    if rgb and found.x.shape[1] == 1:
        found = replace(found, x=found.x.repeat(1, 3, 1, 1))
    return found


def _found(source: str, root: str, size: int | None) -> ImageSet:
    name, _, part = source.partition(":")
    if name in SOURCES and part in ("", "train", "test"):
        train, test = (_resized(given, size) for given in SOURCES[name](root))
        return (test if part == "test" else train).standardised(train)
    if name == "folder":
        return datasets.image_folder(part, size).standardised()
    if name in SOURCES:
        raise ValueError(f"--data is {source!r}; the parts of {name} are train and test")
    return _resized(_from_file(source), size)


def network(name: str, given: ImageSet, *, width: int | None = None, seed: int = 0) -> nn.Module:
    """Build a plain network by name.

    Args:
        name: As `arguments.ARCH` says.
        given: Images it is for, which tell channels, classes and size.
        width: Width factor of ``small`` and ``paper``; None for their own.
        seed: Seed of the weights of ``small`` and ``paper``.

    Raises:
        ValueError: For an unknown name, or a width where it has no meaning.
        ModuleNotFoundError: If the library or module it names is not installed.
    """
    origin, colon, what = name.partition(":")
    facts: dict[str, Any] = {"in_channels": given.x.shape[1], "classes": given.classes}
    if name == "small":
        return small_cnn(**facts, seed=seed, **_unless_none(width=width))
    if name == "paper":
        size = given.x.shape[-1]
        return paper_backbone(**facts, size=size, seed=seed, **_unless_none(alpha=width))
    if width is not None:
        raise ValueError(f"--width is for the networks small and paper, not for {name!r}")
    if origin == "torchvision" and colon:
        models = _library("torchvision.models")
        return _called(lambda: models.get_model(what, weights=None, num_classes=given.classes))
    if origin == "timm" and colon:
        timm = _library("timm")
        sizes = {"num_classes": given.classes, "in_chans": given.x.shape[1]}
        return _called(lambda: timm.create_model(what, pretrained=False, **sizes))
    built: nn.Module = attribute(name, "--arch")()
    return built


def attribute(name: str, option: str) -> Any:
    """What ``module:attribute`` names; the working directory counts as a place for modules.

    Raises:
        ValueError: If it has another form or the module has no such attribute.
    """
    module, colon, what = name.partition(":")
    if not colon:
        raise ValueError(f"{option} is {name!r}; give one of its names or module:function")
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: Any = getattr(importlib.import_module(module), what, None)
    if found is None:
        raise ValueError(f"module {module!r} has no {what!r}")
    return found


def _unless_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


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


def _from_file(source: str) -> ImageSet:
    path = Path(source)
    if not path.is_file():
        known = ", ".join([*SOURCES, "folder:PATH"])
        raise FileNotFoundError(
            f"no such file: {source} (give an NPZ file with X and y, or one of {known})"
        )
    try:
        arrays = np.load(path, allow_pickle=False)
        x, y = arrays["X"], arrays["y"]
    except (KeyError, IndexError, OSError, ValueError) as error:
        raise ValueError(f"{source} is not an NPZ file with arrays X and y: {error}") from error
    return datasets.from_arrays(x, y)


def _resized(given: ImageSet, size: int | None) -> ImageSet:
    if size is None or given.x.shape[-2:] == (size, size):
        return given
    if size < 1:
        raise ValueError(f"--size is {size}; give at least 1 pixel")
    return replace(
        given, x=F.interpolate(given.x, size=(size, size), mode="bilinear", antialias=True)
    )
