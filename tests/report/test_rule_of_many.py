"""The rules over several fits: what seeds support, and where a free path is needed."""

from __future__ import annotations

import math

import pytest
import torch

from symlearn.report import rule
from symlearn.report.rule import across_seeds, most_would_agree, whereabouts

pytestmark = pytest.mark.core

# --- Seeds ---


@pytest.mark.parametrize(("votes", "n"), [(0, 1), (1, 1), (3, 3), (4, 5), (5, 6), (2, 7)])
def test_the_probability_is_that_of_a_beta_posterior(votes: int, n: int) -> None:
    """Against the integral of the posterior density p^k (1 - p)^(n - k) over p > 1/2."""
    p = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    density = p**votes * (1 - p) ** (n - votes)
    upper = torch.trapezoid(density[100_000:], p[100_000:]) / torch.trapezoid(density, p)
    assert most_would_agree(votes, n) == pytest.approx(float(upper), abs=1e-9)


def shares(*ffc: float) -> dict[str, list[float]]:
    return {"conv": [1 - share for share in ffc], "ffc": list(ffc)}


SEEDS = [
    # enough seeds that agree
    (["conv"] * 3, shares(0, 0, 0), "conv"),
    (["conv+ffc"] * 3, shares(0.5, 0.4, 0.6), "conv+ffc"),
    (["conv+ffc"] * 5 + ["conv"], shares(0.5, 0.4, 0.6, 0.5, 0.5, 0.0), "conv+ffc"),
    # too few seeds
    (["conv"], shares(0), "undecided"),
    (["conv"] * 2, shares(0, 0), "undecided"),
    # too many that differ
    (["conv+ffc"] * 4 + ["conv"], shares(0.5, 0.4, 0.6, 0.5, 0.0), "undecided"),
    (["conv+ffc", "conv"] * 3, shares(*[0.5, 0.0] * 3), "undecided"),
    # seeds that are undecided themselves, or whose check disagrees, count against
    (["undecided"] * 3, shares(0.5, 0.4, 0.6), "undecided"),
    (["conv+ffc"] * 2 + ["undecided"], shares(0.5, 0.4, 0.6), "undecided"),
    # near the limit, but all clearly on one side of it
    (["conv+ffc"] * 3, shares(0.051, 0.051, 0.06), "conv+ffc"),
    (["conv+ffc"] * 3, shares(0.051, 0.2, 0.051), "conv+ffc"),
    # so widely spread that the mean is not: it is .02 away, the standard error .04 ...
    (["conv"] * 3, shares(0.0, 0.0, 0.12), "undecided"),
    # ... and .25 away, with a standard error of .3 (of .245 if that were with n)
    (["conv"] * 3, shares(0.0, 0.0, 0.9), "undecided"),
    # a number that is not known
    (["conv"] * 3, shares(0.0, math.nan, 0.0), "undecided"),
]


@pytest.mark.parametrize(("verdicts", "by_path", "expected"), SEEDS)
def test_law_of_seeds(verdicts: list[str], by_path: dict[str, list[float]], expected: str) -> None:
    assert across_seeds(verdicts, by_path)[0] == expected


def test_the_probability_is_that_of_the_most_frequent() -> None:
    assert across_seeds(["conv", "conv", "ffc"], shares(0, 0, 1)) == (
        "undecided",
        most_would_agree(2, 3),
    )


def test_seeds_need_a_verdict_and_shares_each() -> None:
    for verdicts, by_path in (([], {}), (["conv"], {"conv": [1.0, 1.0]})):
        with pytest.raises(ValueError, match="at least one seed, and a share per seed"):
            across_seeds(verdicts, by_path)


# --- Where ---

NONE, A, B, AB, AC = map(frozenset, ("", "a", "b", "ab", "ac"))
NEEDED, NOT, UNSURE = rule.NEEDED, rule.NOT_NEEDED, rule.UNDECIDED

WHERE = [
    ([(A, 0.0), (NONE, 90.0), (B, 90.0)], (NEEDED, ("a",), ())),
    ([(A, 0.0), (B, 5.0), (NONE, 90.0)], (NEEDED, (), ("a", "b"))),
    # a further path that does no harm is not needed, even where it is in the best
    ([(A, 0.0), (AB, 5.0), (NONE, 90.0)], (NEEDED, ("a",), ())),
    ([(AB, 0.0), (A, 5.0), (NONE, 90.0)], (NEEDED, ("a",), ())),
    ([(AB, 0.0), (A, 5.0), (B, 5.0)], (NEEDED, (), ("a", "b"))),
    ([(AB, 0.0), (A, 50.0), (B, 50.0)], (NEEDED, ("a", "b"), ())),
    ([(AB, 0.0), (AC, 5.0)], (NEEDED, ("a",), ("b", "c"))),
    ([(AB, 0.0), (A, 5.0), (NONE, 5.0)], (UNSURE, (), ("a",))),
    ([(A, 0.0), (B, 10.0)], (NEEDED, (), ("a", "b"))),
    ([(A, 0.0), (B, 10.1)], (NEEDED, ("a",), ())),
    ([(NONE, 0.0), (A, 40.0)], (NOT, (), ())),
    # as good as the best, and simpler: the best has none
    ([(NONE, 0.0), (A, 5.0)], (NOT, (), ("a",))),
    ([(A, 0.0), (NONE, 5.0)], (UNSURE, (), ("a",))),
    # a refit may be better than the network it is compared with
    ([(A, 0.0), (B, -40.0)], (NEEDED, ("b",), ())),
    ([(A, 0.0), (B, -5.0), (NONE, 4.0)], (UNSURE, (), ("a", "b"))),
    ([(A, 0.0), (A, -30.0), (B, 5.0)], (NEEDED, ("a",), ())),
    ([(A, 0.0), (B, math.nan), (NONE, math.inf)], (NEEDED, ("a",), ())),
]


@pytest.mark.parametrize(("behind", "expected"), WHERE)
def test_law_of_whereabouts(
    behind: list[tuple[frozenset[str], float]],
    expected: tuple[str, tuple[str, ...], tuple[str, ...]],
) -> None:
    assert whereabouts(behind, 10.0) == expected
    assert whereabouts(behind[::-1], 10.0) == expected


def test_nothing_known_is_an_error() -> None:
    for behind in ([], [(A, math.nan)]):
        with pytest.raises(ValueError, match="no network has a finite log evidence"):
            whereabouts(behind, 10.0)


def test_tolerance_grows_with_the_data() -> None:
    assert rule.tolerance(0) == rule.MIN_FACTOR
    assert rule.tolerance(1000, noise=0.1) == rule.MIN_FACTOR + 100


def test_rules_are_described_with_their_limits() -> None:
    assert f"{rule.CONFIDENCE:.0%}" in rule.describe_seeds()
    for limit in (rule.ON_SHARE, rule.DOUBTFUL_SHARE, rule.BREAKING):
        assert f"{limit:.0%}" in rule.describe_check()
    assert str(rule.MIN_DROP) in rule.describe_check()
