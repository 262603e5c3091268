"""The paths a relaxed layer can be a sum of: one file per path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from symlearn.paths.base import Path, PathSpec
from symlearn.paths.conv import Conv, ConvPath
from symlearn.paths.emlp import Emlp, EmlpPath
from symlearn.paths.fc import FC, FCPath
from symlearn.paths.ffc import FFC, FFCPath
from symlearn.paths.gconv import GConv, GConvPath
from symlearn.paths.lconv import LConv, LConvPath
from symlearn.paths.power import Power, PowerPath
from symlearn.paths.sconv import SConv, SConvPath
from symlearn.paths.sfc import SFC, SFCPath
from symlearn.paths.symconv import SymConv, SymConvPath

PATHS: dict[str, type[PathSpec]] = {
    spec.name: spec for spec in (Conv, FC, FFC, GConv, LConv, Power, SConv, SFC, SymConv)
}
"""Paths by name; `register` adds to them."""

_NO_NAME = (
    "'emlp' needs representations of a group: make a network by symlearn.relaxed_mlp(rep_in, "
    "rep_out, group), or give the path as symlearn.paths.Emlp(rep_in, rep_out)"
)


def register(spec: type[PathSpec]) -> type[PathSpec]:
    """Class decorator: a path of your own has its name in `wrap`, and in saved results.

    Raises:
        ValueError: If the name is another path's.
        TypeError: If it is no subclass of `PathSpec`, or has no name.
    """
    if not (isinstance(spec, type) and issubclass(spec, PathSpec) and hasattr(spec, "name")):
        raise TypeError(f"register takes a subclass of PathSpec with a name, got {spec!r}")
    if PATHS.get(spec.name, spec).__qualname__ != spec.__qualname__:  # a cell may be run again
        raise ValueError(f"there is a path {spec.name!r} already; the paths are {sorted(PATHS)}")
    PATHS[spec.name] = spec
    return spec


def as_specs(paths: str | PathSpec | Iterable[str | PathSpec]) -> tuple[PathSpec, ...]:
    """Turn path names and path objects into specs.

    A name may have an option behind a colon: "power:rotation", "gconv:p4m", "lconv:3". A layer can
    have several paths of a kind that takes a label: in text, the option is the label then.

    Raises:
        ValueError: For an unknown name (the names are listed), an option that the path does not
            take, a repeated path, or none at all.
        TypeError: For something that is neither a name nor a path object.
    """
    given: tuple[Any, ...] = (paths,)
    if isinstance(paths, Iterable) and not isinstance(paths, str):
        given = tuple(paths)
    unknown = [p for p in given if isinstance(p, str) and p.partition(":")[0] not in PATHS]
    if unknown:
        hint = f"; {_NO_NAME}" if Emlp.name in unknown else ""
        raise ValueError(f"unknown paths {unknown}; the paths are {sorted(PATHS)}{hint}")
    wrong = [p for p in given if not isinstance(p, (str, PathSpec))]
    if wrong:
        raise TypeError(f"paths must be names or path objects such as FFC(), got {wrong}")
    specs = tuple(_named(p) if isinstance(p, str) else p for p in given)
    names = [spec.name for spec in specs]
    specs = tuple(
        _labelled(spec, p) if isinstance(p, str) and names.count(spec.name) > 1 else spec
        for spec, p in zip(specs, given, strict=True)
    )
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) < len(names):
        raise ValueError(f"give at least one path and none twice, got {names}")
    return specs


def _named(text: str) -> PathSpec:
    """The path of a name, with the option behind its colon if there is one."""
    name, colon, option = text.partition(":")
    return PATHS[name].from_text(option) if colon else PATHS[name]()


def _labelled(spec: PathSpec, text: str) -> PathSpec:
    """The path under the name of its text, if its kind takes labels; verdicts join names by "+"."""
    labels = is_dataclass(spec) and "label" in {field.name for field in fields(spec)}
    return replace(cast(Any, spec), label=text.replace("+", "-")) if labels else spec


__all__ = [
    "FC",
    "FFC",
    "PATHS",
    "SFC",
    "Conv",
    "ConvPath",
    "Emlp",
    "EmlpPath",
    "FCPath",
    "FFCPath",
    "GConv",
    "GConvPath",
    "LConv",
    "LConvPath",
    "Path",
    "PathSpec",
    "Power",
    "PowerPath",
    "SConv",
    "SConvPath",
    "SFCPath",
    "SymConv",
    "SymConvPath",
    "as_specs",
    "register",
]
