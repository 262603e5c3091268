"""An arithmetic coder for sequences of symbols whose counts both sides know.

Integers only, so that the code is the same on every machine. The probability of a symbol is its
share of what is *still to come* (its remaining count over the remaining length): the code of a
sequence of length d with counts n_k then has less than two bits more than ``log2(d! / prod n_k!)``,
which is below ``d H(p)`` with the frequencies ``p = n / d``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_BITS = 48
_TOP = 1 << _BITS
_HALF, _QUARTER = _TOP >> 1, _TOP >> 2

MOST = 1 << 24
"""Longest sequence: the coder's interval stays much finer than the shares of symbols."""


def encode(symbols: Sequence[int], counts: Sequence[int]) -> list[int]:
    """The code of a sequence, as bits 0 and 1; zeros after its end change nothing.

    Args:
        symbols: The sequence, of symbols 0..L-1.
        counts: How often each symbol occurs in it.

    Raises:
        ValueError: If the counts are not those of the sequence, or it is too long.
    """
    _check(symbols, counts)
    bits: list[int] = []
    low, high, pending = 0, _TOP - 1, 0
    remaining = list(counts)
    for symbol in symbols:
        low, high = _narrowed(low, high, remaining, symbol)
        while (offset := _offset(low, high)) is not None:
            if offset == _QUARTER:  # the next bit is not known; those after it will be its opposite
                pending += 1
            else:
                _put(bits, int(offset == _HALF), pending)
                pending = 0
            low, high = 2 * (low - offset), 2 * (high - offset) + 1
    if (low, high, pending) != (0, _TOP - 1, 0):
        _put(bits, int(low >= _QUARTER), pending + 1)
    return bits


def decode(bits: Sequence[int], counts: Sequence[int]) -> list[int]:
    """The sequence of a code.

    Args:
        bits: What `encode` returned; more bits may follow.
        counts: The counts it was given.
    """
    following = _bits_and_zeros(bits)
    value = 0
    for _ in range(_BITS):
        value = 2 * value + next(following)
    low, high = 0, _TOP - 1
    remaining = list(counts)
    symbols = []
    for _ in range(sum(counts)):
        symbol = _symbol_at(value, low, high, remaining)
        low, high = _narrowed(low, high, remaining, symbol)
        while (offset := _offset(low, high)) is not None:
            low, high = 2 * (low - offset), 2 * (high - offset) + 1
            value = 2 * (value - offset) + next(following)
        symbols.append(symbol)
    return symbols


def _narrowed(low: int, high: int, remaining: list[int], symbol: int) -> tuple[int, int]:
    """The part of an interval that belongs to a symbol, whose remaining count falls by one."""
    total, below, width = sum(remaining), sum(remaining[:symbol]), high - low + 1
    top = low + width * (below + remaining[symbol]) // total - 1
    remaining[symbol] -= 1
    return low + width * below // total, top


def _symbol_at(value: int, low: int, high: int, remaining: list[int]) -> int:
    """The symbol in whose part of the interval a value lies."""
    place = ((value - low + 1) * sum(remaining) - 1) // (high - low + 1)
    for symbol, count in enumerate(remaining):
        if place < count:
            return symbol
        place -= count
    raise ValueError("the bits are no code of symbols with these counts")


def _offset(low: int, high: int) -> int | None:
    """What to take off both ends before the interval is doubled; None if it is wide enough."""
    if high < _HALF:
        return 0
    if low >= _HALF:
        return _HALF
    return _QUARTER if low >= _QUARTER and high < _HALF + _QUARTER else None


def _put(bits: list[int], bit: int, pending: int) -> None:
    bits.append(bit)
    bits.extend([1 - bit] * pending)


def _bits_and_zeros(bits: Sequence[int]) -> Iterator[int]:
    yield from bits
    while True:
        yield 0


def _check(symbols: Sequence[int], counts: Sequence[int]) -> None:
    if len(symbols) > MOST:
        raise ValueError(f"{len(symbols)} symbols are given; the coder takes at most {MOST}")
    found = [0] * len(counts)
    for symbol in symbols:
        if not 0 <= symbol < len(counts):
            raise ValueError(f"symbol {symbol} is given; there are counts for 0..{len(counts) - 1}")
        found[symbol] += 1
    if found != list(counts):
        raise ValueError(f"the counts are given as {list(counts)}; the symbols have {found}")
