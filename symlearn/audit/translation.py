"""EQ-T and EQ-T_frac: how far each module is from commuting with finite translations.

Karras et al. (2021), as used per layer by Gruver et al. (2023, A.3.3.1). A module gets its own
input of the forward pass, translated, and its output is compared with the translated output. (The
latter translate the first one back, which adds the error of interpolating twice.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.audit import images, resample
from symlearn.audit.calls import Surveyed, hooked, replaced, survey
from symlearn.audit.exported import kind
from symlearn.audit.layouts import Layout
from symlearn.progress import Progress

_RANGE = 0.125
"""Largest translation, in sizes of the map."""


@dataclass(frozen=True)
class TranslationError:
    """Squared error of a module under translations, ``||e||^2``, in three normalisations.

    Which module looks worst depends on the normalisation; the Lie derivative needs none.

    Attributes:
        module: Name of the module.
        kind: Its class.
        unnormalised: Mean of ``||e||^2``.
        by_root: Mean of ``||e||^2 / sqrt(N)``, N the numbers compared (C H W without borders).
        by_size: Mean of ``||e||^2 / N``.
        reason: Why there is none, or None. The numbers are nan then.
    """

    module: str
    kind: str
    unnormalised: float
    by_root: float
    by_size: float
    reason: str | None


def translation_errors(
    model: nn.Module,
    x: Tensor,
    *,
    fractional: bool = False,
    n: int = 8,
    resampling: str = "bilinear",
    padding: str = "reflection",
    seed: int = 0,
    progress: bool | None = False,
) -> tuple[TranslationError, ...]:
    """EQ-T (whole pixels) or EQ-T_frac of every module that takes one map and returns one tensor.

    Translations are uniform up to 12.5% of the module's input map, and one pixel at least. On a map
    of another size a translation is the same share of the size; EQ-T rounds it to whole pixels.
    Unless maps are circular, sites whose content comes from outside are left out.

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        fractional: Whether translations are by fractions of pixels (EQ-T_frac).
        n: Number of translations.
        resampling: How maps are continued between sites.
        padding: What lies outside a map.
        seed: Of the translations.
        progress: Whether to show a progress bar; None on terminals only.

    Raises:
        ValueError: For an unknown resampling or padding, or if an error is not finite.
    """
    resample.check(resampling, padding)
    mover = _Mover(fractional, resampling, padding)
    generator = torch.Generator().manual_seed(seed)
    draws = (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1).tolist()
    with torch.no_grad(), images.frozen(model):
        surveyed, _ = survey(model, x[:2])
        measured = [entry for entry in surveyed if _unsuited(entry) is None]
        name = "EQ-T_frac" if fractional else "EQ-T"
        with Progress(progress, name, sum(entry.calls for entry in measured)) as bar:
            found = _over_modules(model, x, measured, mover, draws, bar)
    return tuple(_row(entry, found.get(entry.module)) for entry in surveyed)


def _over_modules(
    model: nn.Module,
    x: Tensor,
    measured: Sequence[Surveyed],
    mover: _Mover,
    draws: Sequence[Sequence[float]],
    bar: Progress,
) -> dict[nn.Module, list[Tensor]]:
    """The errors of each call of modules that can be measured, [3] each."""
    layouts = {entry.module: entry.sides for entry in measured}
    found: dict[nn.Module, list[Tensor]] = {}
    busy = False

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal busy
        if busy:
            return  # within a module that is being measured
        busy = True
        sides = layouts[module][len(found.setdefault(module, []))]
        found[module].append(mover.errors(module, args, kwargs, (sides[0][0], sides[1][0]), draws))
        bar.advance()
        busy = False

    whole = layouts.get(model)
    if whole is not None:
        # not within its own call: what it keeps while it runs would be replaced
        found[model] = [mover.errors(model, (x,), {}, (whole[0][0][0], whole[0][1][0]), draws)]
        bar.advance()
    with hooked([m for m in layouts if m is not model], before, lambda *_: None):
        model(x)
    return found


def _unsuited(entry: Surveyed) -> str | None:
    """Why a module cannot be compared with its translate."""
    if entry.reason is not None:
        return entry.reason
    for inputs, outs in entry.sides:
        if len(inputs) != 1 or len(outs) != 1:
            return "takes or returns several tensors"
        if not inputs[0].grids:
            return "its input is no map"
    return None


def _row(entry: Surveyed, errors: list[Tensor] | None) -> TranslationError:
    name = kind(entry.module)[1]
    if errors is None:
        nan = float("nan")
        return TranslationError(entry.name, name, nan, nan, nan, _unsuited(entry))
    each = images.check_finite(
        torch.stack(errors).mean(0), f"the translation error of {entry.name!r}"
    )
    total, by_root, by_size = each.tolist()
    return TranslationError(entry.name, name, total, by_root, by_size, None)


@dataclass(frozen=True)
class _Mover:
    """Translations of a kind, and what they do to a module."""

    fractional: bool
    resampling: str
    padding: str

    def errors(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        layouts: tuple[Layout, Layout],
        draws: Sequence[Sequence[float]],
    ) -> Tensor:
        """Mean over images and translations of the three normalisations, [3]."""
        (v,) = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        before, after = layouts
        v = v.clone()  # the module may overwrite its input

        def run(changed: Tensor) -> Tensor:
            swapped = replaced((args, kwargs), lambda _: changed)
            out: Tensor = module(*swapped[0], **swapped[1])
            return out

        plain = run(v.clone())
        rows = []
        for draw in draws:
            share = self._shares(draw, before.grids[0].size)
            moved = run(before.act(v, partial(self._move, share=share)))
            difference = moved - after.act(plain, partial(self._move, share=share))
            keep = after.act(torch.ones_like(plain), partial(self._seen, share=share))
            rows.append(_normalised(difference, keep))
        return torch.stack(rows).mean(0)

    def _shares(self, draw: Sequence[float], size: tuple[int, int]) -> list[float]:
        """A translation (down, right) as shares of the map, from numbers uniform in [-1, 1]."""
        if self.fractional:
            return [u * max(_RANGE, 1 / n) for u, n in zip(draw, size, strict=True)]
        most = [max(1, int(_RANGE * n)) for n in size]
        return [round(u * (k + 0.499)) / n for u, k, n in zip(draw, most, size, strict=True)]

    def _distances(self, m: Tensor, share: list[float]) -> tuple[float, float]:
        """Pixels (down, right) on a map [..., h, w]."""
        down, right = share[0] * m.shape[-2], share[1] * m.shape[-1]
        return (down, right) if self.fractional else (round(down), round(right))

    def _move(self, m: Tensor, share: list[float]) -> Tensor:
        return resample.shift(m, *self._distances(m, share), self.resampling, self.padding)

    def _seen(self, m: Tensor, share: list[float]) -> Tensor:
        """One where the content comes from inside the map."""
        if self.padding == "circular":
            return m
        inside = resample.shift(m, *self._distances(m, share), "bilinear", "zeros")
        return (inside > 1 - 1e-6).to(m)


def _normalised(difference: Tensor, keep: Tensor) -> Tensor:
    square = (difference.square() * keep).flatten(1).sum(1, dtype=torch.float64)
    size = keep.flatten(1).sum(1, dtype=torch.float64).clamp(min=1)
    return torch.stack([square.mean(), (square / size.sqrt()).mean(), (square / size).mean()])
