"""What paths need in memory, predicted from shapes, and lighter ones where that is too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from symlearn.geometry import Geometry
from symlearn.observe import Site
from symlearn.paths import FFC, SFC, PathSpec

_SIDES = (48, 40, 32, 28, 24, 20, *range(16, 0, -1))
_SPARSE = tuple(SFC(anchors=side**2) for side in _SIDES)
# Path name -> what may stand in for it, heaviest first.
LIGHTER: dict[str, tuple[PathSpec, ...]] = {"fc": (FFC(), *_SPARSE), "ffc": _SPARSE}
_SHOWN = 8


@dataclass(frozen=True)
class Place:
    """A layer in which paths are to stand.

    Attributes:
        name: Its qualified name.
        geometry: Its shapes.
        itemsize: Bytes of a number of its weights.
    """

    name: str
    geometry: Geometry
    itemsize: int

    @classmethod
    def of(cls, site: Site) -> Place:
        """The place of a convolution."""
        return cls(site.name, site.geometry, next(site.module.parameters()).element_size())


@dataclass(frozen=True)
class Cost:
    """What one path needs in one layer; nothing is built to find out.

    Attributes:
        spec: The path.
        n_params: Its weights.
        factor_elements: Numbers in its Kronecker factors.
        fixed_elements: Numbers in its fixed matrices.
        itemsize: Bytes of a number.
    """

    spec: PathSpec
    n_params: int
    factor_elements: int
    fixed_elements: int
    itemsize: int

    @classmethod
    def of(cls, place: Place, spec: PathSpec) -> Cost:
        """The cost of a path in a layer."""
        geometry = place.geometry
        itemsize = max(4, place.itemsize)  # factors are never kept in half precision
        held = spec.factor_elements(geometry), spec.fixed_elements(geometry)
        return cls(spec, spec.n_params(geometry), *held, itemsize)

    @property
    def factor_gib(self) -> float:
        """Memory of the factors: matrices and eigenvectors."""
        return self.itemsize * 2 * self.factor_elements / 2**30

    @property
    def gib(self) -> float:
        """Memory of factors, weights (value, gradient, two moments, average), fixed matrices."""
        numbers = 5 * self.n_params + self.fixed_elements
        return self.factor_gib + self.itemsize * numbers / 2**30

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
    paths: Sequence[tuple[Place, PathSpec]], limit_gib: float
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
    costs = [(place, Cost.of(place, spec)) for place, spec in paths]
    free = [cost.gib for _, cost in costs if cost.spec.name in LIGHTER]
    bound = level(free, limit_gib - sum(cost.gib for _, cost in costs) + sum(free))
    taken = {(place.name, spec.name) for place, spec in paths}
    found: dict[str, dict[str, Cost | None]] = {}
    for place, cost in costs:
        if cost.gib > bound and cost.spec.name in LIGHTER:
            suited = (
                Cost.of(place, spec)
                for spec in LIGHTER[cost.spec.name]
                if (place.name, spec.name) not in taken and not spec.unsuited(place.geometry)
            )
            fitting = next((other for other in suited if other.gib <= bound), None)
            found.setdefault(place.name, {})[cost.spec.name] = fitting
    return found


def hint(fitting: Cost | None) -> str:
    """What to do about a path that is too heavy, in words."""
    if fitting is None:
        return "nothing lighter fits here, leave the layer out"
    return f"what fits is {fitting}"


def check_memory(paths: Sequence[tuple[Place, PathSpec]], limit_gib: float) -> None:
    """Predict weights (with gradient and optimiser moments) and curvature factors, in all.

    Raises:
        ValueError: If they would need more than the limit; the largest paths are named, with what
            would fit in their place.
    """
    costs = [(Cost.of(place, spec), place.name) for place, spec in paths]
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
