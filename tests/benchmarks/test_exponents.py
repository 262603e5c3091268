"""Growth exponents of known laws."""

from __future__ import annotations

import math

import pytest

from benchmarks.support.exponents import exponent

pytestmark = pytest.mark.core


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 2.75])
def test_exponent_of_a_power_law(power: float) -> None:
    sizes = [3, 8, 10, 64]
    costs = [7.0 * size**power for size in sizes]
    assert exponent(sizes, costs) == pytest.approx(power, abs=1e-12)
    assert exponent([10 * s for s in sizes], [1e-3 * c for c in costs]) == pytest.approx(
        power, abs=1e-12
    )


def test_exponent_is_the_least_squares_slope() -> None:
    """Deviations that are orthogonal to the sizes' logarithms, [1, -2, 1], change nothing."""
    costs = [size**1.5 * math.exp(0.1 * e) for size, e in zip((1, 2, 4), (1, -2, 1), strict=True)]
    assert exponent([1, 2, 4], costs) == pytest.approx(1.5, abs=1e-12)
    assert exponent([1, 2, 4], [1.0, 1.0, 4.0]) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("sizes", [[], [2], [2, 2], [1, 2, 3]])
def test_an_exponent_needs_two_sizes_and_their_costs(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="two different sizes or more and a cost for each"):
        exponent(sizes, [1.0, 2.0][: max(1, len(sizes))])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_exponent_takes_positive_finite_numbers(bad: float) -> None:
    for sizes, costs in (([1.0, 2.0], [1.0, bad]), ([1.0, bad], [1.0, 2.0])):
        with pytest.raises(ValueError, match="must be positive and finite"):
            exponent(sizes, costs)
