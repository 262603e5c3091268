"""The verdict rule: a law table, its thresholds and its errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from symlearn.report import DOUBTFUL_SHARE, ON_SHARE, verdict
from symlearn.report.rule import MIN_EFFECTIVE, MIN_GAIN, describe
from tests.report.samples import path

BELOW_ON = math.nextafter(ON_SHARE, 0.0)
BELOW_DOUBTFUL = math.nextafter(DOUBTFUL_SHARE, 0.0)

# relative share and switch of conv and of ffc -> verdict
LAW = [
    ((1.0, True), (0.0, False), "conv"),
    ((1.0, True), (0.0, True), "conv"),
    ((0.0, False), (1.0, True), "ffc"),
    ((0.6, True), (0.4, True), "conv+ffc"),
    ((0.95, True), (ON_SHARE, True), "conv+ffc"),
    ((0.95, True), (BELOW_ON, True), "undecided"),
    ((0.99, True), (DOUBTFUL_SHARE, True), "undecided"),
    ((0.99, True), (BELOW_DOUBTFUL, True), "conv"),
    ((0.97, True), (0.03, False), "conv"),
    ((0.4, False), (0.6, False), "off"),
    ((0.0, True), (0.0, True), "off"),
    ((math.nan, True), (0.0, False), "undecided"),
    ((1.0, True), (math.nan, False), "undecided"),
    ((1.0, True), (math.inf, True), "undecided"),
]


@pytest.mark.parametrize(("conv", "ffc", "expected"), LAW)
def test_law(conv: tuple[float, bool], ffc: tuple[float, bool], expected: str) -> None:
    paths = {name: path(share, on=on) for name, (share, on) in {"conv": conv, "ffc": ffc}.items()}
    assert verdict(paths) == expected


def test_names_keep_the_order_of_the_layer() -> None:
    paths = {"gconv": path(0.3), "ffc": path(0.3), "conv": path(0.4)}
    assert verdict(paths) == "gconv+ffc+conv"


NEEDED = (
    "prior_precision",
    "weight_norm_sq",
    "effective_params",
    "normalised_effective_params",
    "relative_effective_params",
)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", NEEDED)
def test_a_path_that_is_on_needs_finite_numbers(field: str, bad: float) -> None:
    changes: dict[str, Any] = {field: bad}
    assert verdict({"conv": path(0.5), "ffc": replace(path(0.5), **changes)}) == "undecided"


def test_a_path_that_is_off_may_have_infinite_precision() -> None:
    assert verdict({"conv": path(1.0), "ffc": path(0.0, on=False, delta=math.inf)}) == "conv"


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [(math.nan, "conv"), (1.0, "conv"), (0.5, "conv"), (0.49, "undecided"), (0.0, "undecided")],
)
def test_agreement(agreement: float, expected: str) -> None:
    assert verdict({"conv": path(1.0)}, agreement=agreement) == expected


def test_thresholds_can_be_set() -> None:
    paths = {"conv": path(0.8), "ffc": path(0.2)}
    assert verdict(paths, on=0.3, doubtful=0.25) == "conv"
    assert verdict(paths, on=0.3, doubtful=0.1) == "undecided"
    assert verdict(paths, on=0.2, doubtful=0.2) == "conv+ffc"


@pytest.mark.parametrize(
    ("on", "doubtful"),
    [(0.01, 0.05), (-0.1, -0.2), (1.5, 0.1), (math.nan, 0.01), (0.05, math.nan)],
)
def test_thresholds_out_of_order(on: float, doubtful: float) -> None:
    with pytest.raises(ValueError, match="0 <= doubtful <= on <= 1"):
        verdict({"conv": path()}, on=on, doubtful=doubtful)


# evidence gain of conv and of ffc, and ffc's effective parameters -> verdict at half the share each
GAINS = [
    (500.0, MIN_GAIN, 100.0, "conv+ffc"),
    (500.0, math.nextafter(MIN_GAIN, 0.0), 100.0, "conv"),
    (500.0, -math.inf, 100.0, "conv"),
    (500.0, math.nan, 100.0, "conv+ffc"),
    (math.nan, 1.0, 100.0, "conv+ffc"),
    (1.0, 500.0, 100.0, "ffc"),
    (1.0, 2.0, 0.1, "conv+ffc"),  # none is strong, so none is weak beside it
    (1.0, 0.0, 0.1, "conv"),
    (1.0, 0.0, MIN_EFFECTIVE, "conv+ffc"),
]


@pytest.mark.parametrize(("conv", "ffc", "effective", "expected"), GAINS)
def test_beside_a_path_that_pays_one_must_pay(
    conv: float, ffc: float, effective: float, expected: str
) -> None:
    paths = {
        "conv": replace(path(0.5), evidence_gain=conv),
        "ffc": replace(path(0.5), evidence_gain=ffc, effective_params=effective),
    }
    assert verdict(paths) == expected


def test_a_path_that_does_not_pay_leaves_no_doubt() -> None:
    weak = replace(path(0.03), evidence_gain=0.0)
    assert verdict({"conv": path(0.97), "ffc": path(0.03)}) == "undecided"
    assert verdict({"conv": path(0.97), "ffc": weak}) == "conv"
    assert verdict({"conv": path(0.97), "ffc": weak}, gain=-math.inf) == "undecided"


def test_all_problems_at_once() -> None:
    with pytest.raises(ValueError, match=r"at least one path.*thresholds.*agreement.*gain"):
        verdict({}, on=0.1, doubtful=0.2, agreement=1.5, gain=math.nan)


def test_the_description_states_the_thresholds() -> None:
    assert f"{ON_SHARE:.0%}" in describe()
    assert f"{DOUBTFUL_SHARE:.0%}" in describe()
    assert f"{MIN_GAIN:g} nats" in describe()
