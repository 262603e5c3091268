"""What paths need in memory, predicted from shapes, and lighter ones where that is too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from symlearn.observe import Site
from symlearn.paths import FFC, SFC, PathSpec

_SIDES = (48, 40, 32, 28, 24, 20, *range(16, 0, -1))
_SPARSE = tuple(SFC(anchors=side**2) for side in _SIDES)
# Path name -> what may stand in for it, heaviest first.
LIGHTER: dict[str, tuple[PathSpec, ...]] = {"fc": (FFC(), *_SPARSE), "ffc": _SPARSE}
_SHOWN = 8


@dataclass(frozen=True)
class Cost:
    """What one path needs in one layer; nothing is built to find out.

    Attributes:
        spec: The path.
        n_params: Its weights.
        factor_elements: Numbers in its Kronecker factors.
        itemsize: Bytes of a number.
    """

    spec: PathSpec
    n_params: int
    factor_elements: int
    itemsize: int

    @classmethod
    def of(cls, site: Site, spec: PathSpec) -> Cost:
        """The cost of a path in place of a convolution."""
        geometry = site.geometry
        # factors are never kept in half precision
        itemsize = max(4, next(site.module.parameters()).element_size())
        return cls(spec, spec.n_params(geometry), spec.factor_elements(geometry), itemsize)

    @property
    def factor_gib(self) -> float:
        """Memory of the factors: matrices and eigenvectors."""
        return self.itemsize * 2 * self.factor_elements / 2**30

    @property
    def gib(self) -> float:
        """Memory of factors and weights (value, gradient, two moments, average)."""
        return self.factor_gib + self.itemsize * 5 * self.n_params / 2**30

    def __str__(self) -> str:
        chosen = ((f.name, getattr(self.spec, f.name), f.default) for f in fields(self.spec))
        options = ", ".join(f"{name}={value!r}" for name, value, usual in chosen if value != usual)
        needs = f"{self.n_params:,} weights, factors of {1024 * self.factor_gib:,.1f} MiB"
        return f"{type(self.spec).__name__}({options}): {needs}, {self.gib:.3g} GiB in all"


def level(needs: Sequence[float], limit: float) -> float:
    """The bound for each need at which their sum just keeps to a limit; inf if it does anyway."""
    left = limit
    for i, need in enumerate(sorted(needs)):
        share = left / (len(needs) - i)
        if need > share:
            return share
        left -= need
    return math.inf


def lighter(
    paths: Sequence[tuple[Site, PathSpec]], limit_gib: float
) -> dict[str, dict[str, Cost | None]]:
    """What to take instead of the heaviest paths, so that all of them fit in memory.

    No path that can be replaced may need more than a common bound, the largest with which the sum
    keeps to the limit; those above it are replaced by the heaviest stand-in below it.

    Args:
        paths: Layers and the paths planned for them.
        limit_gib: Memory for all of them.

    Returns:
        Costs of the stand-ins by layer and by name of the path that each replaces, None where
        nothing is light enough; empty where everything fits.
    """
    costs = [(site, Cost.of(site, spec)) for site, spec in paths]
    free = [cost.gib for _, cost in costs if cost.spec.name in LIGHTER]
    bound = level(free, limit_gib - sum(cost.gib for _, cost in costs) + sum(free))
    taken = {(site.name, spec.name) for site, spec in paths}
    found: dict[str, dict[str, Cost | None]] = {}
    for site, cost in costs:
        if cost.gib > bound and cost.spec.name in LIGHTER:
            suited = (
                Cost.of(site, spec)
                for spec in LIGHTER[cost.spec.name]
                if (site.name, spec.name) not in taken and not spec.unsuited(site.geometry)
            )
            fitting = next((other for other in suited if other.gib <= bound), None)
            found.setdefault(site.name, {})[cost.spec.name] = fitting
    return found


def hint(fitting: Cost | None) -> str:
    """What to do about a path that is too heavy, in words."""
    if fitting is None:
        return "nothing lighter fits here, leave the layer out"
    return f"what fits is {fitting}"


def check_memory(paths: Sequence[tuple[Site, PathSpec]], limit_gib: float) -> None:
    """Predict weights (with gradient and optimiser moments) and curvature factors, in all.

    Raises:
        ValueError: If they would need more than the limit; the largest paths are named, with what
            would fit in their place.
    """
    costs = [(Cost.of(site, spec), site.name) for site, spec in paths]
    total = sum(cost.gib for cost, _ in costs)
    if total <= limit_gib:
        return
    instead = lighter(paths, limit_gib)
    lines = []
    for cost, layer in sorted(costs, key=lambda pair: -pair[0].gib)[:_SHOWN]:
        line = f"{layer}: path {cost.spec.name!r} needs {cost.gib:.3g} GiB"
        if cost.spec.name in instead.get(layer, {}):
            line += f"; {hint(instead[layer][cost.spec.name])}"
        lines.append(line)
    raise ValueError(
        f"the paths need {total:.3g} GiB in all, memory_limit_gib is {limit_gib:g}; the largest "
        "are\n  " + "\n  ".join(lines) + "\nSelect fewer layers with layers=..., take lighter "
        "paths ('ffc' in place of 'fc', 'sfc' in place of 'ffc'), or raise the limit; "
        "symlearn.plan shows what each layer needs."
    )
