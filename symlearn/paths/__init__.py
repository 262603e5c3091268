"""The paths a relaxed layer can be a sum of: one file per path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from symlearn.paths.base import Path, PathSpec
from symlearn.paths.conv import Conv, ConvPath
from symlearn.paths.fc import FC, FCPath
from symlearn.paths.ffc import FFC, FFCPath
from symlearn.paths.gconv import GConv, GConvPath
from symlearn.paths.sconv import SConv, SConvPath
from symlearn.paths.sfc import SFC, SFCPath
from symlearn.paths.symconv import SymConv, SymConvPath

PATHS: dict[str, type[PathSpec]] = {
    spec.name: spec for spec in (Conv, FC, FFC, GConv, SConv, SFC, SymConv)
}


def as_specs(paths: str | PathSpec | Iterable[str | PathSpec]) -> tuple[PathSpec, ...]:
    """Turn path names and path objects into specs.

    Raises:
        ValueError: For an unknown name (the names are listed), a repeated path, or none at all.
        TypeError: For something that is neither a name nor a path object.
    """
    given: tuple[Any, ...] = (paths,)
    if isinstance(paths, Iterable) and not isinstance(paths, str):
        given = tuple(paths)
    unknown = [p for p in given if isinstance(p, str) and p not in PATHS]
    if unknown:
        raise ValueError(f"unknown paths {unknown}; the paths are {sorted(PATHS)}")
    wrong = [p for p in given if not isinstance(p, (str, PathSpec))]
    if wrong:
        raise TypeError(f"paths must be names or path objects such as FFC(), got {wrong}")
    specs = tuple(PATHS[p]() if isinstance(p, str) else p for p in given)
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) < len(names):
        raise ValueError(f"give at least one path and none twice, got {names}")
    return specs


__all__ = [
    "FC",
    "FFC",
    "PATHS",
    "SFC",
    "Conv",
    "ConvPath",
    "FCPath",
    "FFCPath",
    "GConv",
    "GConvPath",
    "Path",
    "PathSpec",
    "SConv",
    "SConvPath",
    "SFCPath",
    "SymConv",
    "SymConvPath",
    "as_specs",
]
