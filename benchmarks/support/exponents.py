"""Growth exponents: the slope of a straight line through logarithms of cost over size."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Least-squares fit of k in ``cost = c * size^k``.

    Raises:
        ValueError: If the two differ in length, there are not two different sizes, or a number is
            not positive and finite.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(
            f"an exponent needs two different sizes or more and a cost for each; given sizes "
            f"{list(sizes)} and costs {list(costs)}"
        )
    if not all(0 < value < math.inf for value in (*sizes, *costs)):
        raise ValueError(f"sizes {list(sizes)} and costs {list(costs)} must be positive and finite")
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    middle = math.fsum(x) / len(x)
    spread = math.fsum((a - middle) ** 2 for a in x)
    return math.fsum((a - middle) * b for a, b in zip(x, y, strict=True)) / spread
