"""The test kit for paths: it accepts those we ship, and finds what is wrong in others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.paths import PATHS, PathSpec
from symlearn.paths.conv import Conv, ConvPath
from symlearn.testing import assert_path, geometries

pytestmark = pytest.mark.core
# those that need a network over a group have layers of their own: tests/paths
OVER_GROUP = {"gconv"}


@pytest.mark.parametrize("name", sorted(set(PATHS) - OVER_GROUP))
def test_our_paths_pass(name: str) -> None:
    assert_path(PATHS[name]())


class Constant(ConvPath):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Born(ConvPath):
    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        nn.init.ones_(self.tested())


class Unscaled(ConvPath):
    def scale(self, size: float) -> None:
        super().scale(size**2)


class Undying(ConvPath):
    def switch_off(self) -> None:
        self.requires_grad_(False)


class Stuck(ConvPath):
    def start_at_zero(self, generator: torch.Generator) -> None:
        super().start_at_zero(generator)
        self.requires_grad_(False)


class Uphill(ConvPath):
    def seed(self, descent: Tensor, size: float) -> None:
        super().seed(-descent, size)


class Loud(ConvPath):
    def seed(self, descent: Tensor, size: float) -> None:
        super().seed(descent, 5 * size)


class Unready(ConvPath):
    def propose(self, x: Tensor, g: Tensor) -> None:
        nn.init.ones_(self.tested())


class Placed(ConvPath):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.arange(1.0, x.shape[-1] + 1, dtype=x.dtype))


class Doubled(ConvPath):
    def filters(self) -> Tensor:
        return 2 * super().filters()


class Unruled(ConvPath):
    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain

    def reset_parameters(self, generator: torch.Generator) -> None:
        super().reset_parameters(generator)
        nn.init.ones_(self.gain)

    def start_at_zero(self, generator: torch.Generator) -> None:
        super().start_at_zero(generator)
        nn.init.ones_(self.gain)

    def propose(self, x: Tensor, g: Tensor) -> None:
        super().propose(x, g)
        nn.init.ones_(self.gain)


class Broken(ConvPath):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.nan


def of(path: type[ConvPath], extra: int = 0) -> PathSpec:
    @dataclass(frozen=True)
    class Spec(Conv):
        name: ClassVar[str] = path.__name__.lower()

        def build(self, geometry: Geometry) -> ConvPath:
            return path(geometry)

        def n_params(self, geometry: Geometry) -> int:
            return super().n_params(geometry) + extra

    return Spec()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (Constant, "linearity"),
        (Born, "a new path's map"),
        (Unscaled, r"scale\(0.25\)"),
        (Undying, "switched off"),
        (Stuck, "does not require grad"),
        (Uphill, "does not lower the loss"),
        (Loud, r"seeded at size 1, its map has 4\.\d+ times"),
        (Unready, "not zero after propose"),
        (Placed, "a shift along axis 3"),
        (Doubled, r"filters\(\)"),
        (Broken, "zero or NaN"),
    ],
)
def test_it_finds_what_is_wrong(path: type[ConvPath], message: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=message):
        assert_path(of(path))


def test_it_finds_weights_without_a_rule_and_wrong_counts() -> None:
    with pytest.raises(ValueError, match="gain"):
        assert_path(of(Unruled, extra=1))
    with pytest.raises(AssertionError, match="n_params says"):
        assert_path(of(ConvPath, extra=1))


def test_the_factors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    count: Callable[..., Any] = Conv.factor_elements
    monkeypatch.setattr(Conv, "factor_elements", lambda self, geo: count(self, geo) + 1)
    with pytest.raises(AssertionError, match="factor_elements says"):
        assert_path(Conv())


def test_a_path_that_suits_no_layer() -> None:
    with pytest.raises(ValueError, match="suits none of the layers"):
        assert_path(PATHS["gconv"](), geometries())
