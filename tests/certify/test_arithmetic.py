"""The arithmetic coder: decodes what it encodes, in the bits it promises, and refuses the rest."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symlearn.certify import arithmetic

pytestmark = pytest.mark.core


def counts_of(symbols: list[int], levels: int) -> list[int]:
    found = Counter(symbols)
    return [found[k] for k in range(levels)]


def ideal_bits(counts: list[int]) -> float:
    """log2 of the number of sequences with these counts."""
    ways = math.lgamma(sum(counts) + 1) - sum(math.lgamma(n + 1) for n in counts)
    return ways / math.log(2)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), max_size=80), st.lists(st.integers(0, 1), max_size=20))
def test_round_trip_in_the_promised_bits(symbols: list[int], noise: list[int]) -> None:
    counts = counts_of(symbols, 7)
    bits = arithmetic.encode(symbols, counts)
    assert arithmetic.decode(bits, counts) == symbols
    assert arithmetic.decode(bits + [0] * 9, counts) == symbols
    # two bits more than the ideal, but for the coder's rounding
    assert len(bits) <= ideal_bits(counts) + 2 + 1e-6
    assert set(bits) <= {0, 1}


def test_each_sequence_has_a_code_of_its_own() -> None:
    counts = [2, 3, 1]
    codes = {}
    for number in range(3**6):
        symbols = [number // 3**i % 3 for i in range(6)]
        if counts_of(symbols, 3) == counts:
            codes[tuple(symbols)] = tuple(arithmetic.encode(symbols, counts))
    assert len(codes) == 60  # 6! / (2! 3! 1!)
    assert len({code + (0,) * (20 - len(code)) for code in codes.values()}) == 60


def test_long_and_skewed() -> None:
    symbols = [int(i % 97 == 0) for i in range(5000)]
    counts = counts_of(symbols, 2)
    bits = arithmetic.encode(symbols, counts)
    p = counts[1] / 5000
    entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert len(bits) <= math.ceil(5000 * entropy) + 2  # the paper's promise
    assert arithmetic.decode(bits, counts) == symbols


def test_nothing_takes_no_bits() -> None:
    assert arithmetic.encode([], []) == []
    assert arithmetic.encode([1, 1, 1], [0, 3]) == []
    assert arithmetic.decode([], [0, 3]) == [1, 1, 1]


@pytest.mark.parametrize(
    ("symbols", "counts", "said"),
    [
        ([0, 1], [2, 0], "the counts are given as"),
        ([0, 2], [1, 1], "symbol 2"),
        ([-1], [1], "symbol -1"),
    ],
)
def test_counts_that_do_not_fit(symbols: list[int], counts: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        arithmetic.encode(symbols, counts)


def test_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MOST", 3)
    with pytest.raises(ValueError, match="at most 3"):
        arithmetic.encode([0] * 4, [4])
