"""Reports to draw: one with every kind of number, one as a fit makes it."""

from __future__ import annotations

import base64
import math
from dataclasses import replace

from symlearn.report import (
    Calibration,
    CalibrationBin,
    LayerStructure,
    PathStructure,
    Removal,
    StructureReport,
    SymmetryCheck,
)
from symlearn.report.background import CoveredParameters, Epoch, Picture
from symlearn.report.symmetry import GeneratorRow, KnownRow, LayerGenerators


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


def picture(layer: str = "conv3", kind: str = "filters", n: int = 8, side: int = 3) -> Picture:
    """Return a picture whose pixels count up from -127."""
    values = [index % 255 - 127 for index in range(n * side * side)]
    pixels = base64.b64encode(bytes(value % 256 for value in values)).decode()
    path = "conv" if kind == "filters" else "ffc"
    return Picture(layer, path, kind, side, side, 10 * n, 0.5, pixels)


def check(evidence: float, breaking: float, drop: float, outcome: str) -> SymmetryCheck:
    """Return a check with these measurements."""
    removals = (Removal("conv", 12.5, 0.25), Removal("ffc", math.nan, 0.5))
    shares = (evidence, 1.0 - breaking, breaking)
    return SymmetryCheck(
        "translations", ("ffc",), *shares, 3.5, 0.375, removals, drop, 0.03, outcome
    )


def generators() -> LayerGenerators:
    """Return the generators of a path, one of them learned and near a known one."""
    learned = GeneratorRow("L1", True, True, 0.5, 12.0, 64, 0.75, 0.5, math.nan)
    known = KnownRow("rotation", True, 0.9, 0.2, 0.01)
    return LayerGenerators("conv2 <i>", "lconv", (learned,), (known,), 0.25, (3.0, 1.0))


def whole() -> StructureReport:
    """Return a report that holds all there is: as `quadrant`, with what only some fits know."""
    plain = quadrant()
    history = (
        Epoch(1, 2.5, math.nan, math.nan, (), ()),
        Epoch(2, 1.25, -4000.0, -2500.0, ("conv3.ffc",), ()),
        Epoch(3, 0.5, -2000.0, -700.0, (), ("conv1.ffc",)),
    )
    bins = (CalibrationBin(0.0, 0.5, 0, math.nan, math.nan), CalibrationBin(0.5, 1.0, 9, 0.8, 0.7))
    covered = (
        CoveredParameters("kronecker", "rule of Conv2d", 1200, ("conv1.weight", "conv2.weight")),
        CoveredParameters("diagonal", "fallback", 4, ("scale",)),
        CoveredParameters("fixed", "frozen <b>", 64, tuple(f"norm.{i}" for i in range(20))),
    )
    checks = {
        "conv2": (check(0.03, 0.0, 0.0, "unclear"),),
        "conv3": (check(0.75, 0.0001, 0.4, "disagree"),),
    }
    return replace(
        plain.with_checks(checks).with_calibration(
            Calibration("map", 9, 0.7, 0.9, 0.4, 0.1, 0.1, bins)
        ),
        meta={**plain.meta, "epochs": 3, "log_likelihood": -600.0, "clamped_mass": 0.5},
        history=history,
        coverage=covered,
        pictures=(picture(), picture(kind="reads", n=2, side=16), picture(kind="writes", n=2)),
        config={"epochs": 3, "step": 0.5, "grow": True, "budget": None, "<i>": "\"'&"},
        environment={"torch": "2.4.0", "platform": "Linux-<x>"},
        symmetry=(generators(),),
    )
