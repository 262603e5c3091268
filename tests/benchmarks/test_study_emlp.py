"""The claims of the study of matrix groups, from rows whose answer is known."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import pytest

from benchmarks.study_emlp import COMPARED, claims
from benchmarks.support.verdicts import present

Errors: TypeAlias = dict[str, tuple[float, ...]]
ERRORS: Errors = {"emlp": (1.0, 2.0, 3.0), "fc": (4.0, 4.0, 4.0), "rpp": (1.0, 2.1, 2.9)}


def rows(
    symmetry: str, errors: dict[str, tuple[float, ...]], *verdicts: str
) -> list[dict[str, Any]]:
    return [
        {
            "name": "twist",
            "variant": symmetry,
            "model": model,
            "seed": seed,
            "error": error,
            "verdicts": list(verdicts),
        }
        for model in COMPARED
        for seed, error in enumerate(errors[model])
    ]


def test_the_better_one_and_the_noise() -> None:
    (line,) = claims(rows("exact", ERRORS, "emlp", "emlp"))
    assert line[1:] == ["emlp", "1.01 (0.97-1.05)", "yes", "3 of 3"]
    worse = {**ERRORS, "rpp": (1.5, 2.6, 3.4)}
    (line,) = claims(rows("exact", worse, "emlp", "undecided"))
    assert line[1:] == ["emlp", "1.31 (1.13-1.50)", "no", "0 of 3"]
    (line,) = claims(rows("exact", {**ERRORS, "rpp": (1.0, math.nan, 3.0)}, "emlp"))
    assert line[3] == "no"


@pytest.mark.parametrize(
    ("symmetry", "verdicts", "found"),
    [
        ("approximate", ("emlp+fc", "emlp"), 3),
        ("approximate", ("emlp", "fc"), 3),
        ("approximate", ("emlp", "emlp"), 0),
        ("misspecified", ("fc", "off"), 3),
        ("misspecified", ("emlp+fc", "fc"), 0),
    ],
)
def test_what_the_symmetry_asks_for(symmetry: str, verdicts: tuple[str, ...], found: int) -> None:
    (line,) = claims(rows(symmetry, ERRORS, *verdicts))
    assert line[-1] == f"{found} of 3"


def test_no_claim_without_all_three_or_of_one_seed() -> None:
    mine = rows("exact", ERRORS, "emlp")
    assert list(claims([row for row in mine if row["model"] != "fc"])) == []
    assert list(claims([row for row in mine if row["seed"] == 0])) == []


def test_paths_of_a_network() -> None:
    assert present(["conv", "conv+ffc", "off"]) == {"conv", "ffc"}
    assert present(["off"]) == frozenset()
    assert present(["conv", "undecided"]) == {"undecided"}
