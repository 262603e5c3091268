"""Which convolutions to relax, and whether they can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, TypeAlias

from torch import nn

from symlearn.observe import CONV_TYPES, Site, why_left_alone
from symlearn.paths import PathSpec, as_specs


@dataclass(frozen=True)
class LastStages:
    """Selects the layers of the last stages; see `last_stages`."""

    count: int


def last_stages(count: int) -> LastStages:
    """Select the convolutions of a network's last stages, for ``layers=``.

    A stage is a longest run of convolutions, in the order they first run, with equal size of
    output map. Convolutions on a single site (squeeze-and-excitation, heads) belong to the stage
    they stand in. A convolution that a bottleneck places before its strided one still has the
    large map, and so belongs to the stage before.

    Args:
        count: Number of stages.

    Raises:
        TypeError: If the count is not an integer.
        ValueError: If it is not positive.

    Example:
        >>> import torch, symlearn
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.MaxPool2d(2),
        ...     torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.Conv2d(2, 2, 1))
        >>> x = torch.randn(1, 1, 8, 8)
        >>> plan = symlearn.plan(cnn, x, layers=symlearn.last_stages(1))
        >>> print(*(row.layer for row in plan.relaxed))
        2 3
    """
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"last_stages takes a number of stages, got {count!r}")
    if count < 1:
        raise ValueError(f"last_stages({count}): give at least one stage")
    return LastStages(count)


Selection: TypeAlias = "str | Iterable[str] | Callable[[str, nn.Module], bool] | LastStages | None"

PathsFor: TypeAlias = (
    "str | PathSpec | Iterable[str | PathSpec] | Mapping[str, str | PathSpec | Iterable[Any]]"
)


def stages(convs: Sequence[Site]) -> list[list[Site]]:
    """Split the convolutions that ran into stages; see `last_stages`."""
    sizes = [conv.out_size for conv in convs]
    for i, conv in enumerate(convs):
        if i and math.prod(conv.in_size) == math.prod(conv.out_size) == 1:
            sizes[i] = sizes[i - 1]
    runs = groupby(zip(sizes, convs, strict=True), key=lambda pair: pair[0])
    return [[conv for _, conv in run] for _, run in runs]


def select(sites: Sequence[Site], layers: Selection) -> list[str]:
    """Names of the selected convolutions.

    Args:
        sites: The convolutions that ran on the example; those left alone are never selected.
        layers: See `symlearn.wrap`.

    Raises:
        ValueError: If a pattern matches nothing, there are fewer stages, or nothing is selected;
            the names are listed.
        TypeError: If a pattern is not a string.
    """
    convs = [site for site in sites if why_left_alone(site.module) is None]
    names = [conv.name for conv in convs]
    there = f"those that ran on the example are {names}{_also_ran(sites)}"
    if layers is None:
        picked = names
    elif isinstance(layers, LastStages):
        found = stages(convs)
        if layers.count > len(found):
            raise ValueError(f"last_stages({layers.count}): the network has {len(found)} stages")
        picked = [conv.name for stage in found[-layers.count :] for conv in stage]
    elif callable(layers):
        picked = [conv.name for conv in convs if layers(conv.name, conv.module)]
    elif not isinstance(layers, Iterable):
        raise TypeError(f"layers takes names, patterns or one predicate, got {layers!r}")
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        wrong = [p for p in patterns if not isinstance(p, str)]
        if wrong:
            raise TypeError(f"layers takes names, patterns or one predicate, got {wrong}")
        idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
        if idle:
            raise ValueError(f"no convolution is named {idle}; {there}")
        picked = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not picked:
        raise ValueError(f"no convolution is selected; {there}")
    return picked


def assign(chosen: Sequence[str], paths: PathsFor) -> dict[str, tuple[PathSpec, ...]]:
    """The paths of each selected layer; layers that no pattern of a mapping matches are left out.

    Args:
        chosen: Names of the selected layers.
        paths: See `symlearn.wrap`.

    Raises:
        ValueError: As `as_specs`; or if a pattern of a mapping matches no selected layer.
        TypeError: As `as_specs`.
    """
    if not isinstance(paths, Mapping):
        return dict.fromkeys(chosen, as_specs(paths))
    table = {pattern: as_specs(given) for pattern, given in paths.items()}
    idle = [p for p in table if not any(fnmatchcase(name, p) for name in chosen)]
    if idle or not table:
        raise ValueError(f"paths names no selected convolution with {idle}; they are {chosen}")
    first = {name: next((p for p in table if fnmatchcase(name, p)), None) for name in chosen}
    return {name: table[pattern] for name, pattern in first.items() if pattern is not None}


def left_alone(sites: Iterable[Site]) -> dict[str, list[str]]:
    """Names of the convolutions that are never relaxed, by reason."""
    found: dict[str, list[str]] = {}
    for site in sites:
        reason = why_left_alone(site.module)
        if reason is not None:
            found.setdefault(reason, []).append(site.name)
    return found


def _also_ran(sites: Sequence[Site]) -> str:
    reasons = [f"{names} ({reason})" for reason, names in left_alone(sites).items()]
    return "; left alone are " + ", ".join(reasons) if reasons else ""


def obstacles(model: nn.Module, sites: Sequence[Site]) -> dict[str, list[str]]:
    """Why modules cannot be replaced without loss, by name; those that can be are left out."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, list[str]] = {}
    for site in sites:
        reasons = found.setdefault(site.name, [])
        if not site.name:
            reasons.append("is the whole model; put it into nn.Sequential(conv)")
        if "forward" in vars(site.module):
            reasons.append("has a forward method of its own, which would be lost")
        sizes = list(dict.fromkeys(size for size, _ in site.calls))
        if isinstance(site.module, CONV_TYPES) and len(sizes) > 1:
            reasons.append(f"runs on several input sizes in one pass: {[list(s) for s in sizes]}")
        if any(owners[id(p)] > 1 for p in site.module.parameters(recurse=False)):
            reasons.append("shares its weights with another module")
        if _has_hooks(site.module):
            reasons.append("carries hooks, which would be lost; remove them first")
    return {name: reasons for name, reasons in found.items() if reasons}


def unsuited(
    planned: Iterable[tuple[Site, PathSpec]], circular: bool = False
) -> dict[str, list[str]]:
    """Why paths cannot stand in layers, by name of the layer; those that can are left out.

    Args:
        planned: Layers and the paths they are to have.
        circular: Whether the layers will be circular.
    """
    found: dict[str, list[str]] = {}
    for site, spec in planned:
        geometry = site.geometry.as_circular(site.out_size) if circular else site.geometry
        for reason in spec.unsuited(geometry):
            found.setdefault(site.name, []).append(f"path {spec.name!r}: {reason}")
    return found


def check_replaceable(model: nn.Module, sites: Sequence[Site]) -> None:
    """Check that replacing convolutions (and pools) by other modules loses nothing.

    Raises:
        ValueError: If a module carries hooks or a forward method of its own, or a convolution is
            the model itself, runs on several sizes, or shares its weights with another module; all
            such layers are named.
    """
    found = obstacles(model, sites)
    problems = [f"{name or 'it'} {reason}" for name, reasons in found.items() for reason in reasons]
    if problems:
        raise ValueError(
            "these layers cannot be replaced (layers=... can leave convolutions out unless the "
            "boundary is circular):\n  " + "\n  ".join(problems)
        )


def _has_hooks(module: Any) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
