"""Messages: read back as written, of the length promised, and refused when damaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symlearn.certify.config import Choice
from symlearn.certify.message import PARTS, Code, Message, MessageError, read, write

pytestmark = pytest.mark.core

GRID = (
    Choice(0, 0, 0.0, ""),
    *(Choice(d, levels, 0.1, "kmeans") for d in (1, 20, 150) for levels in (1, 3, 7)),
)
NONE = (False, False, False)
CODE = Code(GRID, paths=3, alternatives=5)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    choice = draw(st.integers(0, len(GRID) - 1))
    point = GRID[choice]
    halves = st.floats(allow_nan=False, allow_infinity=False, width=16)
    codebook = draw(st.lists(halves, min_size=point.levels, max_size=point.levels))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    coefficients = rng.binomial(max(point.levels - 1, 0), 0.3, point.dimension)
    structure = tuple(draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    return Message(choice, structure, tuple(codebook), tuple(coefficients.tolist()))


@settings(max_examples=60)
@given(messages())
def test_round_trip(message: Message) -> None:
    data, parts = write(message, CODE)
    assert read(data, CODE) == message
    assert sum(parts.values()) == 8 * len(data)
    assert tuple(parts) == PARTS
    assert parts["padding"] < 8
    point = GRID[message.choice]
    assert parts["choice"] == math.ceil(math.log2(len(GRID)))
    assert parts["alternatives"] == 3
    assert parts["structure"] == 3
    assert parts["codebook"] == 16 * point.levels
    # the paper's length of counts and coefficients (Sec. 5.4.2), with d + 1 possible counts
    counts = np.bincount(message.coefficients, minlength=1)
    p = counts[counts > 0] / max(point.dimension, 1)
    entropy = point.dimension * float(-(p * np.log2(p)).sum())
    assert parts["coefficients"] <= math.ceil(entropy) + 2
    assert parts["counts"] <= point.levels * math.ceil(math.log2(point.dimension + 1))


def one() -> tuple[Message, bytes]:
    rng = np.random.default_rng(0)
    message = Message(
        5, (True, False, True), (-1.0, 0.25, 3.5), tuple(rng.integers(0, 3, 20).tolist())
    )
    return message, write(message, CODE)[0]


def test_values() -> None:
    message, _ = one()
    assert message.values == tuple((-1.0, 0.25, 3.5)[k] for k in message.coefficients)


def test_every_bit_counts() -> None:
    message, data = one()
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 128 >> i % 8
        try:
            assert read(bytes(flipped), CODE) != message
        except MessageError:
            continue


@pytest.mark.parametrize("cut", [1, 5])
def test_damaged(cut: int) -> None:
    message, data = one()
    for damaged in (data[:-cut], data + bytes(cut), b""):
        try:
            assert read(damaged, CODE) != message
        except MessageError:
            continue
    with pytest.raises(MessageError, match="ends too early"):
        read(data[:4], CODE)
    with pytest.raises(MessageError, match="names point 15"):
        read(b"\xff" * 40, CODE)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message(0), "structure has 0 paths, not 3"),
        (Message(99, NONE), "choice is 99"),
        (Message(5, NONE, (1.0,), ()), "0 coefficients and 1 levels"),
        (Message(1, NONE, (math.inf,), (0,)), "not finite half-precision"),
        (Message(1, NONE, (0.1,), (0,)), "not finite half-precision"),
    ],
)
def test_what_cannot_be_written(message: Message, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write(message, CODE)


def test_the_shortest_message_is_a_byte() -> None:
    code = Code(GRID[:1])
    data, parts = write(Message(0), code)
    assert data == b"\0"
    assert parts["padding"] == 8
    assert read(data, code) == Message(0)
