"""What bad input is tried on: a small network, images, a fit, and things that are bad."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import symlearn
from symlearn import FitConfig, FitResult
from tests.bad_input.case import lazy, made
from tests.fit.problems import blobs, tiny_cnn, tiny_relaxed

NAN, INF = float("nan"), float("inf")
X, Y = blobs(12)
QUICK = FitConfig(
    epochs=2,
    burn_in=0.0,
    anneal=0.0,
    evidence_every=1,
    challenge_epochs=0,
    curvature_samples=12,
    report_samples=12,
    report_draws=1,
    progress=False,
)


def fit(model: Any, data: Any, **options: Any) -> FitResult:
    """A short fit with some options of `FitConfig`, or others of `symlearn.fit`."""
    own = {k: v for k, v in options.items() if k in FitConfig.__dataclass_fields__}
    others = {k: made(v) for k, v in options.items() if k not in own}
    return symlearn.fit(model, data, replace(QUICK, **own), **others)


@lazy
@cache
def fitted() -> FitResult:
    """One result, made once."""
    return fit(tiny_relaxed(), (X, Y))


@cache
def folder() -> Path:
    """An empty folder, beside which others are made."""
    return Path(tempfile.mkdtemp()) / "run"


@lazy
@cache
def saved() -> Path:
    """A folder with the result."""
    path = folder().with_name("saved")
    made(fitted()).save(path)
    return path


@lazy
@cache
def checkpoints() -> Path:
    """A folder with checkpoints of a fit."""
    path = folder().with_name("checkpoints")
    fit(tiny_relaxed(), (X, Y), checkpoint_dir=path)
    return path


@lazy
def returning(change: Callable[[Tensor], Any]) -> nn.Module:
    """A relaxed network whose outputs are changed."""
    return Returns(change)


class Returns(nn.Module):
    """A relaxed network, and what is done to its outputs."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = tiny_relaxed(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net(x))


@lazy
def reading() -> nn.Module:
    """A relaxed network that reads the weight of its head beside the head's call."""

    class Reads(Returns):
        def forward(self, x: Tensor) -> Any:
            return self.net(x) * self.net.get_parameter("6.weight").norm()

    return Reads(lambda y: y)


class Items(Dataset[Any]):
    """A dataset of eight items."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


class Later:
    """A loader whose batches change after some epochs.

    Args:
        then: Batches from then on.
        after: Passes over the data before.
    """

    def __init__(self, then: list[Any], after: int = 3) -> None:
        self.then, self.after, self.passes = then, after, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.then if self.passes > self.after else [(X, Y)])


@lazy
def with_nan(net: nn.Module) -> nn.Module:
    """A network with one NaN in its first weight."""
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] = NAN
    return net


@lazy
def scaled() -> nn.Module:
    """A relaxed network and a parameter of a module that no rule covers."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    return nn.Sequential(tiny_relaxed(), Scale())


@lazy
def normalised(**options: Any) -> nn.Module:
    """A relaxed network with a batch normalisation behind its pool."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2, **options),
        nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip
    return symlearn.wrap(net, X[:2])


@lazy
def cnn() -> nn.Module:
    """The plain network."""
    return tiny_cnn()


@lazy
def relaxed(classes: int = 2, **options: Any) -> nn.Module:
    """The relaxed network."""
    return tiny_relaxed(classes, **options)


@lazy
def wrapped() -> nn.Module:
    """The plain network, wrapped."""
    return symlearn.wrap(tiny_cnn(), X[:1])


@lazy
def on_meta(net: nn.Module) -> nn.Module:
    """A network without values."""
    return net.to("meta")


@lazy
def in_half(net: nn.Module) -> nn.Module:
    """A network in half precision."""
    return net.half()


@lazy
def frozen(net: nn.Module) -> nn.Module:
    """A network that cannot learn."""
    return net.requires_grad_(False)


@lazy
def report() -> symlearn.StructureReport:
    """The report of the result."""
    return made(fitted()).report  # type: ignore[no-any-return]
