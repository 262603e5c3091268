"""The profile objective, its global minimum, and the relevance test."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from priors import BOUNDS, profile, relevance
from tests.oracles import assert_near

pytestmark = pytest.mark.core

LOW, HIGH = (math.log(bound) for bound in BOUNDS)


def slope(t: float, lam: Tensor, b_sq: Tensor, h: float = 1e-4) -> float:
    """Central difference of the profile in log delta."""
    return (profile(t + h, lam, b_sq) - profile(t - h, lam, b_sq)) / (2 * h)


def dense_minimum(lam: Tensor, b_sq: Tensor, low: float = LOW, high: float = HIGH) -> float:
    """Smallest value of J on a dense grid."""
    delta = torch.linspace(low, high, 20_001, dtype=torch.float64).exp()
    total = torch.zeros_like(delta)
    for value, square in zip(lam.tolist(), b_sq.tolist(), strict=True):
        total += 0.5 * torch.log1p(value / delta) - 0.5 * square / (value + delta)
    return float(total.min())


def made(*pairs: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues and squared coefficients."""
    lam, b_sq = zip(*pairs, strict=True)
    return torch.tensor(lam, dtype=torch.float64), torch.tensor(b_sq, dtype=torch.float64)


def spread(*wells: tuple[float, float], count: int = 300) -> tuple[Tensor, Tensor]:
    """Per well (typical eigenvalue, b^2 / eigenvalue), many eigenvalues around it."""
    generator = torch.Generator().manual_seed(3)
    draws = torch.randn(2, len(wells), count, generator=generator, dtype=torch.float64)
    centre, strength = torch.tensor(wells, dtype=torch.float64).T.unsqueeze(2)
    lam = centre * draws[0].exp()
    return lam.flatten(), (lam * strength * draws[1].square()).flatten()


EXAMPLES = {
    "one": made((2.0, 9.0)),
    "pays": made((1.0, 5.0), (10.0, 0.1), (100.0, 900.0)),
    "fails": made((1.0, 0.5), (10.0, 3.0)),
    "two wells": made((1e6, 2.2e6), (1e-2, 2.0), (1e-2, 1.5)),
    "zeros": made((3.0, 9.0), (0.0, 0.0), (0.0, 5.0)),
    "strong": made((1e8, 1e14), (1e7, 1e10)),
    "weak": made((1e-9, 1e-6), (1e-10, 1e-12)),
    "many": spread((1.0, 4.0)),
    "many in two wells": spread((1e6, 3.0), (1e-3, 1.5)),
    "many that fail": spread((1.0, 0.3), (1e3, 0.9)),
}


def test_profile_is_its_formula() -> None:
    for lam, b_sq in EXAMPLES.values():
        for t in (-10.0, 0.0, 3.0):
            delta = math.exp(t)
            want = 0.5 * math.fsum(
                math.log((x + delta) / delta) - b / (x + delta)
                for x, b in zip(lam.tolist(), b_sq.tolist(), strict=True)
            )
            assert_near(profile(t, lam, b_sq), want, 1e-9)


def test_profile_is_a_marginal_likelihood() -> None:
    """Of data ``b_i / lambda_i ~ N(w_i, 1 / lambda_i)`` with weights ``w_i ~ N(0, 1 / delta)``."""
    lam, b_sq = EXAMPLES["pays"]
    y = (b_sq.sqrt() / lam).double()
    for t in (-2.0, 0.0, 1.5):
        spread = (1 / lam + math.exp(-t)).sqrt()
        absent = torch.distributions.Normal(0.0, (1 / lam).sqrt()).log_prob(y).sum()
        present = torch.distributions.Normal(0.0, spread).log_prob(y).sum()
        assert_near(-profile(t, lam, b_sq), float(present - absent), 1e-10)


@pytest.mark.parametrize("name", EXAMPLES)
def test_minimum_is_global_and_stationary(name: str) -> None:
    lam, b_sq = EXAMPLES[name]
    test = relevance(lam, b_sq)
    lam, b_sq = lam[lam > 0], b_sq[lam > 0]
    want = dense_minimum(lam, b_sq)
    assert -test.gain <= want + 1e-9 * abs(want)
    if test.gain > 0:
        assert_near(profile(test.log_precision, lam, b_sq), -test.gain, 1e-12)
        inside = LOW + 1e-3 < test.log_precision < HIGH - 1e-3
        steep = 1e-6 * max(1.0, test.gain)
        assert abs(slope(test.log_precision, lam, b_sq)) < steep or not inside


coefficients = st.tuples(
    st.floats(-8, 8).map(lambda v: 10**v), st.floats(-8, 8).map(lambda v: 10**v)
)


@settings(max_examples=60)
@given(st.lists(coefficients, min_size=1, max_size=5))
def test_minimum_is_global_for_any_coefficients(pairs: list[tuple[float, float]]) -> None:
    lam, b_sq = made(*pairs)
    test, want = relevance(lam, b_sq), dense_minimum(lam, b_sq)
    assert test.gain >= 0
    # the grid may be off by its spacing; nothing on it lies below the minimum, absence included
    assert -test.gain <= min(want, 0.0) + 1e-9 * (1 + abs(want))
    if test.gain > 0:
        assert_near(profile(test.log_precision, lam, b_sq), -test.gain, 1e-9)
    assert LOW <= test.log_precision <= HIGH


@pytest.mark.parametrize("many", [False, True])
def test_two_wells_of_nearly_equal_depth(many: bool) -> None:
    """A coarse grid alone would take the wrong one, and so would merged eigenvalues."""
    found = set()
    for scale in torch.linspace(0.6, 1.6, 101, dtype=torch.float64).tolist():
        lam, b_sq = made((1e8, 3.2e8), *[(1e-4, scale * 4e-4)] * 8)
        if many:
            well, other = made((1e8, 3.2e8)), spread((1e-4, scale * 3.5), count=40)
            lam, b_sq = (torch.cat(both) for both in zip(well, other, strict=True))
        test, want = relevance(lam, b_sq), dense_minimum(lam, b_sq)
        assert -test.gain <= want + 1e-9
        found.add(round(test.log_precision / 10))
    assert len(found) > 1  # both wells win at some scale


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2.0])
def test_a_group_pays_iff_squares_exceed_eigenvalues(factor: float) -> None:
    """At large delta, J ~ (sum lambda - sum b^2) / (2 delta)."""
    lam = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    b_sq = lam * factor  # so that one delta after the other gives no other minimum
    test = relevance(lam, b_sq)
    assert_near(test.ratio, factor, 1e-12)
    assert test.absent == (factor < 1)
    assert test.informative
    assert (profile(HIGH, lam, b_sq) < 0) == (factor > 1)
    if factor < 1:
        assert test.gain == 0
        assert test.log_precision == pytest.approx(HIGH)


@pytest.mark.parametrize("name", ["two wells", "many in two wells"])
def test_repeated_directions_multiply_the_gain(name: str) -> None:
    lam, b_sq = EXAMPLES[name]
    once, often = relevance(lam, b_sq), relevance(lam.repeat(50), b_sq.repeat(50))
    assert_near(often.gain, 50 * once.gain, 1e-12)
    assert_near(often.log_precision, once.log_precision, 1e-9)
    assert_near(often.ratio, once.ratio, 1e-12)


@settings(max_examples=60)
@given(st.lists(coefficients, min_size=1, max_size=5))
def test_a_ratio_above_one_always_pays(pairs: list[tuple[float, float]]) -> None:
    lam, b_sq = made(*pairs)
    delta = 1e6 * float(lam.max())
    ratio = float(b_sq.sum() / lam.sum())
    if abs(ratio - 1) > 1e-3:
        assert (profile(math.log(delta), lam, b_sq) < 0) == (ratio > 1)
        test = relevance(lam, b_sq, (1e-12, 1e20))
        assert_near(test.ratio, ratio, 1e-12)
        assert not (ratio > 1 and test.absent)


def test_nothing_is_known_without_curvature() -> None:
    for b_sq in (torch.zeros(3), torch.ones(3)):
        test = relevance(torch.zeros(3), b_sq)
        assert not test.informative
        assert test.gain == test.ratio == 0
    assert not relevance(torch.zeros(0), torch.zeros(0)).informative


def test_directions_without_curvature_change_nothing() -> None:
    lam, b_sq = EXAMPLES["pays"]
    more = torch.cat([lam, torch.zeros(4)]), torch.cat([b_sq, torch.full((4,), 1e6)])
    assert relevance(*more) == relevance(lam, b_sq)


def test_bounds_hold() -> None:
    lam, b_sq = EXAMPLES["strong"]  # wants a tiny precision
    free = relevance(lam, b_sq, (1e-12, 1e12))
    held = relevance(lam, b_sq, (10 * math.exp(free.log_precision), 1e12))
    assert_near(held.log_precision, free.log_precision + math.log(10), 1e-9)
    assert held.gain < free.gain
    one_value = relevance(*EXAMPLES["pays"], (1.0, 1.0 + 1e-9))
    assert one_value.log_precision == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("which", [0, 1])
def test_bad_numbers_are_refused(bad: float, which: int) -> None:
    given_values = [torch.ones(3), torch.ones(3)]
    given_values[which][1] = bad
    what = ("eigenvalues", "squared coefficients")[which]
    with pytest.raises(ValueError, match=f"the {what} contain negative, NaN or infinite values"):
        relevance(*given_values)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        relevance(torch.ones(3), torch.ones(2))


@pytest.mark.parametrize(
    "bounds", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (1.0, 1.0)]
)
def test_bounds_must_increase(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="give 0 < lowest < highest precision"):
        relevance(torch.ones(2), torch.ones(2), bounds)
