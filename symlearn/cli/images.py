"""What names of images stand for."""

from __future__ import annotations

import argparse
import math
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.nn import functional as F

from symlearn import datasets
from symlearn.datasets import ImageSet

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


MULTIPLES = {"paper": 32}
"""Network -> number of which the size of its images is a multiple."""


def prepared(source: str, options: argparse.Namespace) -> ImageSet:
    """Read images by the name of their source, and prepare them.

    Named sources are standardised by their training part, folders by themselves; NPZ files are
    taken as they are.

    Args:
        source: As `arguments.DATA` says.
        options: With what `arguments.add_images` has added.

    Raises:
        FileNotFoundError: If there is no such source or file.
        ValueError: If what is there cannot be read as images with classes.
    """
    if options.size is not None and options.size < 1:
        raise ValueError(f"--size is {options.size}; give at least 1 pixel")
    found = _found(source, options.root, options.size)
    side = _side(found, vars(options).get("arch"))
    if options.size is None and side is not None:
        warnings.warn(
            f"{source} is resized to {side}x{side}, since the network {options.arch} needs "
            f"multiples of {MULTIPLES[options.arch]}; --size {side} says so",
            stacklevel=2,
        )
        found = _found(source, options.root, side)
    if found.classes < 2:
        raise ValueError(f"{source} has images of one class only; give two classes or more")
    if options.samples is not None:
        found = _some(source, found, options.samples)
    if options.rgb and found.x.shape[1] == 1:
        found = replace(found, x=found.x.repeat(1, 3, 1, 1))
    return found


def _side(found: ImageSet, arch: str | None) -> int | None:
    """The size to resize to for a network, None if the images suit it."""
    height, width = found.x.shape[-2:]
    unit = MULTIPLES.get(arch or "", 1)
    if height == width and height % unit == 0:
        return None
    return unit * math.ceil(max(height, width) / unit) if unit > 1 else None


def _some(source: str, found: ImageSet, samples: int) -> ImageSet:
    """So many of the images, with the classes in the proportions of all."""
    if not found.classes <= samples <= len(found):
        raise ValueError(
            f"--samples is {samples}; {source} has {found.classes} classes and {len(found)} "
            "images: give a number between these"
        )
    return found.split(samples, seed=0)[0]


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


def _from_file(source: str) -> ImageSet:
    path = Path(source)
    if not path.is_file():
        known = ", ".join([*SOURCES, "folder:PATH"])
        raise FileNotFoundError(
            f"no such file: {source} (give an NPZ file with X and y, or one of {known})"
        )
    wanted = f"{source} is not an NPZ file with arrays X and y"
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle
        raise ValueError(f"{wanted}: numpy.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not {"X", "y"} <= set(arrays):
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}")
            x, y = arrays["X"], arrays["y"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wanted}: {error}") from error
    try:
        return datasets.from_arrays(x, y, name=path.stem)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _resized(given: ImageSet, size: int | None) -> ImageSet:
    if size is None or given.x.shape[-2:] == (size, size):
        return given
    return replace(
        given, x=F.interpolate(given.x, size=(size, size), mode="bilinear", antialias=True)
    )
