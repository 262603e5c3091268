"""Saved results on the command line, also of networks that are not made of standard modules.

How such a network was made is kept beside its weights, in a file of its own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn

from symlearn import architecture
from symlearn.audit import load_exported
from symlearn.cli.arguments import MODEL
from symlearn.cli.networks import LIBRARIES, network, relaxed
from symlearn.datasets import ImageSet
from symlearn.fit import FitResult, load
from symlearn.fit.saving import NETWORK
from symlearn.plainfile import load_plain
from symlearn.report import files, schema
from symlearn.verdict import SeedsResult

FORMAT = "symlearn.network/1"


@dataclass(frozen=True)
class Recipe:
    """What `networks.relaxed` needs.

    Attributes:
        shape: Shape of an image, [C, H, W].
        classes: Number of classes.
        arch: The option ``--arch``; the others are options of their names too.
    """

    shape: tuple[int, ...]
    classes: int
    arch: str
    width: int | None
    paths: tuple[str, ...]
    layers: tuple[str, ...]
    lift: str | None
    lift_width: float | None
    boundary: str
    memory_limit: float


_OPTIONS = [field.name for field in fields(Recipe) if field.name not in ("shape", "classes")]


def save(
    result: FitResult | SeedsResult, folder: str, options: argparse.Namespace, given: ImageSet
) -> None:
    """Save a result, of one seed or several, of the network that the options describe.

    Raises:
        OSError: If it cannot be written.
    """
    result.save(folder)
    fits = (
        {"": result}
        if isinstance(result, FitResult)
        else {f"seed-{seed}": one for seed, one in result.results.items()}
    )
    for name, fitted in fits.items():
        if architecture.describe(fitted.model) is None:
            chosen = {option: getattr(options, option) for option in _OPTIONS}
            chosen["layers"] = options.layers or ()
            recipe = Recipe(tuple(given.x.shape[1:]), given.classes, **chosen)
            files.deliver(schema.dumps(recipe, FORMAT), Path(folder, name, NETWORK))


def read(folder: str | Path, arch: str | None) -> FitResult:
    """Read a result.

    Args:
        folder: The folder.
        arch: The option ``--arch``, which allows the function of a module to be called.

    Raises:
        FileNotFoundError: If it is no result.
        ValueError: If it is damaged, or made by a function that is not allowed.
    """
    path = Path(folder, NETWORK)
    return load(folder, _network(path, arch) if path.is_file() else None)


def _network(path: Path, arch: str | None) -> nn.Module:
    recipe = schema.loads(files.fetch(path), Recipe, FORMAT)
    if recipe.arch.partition(":")[0] not in LIBRARIES and recipe.arch != arch:
        raise ValueError(
            f"{path.parent} has a network that the function {recipe.arch} makes: give "
            f"--arch {recipe.arch} to let it run"
        )
    blank = torch.zeros(2, *recipe.shape)
    given = ImageSet(blank, torch.zeros(2, dtype=torch.int64), recipe.classes, "blank")
    options = argparse.Namespace(**{name: getattr(recipe, name) for name in _OPTIONS})
    options.layers = recipe.layers or None
    return relaxed(given, options, 0)


def trained(given: ImageSet, options: argparse.Namespace) -> nn.Module:
    """The network that the options of `arguments.add_model` name.

    Args:
        given: Images it is for.
        options: With ``seed`` too, for weights that are random.

    Raises:
        ValueError: If it is none of these, or damaged.
        TypeError: If a function returns something other than a network.
    """
    name: str = options.model
    path = Path(name)
    if path.is_dir():
        return read(path, options.arch).model
    if path.suffix == ".pt2":
        return load_exported(path)
    if path.suffix == ".safetensors":
        return load_plain(path)
    if path.exists() or ":" not in name:
        raise ValueError(f"{name!r} is no model: give {MODEL}")
    return network(name, given, seed=options.seed)
