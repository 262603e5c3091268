"""Checks for those who write a path: does it do what the fit relies on?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
from curvature.testing import assert_rule
from symlearn.geometry import Geometry
from symlearn.paths import Path, PathSpec
from symlearn.relaxed import dense_map

_START = 3.0  # by which a start of size 1 may differ from a fresh path


def geometries() -> list[Geometry]:
    """Small layers that a path for images meets: odd sizes, a stride, circular boundaries."""
    plain = [
        (nn.Conv2d(2, 3, 3, padding=1), (4, 5), (4, 5)),
        (nn.Conv2d(2, 4, (3, 2), stride=2, padding=(1, 0)), (6, 4), (3, 2)),
    ]
    circular = [
        (nn.Conv2d(2, 3, 3, padding=1), (4, 4), (4, 4)),
        (nn.Conv2d(1, 2, 3, stride=2, padding=1), (4, 6), (2, 3)),
    ]
    return [
        *(Geometry.of(conv, size, out) for conv, size, out in plain),
        *(Geometry.of(conv, size, size).as_circular(out) for conv, size, out in circular),
    ]


def assert_path(
    spec: PathSpec, layers: Iterable[Geometry] | None = None, *, tol: float = 1e-9, seed: int = 0
) -> None:
    """Check a path in several layers, in float64.

    * counts: weights and curvature factors are as many as the spec predicts;
    * map: linear, without a constant, of the layer's shapes, and zero in a new path;
    * size: `Path.scale` multiplies the map;
    * absence: `switch_off` and `start_at_zero` make the map zero, and gradients then reach it;
    * test: after `propose`, `tested` is a weight at zero, and `seed` lowers a loss;
    * start: seeded at size 1 along a descent, the map is at most three times as large as a freshly
      drawn one, and at least a third: it is the map that counts, whatever weights it is made of;
    * symmetry: a path that reads aligned inputs commutes with shifts of circular maps, and
      `filters`, where it has them, are those of the same convolution;
    * curvature: every weight has a rule, which states the Jacobian (`curvature.testing`).

    Args:
        spec: The path.
        layers: Geometries of layers; `geometries` by default, those left out that do not suit.
        tol: Largest error relative to the largest entry.
        seed: Seed of the random numbers.

    Raises:
        AssertionError: If one of these does not hold, or a NaN appears.
        ValueError: If the path suits none of the layers.

    Example:
        >>> import symlearn.testing
        >>> symlearn.testing.assert_path(symlearn.paths.FFC())
    """
    suited = [geo for geo in layers or geometries() if not spec.unsuited(geo)]
    if not suited:
        raise ValueError(f"path {spec.name!r} suits none of the layers")
    json.dumps(spec.options())
    for geometry in suited:
        _Check(spec, geometry, tol, seed).run()


class _Check:
    """The laws, for one path in one layer."""

    def __init__(self, spec: PathSpec, geometry: Geometry, tol: float, seed: int) -> None:
        self.spec, self.geometry, self.tol = spec, geometry, tol
        self.draw = torch.Generator().manual_seed(seed)

    def run(self) -> None:
        """All of them."""
        self._counts()
        self._map()
        self._absence()
        self._relevance()
        self._start()
        if self.geometry.circular and self._drawn().reads_aligned:
            self._shifts()
        self._filters()
        self._curvature()

    def _random(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.draw, dtype=torch.float64)

    def _inputs(self, n: int = 3) -> Tensor:
        return self._random(n, self.geometry.in_channels, *self.geometry.in_size)

    def _drawn(self) -> Path:
        path = self.spec.build(self.geometry).double()
        path.reset_parameters(self.draw)
        return path

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise AssertionError(f"path {self.spec.name!r} in {self.geometry}: {what}")

    def _close(self, what: str, got: Tensor, want: Tensor) -> None:
        self._require(
            got.shape == want.shape, f"{what}: shape {list(got.shape)}, not {list(want.shape)}"
        )
        error, size = float((got - want).detach().abs().max()), float(want.detach().abs().max())
        # also false for NaN
        self._require(error <= self.tol * max(size, 1), f"{what}: off by {error:.3g}")

    def _counts(self) -> None:
        path = self.spec.build(self.geometry)
        held = sum(p.numel() for p in path.parameters())
        said = self.spec.n_params(self.geometry)
        self._require(held == said, f"{held} weights, n_params says {said}")

    def _map(self) -> None:
        path, x, other = self._drawn(), self._inputs(), self._inputs()
        out = path(x)
        shape = (len(x), self.geometry.out_channels, *self.geometry.out_size)
        self._require(tuple(out.shape) == shape, f"output {list(out.shape)}, not {list(shape)}")
        self._require(bool(out.detach().abs().max() > 0), "a freshly drawn path is zero or NaN")
        self._close("linearity", path(2 * x - 3 * other), 2 * out - 3 * path(other))
        self._close("a new path's map", self.spec.build(self.geometry).double()(x), 0 * out)
        before = out.detach()
        path.scale(0.25)
        self._close("scale(0.25)", path(x), 0.25 * before)

    def _absence(self) -> None:
        path, x = self._drawn(), self._inputs()
        path.switch_off()
        self._close("the map when switched off", path(x), 0 * path(x))
        self._require(not path.contributes(), "it contributes when switched off")
        frozen = not any(p.requires_grad for p in path.parameters())
        self._require(frozen, "a weight is trainable when switched off")
        path.switch_on()
        path.start_at_zero(self.draw)
        self._require(not path.contributes(), "it contributes after start_at_zero")
        path(x).sum().backward()
        reached = any(p.grad is not None and bool(p.grad.any()) for p in path.parameters())
        self._require(reached, "no gradient reaches it after start_at_zero")

    def _descent(self, path: Path, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a path at its tested point, and the descent there."""
        path.propose(x, -target)
        loss = 0.5 * F.mse_loss(path(x), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, path.tested())
        return loss.detach(), -gradient

    def _target(self, n: int) -> Tensor:
        return self._random(n, self.geometry.out_channels, *self.geometry.out_size)

    def _relevance(self) -> None:
        path, x = self._drawn(), self._inputs(8)
        target = self._target(8)
        before, descent = self._descent(path, x, target)
        tested = path.tested()
        self._require(any(tested is p for p in path.parameters()), "tested() is no parameter")
        self._require(not bool(tested.any()), "tested() is not zero after propose()")
        path.seed(descent, 1e-3)
        after = 0.5 * F.mse_loss(path(x), target, reduction="sum")
        self._require(bool(after < before), "seed() along the descent does not lower the loss")

    def _start(self) -> None:
        geo = self.geometry
        units = torch.eye(geo.in_channels * math.prod(geo.in_size), dtype=torch.float64)
        units = units.reshape(-1, geo.in_channels, *geo.in_size)
        drawn = torch.stack([self._drawn()(units).norm() for _ in range(8)])
        path, x = self._drawn(), 1 + 0.1 * self._inputs(8)  # smooth, and so is the descent
        path.seed(self._descent(path, x, self._target(8))[1], 1.0)
        ratio = float(path(units).norm().detach() / drawn.detach().square().mean().sqrt())
        what = f"seeded at size 1, its map has {ratio:.3g} times the norm of a freshly drawn one"
        self._require(1 / _START <= ratio <= _START, what)

    def _shifts(self) -> None:
        path, x = self._drawn(), self._inputs()
        for axis, step in enumerate(self.geometry.stride, start=2):
            moved = path(x.roll(step, axis))
            self._close(f"a shift along axis {axis}", moved, path(x).roll(1, axis))

    def _filters(self) -> None:
        path, x = self._drawn(), self._inputs()
        if path.filters() is not None and self.geometry == self.geometry.at_stride_one():
            self._close("filters()", path(x), dense_map([path], x))

    def _curvature(self) -> None:
        path, x = self._drawn(), self._inputs()
        ruled = [module for module in path.modules() if curvature.rule_for(module) is not None]
        calls: list[curvature.Call] = []
        with curvature.watch(ruled, calls.append):
            path(x)
        for call in calls:
            assert_rule(call.module, call.inputs, tol=self.tol)
        net = nn.Sequential(path, nn.Flatten())
        found = curvature.kronecker(net, (x, 0 * net(x).detach()), likelihood="gaussian")
        kept = path.hyperparameters()
        weights = {f"0.{name}" for name, _ in path.named_parameters() if name not in kept}
        self._require(weights <= set(found), f"no curvature for {sorted(weights - set(found))}")
        held = sum(factor.matrix.numel() for name in weights for factor in found[name].factors)
        said = self.spec.factor_elements(self.geometry)
        self._require(held == said, f"{held} elements in factors, factor_elements says {said}")
