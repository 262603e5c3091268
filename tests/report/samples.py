"""Reports to draw: one with every kind of number, one as a fit makes it."""

from __future__ import annotations

import math

from symlearn.report import LayerStructure, PathStructure, StructureReport


def path(
    relative: float = 1.0, *, on: bool = True, delta: float = 0.5, normalised: float = 0.25
) -> PathStructure:
    """Return a path with the facts that a test is about."""
    return PathStructure(delta, 2.0, 400, 400 * normalised, normalised, relative, 0.5, 12.5, on)


def layer(name: str, *, ffc: float = 0.0, agreement: float = 1.0) -> LayerStructure:
    """Return a layer whose ffc path has the relative share `ffc`."""
    paths = {
        "conv": path(on=True, normalised=1.0 - ffc),
        "ffc": path(on=ffc > 0.0, delta=3.0 if ffc else math.inf, normalised=ffc),
    }
    return LayerStructure.of(name, paths, agreement)


def report(*layers: LayerStructure) -> StructureReport:
    """Return a report of these layers with a head."""
    heads = {"classifier.weight": path(delta=3.25)}
    meta: dict[str, str | float | int | None] = {"seed": 0, "stopped": None}
    return StructureReport(layers, heads, -1234.5, 2000, 31234, 320.75, "evidence", meta)


def digit() -> StructureReport:
    """Return the report of a task that wants convolutions everywhere."""
    return report(layer("conv1"), layer("conv2"), layer("conv3"))


def quadrant() -> StructureReport:
    """Return the report of a task that wants a free map in its last layer."""
    return report(layer("conv1"), layer("conv2", ffc=0.03), layer("conv3", ffc=0.75, agreement=0.9))


def awkward() -> StructureReport:
    """Return a report with nan, infinities, extreme numbers and hostile names."""
    wild = PathStructure(
        math.inf, 1.7976931348623157e308, 10**15, 5e-324, math.nan, math.nan, -0.0, -math.inf, True
    )
    layers = (
        LayerStructure("<script>alert(1)</script>", {"a|b": wild}, "undecided", math.nan),
        LayerStructure("x`y\n\x1b[31m*_$z$", {"[bold]p": path(), "ﬀc": wild}, "undecided", 0.25),
    )
    meta: dict[str, str | float | int | None] = {
        "none": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "text": "inf",
        "int": 2, "float": 2.0, "big": 2**70, "<b>&": "| \\ <i>", "object": '{"float": "nan"}',
    }  # fmt: skip
    heads = {"head & <tail>": wild}
    return StructureReport(layers, heads, math.nan, 0, 0, math.inf, "map", meta)
