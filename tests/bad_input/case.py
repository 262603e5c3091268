"""What a case of bad input is: what was given, what is done with it, and what is said to it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symlearn import FitResult


@dataclass(frozen=True)
class Lazy:
    """A thing that is made when it is needed.

    Attributes:
        make: Makes it.
        args: Arguments, which may be lazy.
        options: Keyword arguments.
    """

    make: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def lazy(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes its thing only when it is needed."""

    @wraps(make)
    def later(*args: Any, **options: Any) -> Any:
        return Lazy(make, args, options)

    return later


def made(thing: Any) -> Any:
    """A thing itself, where it is lazy."""
    if isinstance(thing, Lazy):
        return thing.make(*map(made, thing.args), **thing.options)
    return thing


@dataclass(frozen=True)
class Bad:
    """A case of bad input.

    Attributes:
        given: What was given, in words.
        act: What is done with it, of `things`.
        things: What must not change, lazy or not; a path is to a folder.
        error: Exact type of the error.
        says: Part of its text.
        cut: End of the part of its text that is the package's own; another library's follows.
    """

    given: str
    act: Callable[..., object]
    things: Sequence[object]
    error: type[Exception]
    says: str
    cut: str = ""

    @cached_property
    def made(self) -> list[Any]:
        """The things themselves."""
        return [made(thing) for thing in self.things]

    def text(self, error: BaseException) -> str:
        """The error's text in one line, as the page shows it."""
        said = str(error)
        for folder in (thing for thing in self.made if isinstance(thing, Path)):
            said = said.replace(str(folder), "run")
        if self.cut:
            said = said[: said.index(self.cut) + len(self.cut)] + " ..."
        return re.sub(r"\s+", " ", said).strip()

    def row(self, error: BaseException) -> str:
        """Row of the page's table."""
        said = self.text(error).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        return f"| {self.given} | `{type(error).__name__}` | {said} |"


def fingerprint(thing: object) -> object:
    """All that a user would miss of a thing if it changed; equal where nothing did."""
    if isinstance(thing, nn.Module):
        return [
            (name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
            for name, module in thing.named_modules()
        ], fingerprint({**thing.state_dict(keep_vars=True)})
    if isinstance(thing, nn.UninitializedParameter):
        return "without values"
    if isinstance(thing, Tensor):
        values = thing.detach()
        return (
            thing.requires_grad,
            thing.grad is None,
            tuple(thing.shape),
            "meta" if thing.is_meta else values.to_dense().cdouble().numpy().tobytes(),
        )
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if isinstance(thing, FitResult):
        return fingerprint([thing.model, thing.prior.state_dict(), thing.report.to_json()])
    if isinstance(thing, Path):
        files = sorted(path for path in thing.rglob("*") if path.is_file())
        return [(str(path), path.read_bytes()) for path in files]
    if isinstance(thing, Mapping):
        return {key: fingerprint(value) for key, value in thing.items()}
    if isinstance(thing, (tuple, list)):
        return [fingerprint(part) for part in thing]
    return repr(thing) if isinstance(thing, (str, int, float)) else id(thing)


def random_state() -> object:
    """States of all global generators of random numbers."""
    keys: Any = np.random.get_state()[1]
    return torch.get_rng_state().tolist(), keys.tolist(), random.getstate()
