"""Which convolutions to relax, and whether they can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from symlearn.observe import CONV_TYPES, Site
from symlearn.paths import PathSpec

Selection: TypeAlias = "str | Iterable[str] | Callable[[str, nn.Module], bool] | None"


def select(convs: Sequence[Site], layers: Selection) -> list[str]:
    """Names of the selected convolutions.

    Args:
        convs: The convolutions that ran on the example.
        layers: See `symlearn.wrap`.

    Raises:
        ValueError: If a pattern matches nothing, or nothing is selected; the names are listed.
        TypeError: If a pattern is not a string.
    """
    names = [conv.name for conv in convs]
    if layers is None:
        picked = names
    elif callable(layers):
        picked = [conv.name for conv in convs if layers(conv.name, conv.module)]
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        wrong = [p for p in patterns if not isinstance(p, str)]
        if wrong:
            raise TypeError(f"layers takes names, patterns or one predicate, got {wrong}")
        idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
        if idle:
            raise ValueError(
                f"no convolution is named {idle}; those that ran on the example are {names}"
            )
        picked = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not picked:
        raise ValueError(f"no convolution is selected; those that ran on the example are {names}")
    return picked


def check_replaceable(model: nn.Module, sites: Sequence[Site]) -> None:
    """Check that replacing convolutions (and pools) by other modules loses nothing.

    Raises:
        ValueError: If a module carries hooks, or a convolution is the model itself, runs on several
            sizes, or shares its weights with another module; all such layers are named.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    problems = []
    for site in sites:
        if not site.name:
            problems.append("the model is one bare convolution; put it into nn.Sequential(conv)")
        if isinstance(site.module, CONV_TYPES) and len({size for size, _ in site.calls}) > 1:
            sizes = [list(size) for size, _ in site.calls]
            problems.append(f"{site.name} runs on several input sizes in one pass: {sizes}")
        if any(owners[id(p)] > 1 for p in site.module.parameters(recurse=False)):
            problems.append(f"{site.name} shares its weights with another module")
        if _has_hooks(site.module):
            problems.append(f"{site.name} carries hooks, which would be lost; remove them first")
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


def check_memory(sites: Sequence[Site], specs: Sequence[PathSpec], limit_gib: float) -> None:
    """Predict weights (with gradient and optimiser moments) and curvature factors, in all.

    Raises:
        ValueError: If they would need more than the limit; the largest paths are named.
    """
    needs: list[tuple[float, str]] = []
    for site in sites:
        weight: Any = site.module.get_parameter("weight")
        for spec in specs:
            # weights: value, gradient, two moments, average; factors: matrix and eigenvectors
            numbers = 5 * spec.n_params(site.geometry) + 2 * spec.factor_elements(site.geometry)
            gib = max(4, weight.element_size()) * numbers / 2**30
            needs.append((gib, f"{site.name}: path {spec.name!r} needs {gib:.3g} GiB"))
    total = sum(gib for gib, _ in needs)
    if total > limit_gib:
        largest = [text for _, text in sorted(needs, reverse=True)[:8]]
        raise ValueError(
            f"the paths need {total:.3g} GiB in all, memory_limit_gib is {limit_gib:g}; the "
            "largest are\n  "
            + "\n  ".join(largest)
            + "\nSelect fewer layers with layers=..., take "
            "paths with fewer weights ('ffc' in place of 'fc'), or raise the limit."
        )
