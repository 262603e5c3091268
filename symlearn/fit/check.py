"""The check of a fit's verdicts: what the trained operators and the network itself say.

The evidence says which paths the data pay for. Whether a layer breaks a symmetry can also be seen
without it: in the trained operator of the layer, part of which commutes with translations, and in
the network's outputs, which change more under them with the free paths than without.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from curvature import Data
from curvature.checking import check_count, seeded
from symlearn.audit.images import NotFiniteError, batch_size, frozen, outputs
from symlearn.audit.lie import NoDerivativeError, lie_derivative
from symlearn.audit.transforms import as_transformations
from symlearn.fit.data import until
from symlearn.paths import Path
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.report import LayerStructure, Removal, StructureReport, SymmetryCheck, rule

_ROUNDS, _PROBES = 8, 8  # rounds of probes; those of one are moved by the same shifts
_BRIEF = 2  # rounds: while the second is computed, the first is still in use
_SHIFTS = 8  # of each probe, and of each image
_NUMBERS = 2**24  # in a batch of maps


@dataclass(frozen=True)
class SharedShifts:
    """Circular shifts that act on two maps: those by whole pixels of both.

    A map of one pixel is left as it is, whatever the other one does.

    Args:
        in_size: Spatial size of the one, any number of axes.
        out_size: Spatial size of the other; empty for vectors, which nothing moves.
    """

    in_size: tuple[int, ...]
    out_size: tuple[int, ...]

    @property
    def orders(self) -> tuple[int, ...]:
        """Number of shifts per axis."""
        ends = self.out_size or (1,) * len(self.in_size)
        pairs = zip(self.in_size, ends, strict=True)
        return tuple(i if o == 1 else math.gcd(i, o) for i, o in pairs)

    @property
    def order(self) -> int:
        """Number of shifts."""
        return math.prod(self.orders)

    def draw(self, most: int, generator: torch.Generator, first: int = 0) -> Tensor:
        """Different shifts at random, [n, axes], in units of the size over the order.

        Args:
            most: Largest n.
            generator: Random numbers.
            first: 1 to leave the identity out.
        """
        if self.order <= first:
            return torch.zeros(0, len(self.orders), dtype=torch.int64)
        chosen = first + torch.randperm(self.order - first, generator=generator)[:most]
        return torch.stack(torch.unravel_index(chosen, self.orders), 1)

    def move(self, v: Tensor, shift: Tensor, *, back: bool = False) -> Tensor:
        """Maps [N, C, *in] moved by a shift, or [N, C, *out] moved back; vectors stay."""
        size = v.shape[2:]
        if not size:
            return v
        steps = [
            int(i) * (n // o) * (-1 if back else 1)
            for i, n, o in zip(shift, size, self.orders, strict=True)
        ]
        return v.roll(steps, tuple(range(2, v.ndim)))


def check_report(
    report: StructureReport,
    model: nn.Module,
    data: Data | Tensor | np.ndarray[Any, Any],
    *,
    images: int = 64,
    seed: int = 0,
    brief: bool = False,
) -> StructureReport:
    """Check the verdicts of a fitted network; returns the report with the checks.

    Args:
        report: The report of the network.
        model: The network; it is run in eval mode and left as it is.
        data: Images [N, C, *size], ``(X, y)``, a Dataset or a DataLoader.
        images: Most images taken.
        seed: Seed of probes and shifts.
        brief: Leave out what takes no more memory than the rest: removals of paths, and all but two
            rounds of probes. That says little of the layers, but is soon rehearsed.

    Raises:
        ValueError: If there are fewer than two images, they are malformed, no layer's input has
            more than one site, or the network's outputs are not finite
            (`symlearn.audit.NotFiniteError`).
        TypeError: If the data are of an unknown kind.
    """
    check_count("images", images, 2)
    layers = relaxed_layers(model)
    x = _first(data, model, images)
    if len(x) < 2:
        raise ValueError(f"a check compares images with each other: give at least 2, got {len(x)}")
    if not _has_maps(model):
        raise ValueError("a check moves maps by pixels; all relaxed layers are between vectors")
    with frozen(model), torch.no_grad():
        network = _Network(model, x, seeded(seed))
        found = {facts.name: (network.check(facts, layers[facts.name], brief),) for facts in report}
    return report.with_checks(found)


def checked_after_fit(
    report: StructureReport,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    most: int,
    brief: bool = False,
) -> StructureReport:
    """The report of an evidence fit, checked on training images if there are enough of them.

    A network whose outputs are not finite cannot be checked; the report says so. In a network
    on vectors there is nothing to check.

    Args:
        report: The report.
        model: The network.
        batches: Training images.
        most: Most images taken; 0 for no check.
        brief: As in `check_report`.
    """
    enough = most > 1 and sum(len(x) for x, _ in until(batches, 2)) > 1
    if not enough or report.objective != "evidence" or not _has_maps(model):
        return report
    try:
        return check_report(report, model, batches, images=most, brief=brief)
    except NotFiniteError as error:
        return replace(report, meta={**report.meta, "check": f"not possible: {error}"})


def _has_maps(model: nn.Module) -> bool:
    """Whether a relaxed layer's input has more than one site."""
    return any(layer.geometry.in_sites > 1 for layer in relaxed_layers(model).values())


def _first(data: Data | Tensor | np.ndarray[Any, Any], model: nn.Module, most: int) -> Tensor:
    """The first inputs of the data, [N, C, *size]."""
    if isinstance(data, (Tensor, np.ndarray)):
        data = (torch.as_tensor(data), torch.zeros(data.shape[:1]))
    found = [x for x, _ in until(curvature.batches(data, model), most)]
    return torch.cat(found)[:most].detach()


def _may_break(layer: RelaxedLayer) -> list[str]:
    """Names of the paths that are on and need not commute with translations."""
    return [n for n, path in layer.named_paths().items() if path.enabled and not path.strictness]


@contextmanager
def without(*paths: Path) -> Iterator[None]:
    """Leave paths out of the forward map inside."""
    were = [path.enabled for path in paths]
    for path in paths:
        path.enabled = False
    try:
        yield
    finally:
        for path, was in zip(paths, were, strict=True):
            path.enabled = was


# --- The trained operator ---


def operator_shares(
    layer: RelaxedLayer, generator: torch.Generator, rounds: int = _ROUNDS
) -> tuple[float, float]:
    """Shares of a layer's squared operator norm: what commutes, and what its free paths break.

    For a random vector z of signs, ``E |T z|^2 = |T|_F^2``; moved by random shifts g and back, the
    ``rho(g)^-1 T rho(g) z`` have the commuting part as their mean, and ``|T - P T|_F^2`` as their
    mean squared distance from it.

    Strict paths that read a grid chosen for each image commute by construction, though not on a
    fixed grid: of such a layer only free paths can break the symmetry.

    Args:
        layer: The layer.
        generator: Random numbers.
        rounds: Rounds of probes.

    Returns:
        Both shares, nan where no path is on or the maps share no shift but the identity.
    """
    on = {name: path for name, path in layer.named_paths().items() if path.enabled}
    free = _may_break(layer)
    geometry = layer.geometry
    shifts = SharedShifts(geometry.in_size, geometry.out_size)
    if not on or shifts.order == 1:
        return math.nan, math.nan
    shape = (geometry.in_channels, *geometry.in_size)
    anchor = next((p for path in on.values() for p in path.parameters()), torch.empty(0))
    # of the operator, of its part that does not commute, and of the free paths' part of that
    sums = torch.zeros(3, dtype=torch.float64)
    for _ in range(rounds):
        signs = torch.randint(0, 2, (_PROBES, *shape), generator=generator).mul_(2).sub_(1)
        signs = signs.to(anchor)
        chosen = shifts.draw(_SHIFTS, generator)
        moved = torch.stack([shifts.move(signs, g) for g in chosen])
        parts = {name: _images_of(path, moved, shifts, chosen) for name, path in on.items()}
        whole = torch.stack(list(parts.values())).sum(0)
        loose = sum((parts[name] for name in free), torch.zeros_like(whole))
        rest = loose if layer.align is not None else whole
        spread = [v.var(0).sum() * (1 - 1 / shifts.order) for v in (rest, loose)]
        sums += torch.stack([whole.square().sum() / len(chosen), *spread]).cpu()
    total, rest, loose = sums.tolist()
    return (1 - rest / total, loose / total) if total > 0 else (math.nan, math.nan)


def _images_of(path: Path, moved: Tensor, shifts: SharedShifts, chosen: Tensor) -> Tensor:
    """``rho(g)^-1 T rho(g) z`` of one path for all shifts and probes, [shifts, ...]."""
    size = max(1, _NUMBERS // moved[0, 0].numel())
    out = torch.cat([path(part) for part in moved.flatten(0, 1).split(size)])
    parts = out.split(moved.shape[1])
    back = [shifts.move(y, g, back=True) for y, g in zip(parts, chosen, strict=True)]
    return torch.stack(back).double()


# --- The network ---


class _Network:
    """How the network's outputs change under shifts, with and without some paths.

    Args:
        model: The network, in eval mode.
        x: Images [N, C, *size].
        generator: Random numbers.
    """

    def __init__(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> None:
        self.model, self.x, self.generator = model, x, generator
        y = outputs(model, x)
        size = tuple(y.shape[2:]) if y.ndim == x.ndim else ()
        self.shifts = SharedShifts(tuple(x.shape[2:]), size)
        self.chosen = self.shifts.draw(_SHIFTS, generator, first=1)
        self.free = {
            name: [layer.path(p) for p in _may_break(layer)]
            for name, layer in relaxed_layers(model).items()
        }
        self.errors = self._errors(y)
        # the Lie derivative has its price, and is for comparing networks
        contested = any(
            len([p for p in layer.named_paths().values() if p.enabled]) > 1
            for layer in relaxed_layers(model).values()
        )
        self.lee = self._lee() if contested else math.nan

    def _errors(self, y: Tensor | None = None) -> Tensor:
        """Shift errors of the images [N]: their mean is 1 if a shift is like another image."""
        y = outputs(self.model, self.x) if y is None else y
        total = torch.zeros(len(y), dtype=torch.float64, device=y.device)
        for g in self.chosen:
            other = outputs(self.model, self.shifts.move(self.x, g))
            other = self.shifts.move(other, g, back=True) if self.shifts.out_size else other
            total += (other - y).flatten(1).double().square().sum(1)
        between = 2 * y.flatten(1).double().var(0).sum()
        if not len(self.chosen) or not bool(between > 0):
            return torch.full_like(total, math.nan)
        return total / (len(self.chosen) * between)

    def _lee(self) -> float:
        """Mean over both axes of the mean square of the Lie derivative along it."""
        if self.x.ndim != 4 or not self.x.is_floating_point():
            return math.nan
        axes = as_transformations(("translation_x", "translation_y"), "bilinear", "reflection")
        size = batch_size(self.model, self.x, 4, 2.0)
        with warnings.catch_warnings():
            # torch compiles formulas for forward mode with a function that it has deprecated
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
            try:
                squares = [
                    lie_derivative(self.model, part, axis).double().square().flatten(1).mean(1)
                    for axis in axes
                    for part in self.x.split(size)
                ]
            except NoDerivativeError:
                return math.nan
        return float(torch.cat(squares).mean())

    def check(self, facts: LayerStructure, layer: RelaxedLayer, brief: bool) -> SymmetryCheck:
        """Check one layer."""
        free = _may_break(layer)
        share = math.fsum(facts.paths[name].relative_effective_params for name in free)
        commuting, breaking = operator_shares(layer, self.generator, _BRIEF if brief else _ROUNDS)
        drop, error = (math.nan, math.nan) if brief else self._drop(facts.name, layer)
        outcome, _ = rule.compare(share, breaking, drop, error)
        return SymmetryCheck(
            symmetry="translations",
            free=tuple(free),
            evidence_share=share,
            commuting_share=commuting,
            breaking_share=breaking,
            lee=self.lee,
            shift_error=float(self.errors.mean()),
            removals=() if brief else tuple(self._removals(layer, free)),
            drop=drop,
            drop_error=error,
            outcome=outcome,
        )

    def _removals(self, layer: RelaxedLayer, free: Collection[str]) -> Iterator[Removal]:
        on = {name: path for name, path in layer.named_paths().items() if path.enabled}
        each = [(name,) for name in on]
        together = [tuple(free)] if len(free) > 1 else []
        for names in [*each, *together]:
            if len(names) < len(on):  # something stays
                with without(*(on[name] for name in names)):
                    yield Removal("+".join(names), self._lee(), float(self._errors().mean()))

    def _drop(self, name: str, layer: RelaxedLayer) -> tuple[float, float]:
        """How much less the shift error is without the layer's free paths, and its error.

        In a network whose other layers break the symmetry too, one layer more or less may make no
        difference: so it is looked at both with and without the others' free paths.
        """
        own = self.free[name]
        if not own:
            return 0.0, 0.0
        if len(own) == len([p for p in layer.named_paths().values() if p.enabled]):
            return math.nan, math.nan
        others = [path for key, paths in self.free.items() if key != name for path in paths]
        drops = [self._paired([], own)]
        if others:
            drops.append(self._paired(others, own))
        known = [drop for drop in drops if not math.isnan(drop[0])]
        return max(known) if known else (math.nan, math.nan)

    def _paired(self, always: Sequence[Path], own: Sequence[Path]) -> tuple[float, float]:
        """Mean and standard error over images of the drop, other paths being left out always."""
        with without(*always):
            before = self._errors() if always else self.errors
            with without(*own):
                drops = before - self._errors()
        return float(drops.mean()), float(drops.std() / len(drops) ** 0.5)
