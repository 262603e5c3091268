"""The message that names a network, to a receiver who knows everything but the training data.

In this order, without any gap:

| part | bits |
|---|---|
| alternatives | which of the set-ups that were tried by hand this is |
| choice | ``ceil(log2 |grid|)``: the point of the search, which has d and L |
| structure | one for each path of a relaxed network: whether it is on |
| codebook | 16 L: the levels, as half-precision numbers |
| counts | how often each level but the last occurs, in the bits of what the others leave |
| coefficients | arithmetic code of the level of each coefficient |
| padding | zeros up to a whole byte |

The length of all of it enters the bound: eight bits for each byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from symlearn.certify import arithmetic
from symlearn.certify.config import Choice

PARTS = ("alternatives", "choice", "structure", "codebook", "counts", "coefficients", "padding")
_HALF = np.dtype(">f2")


@dataclass(frozen=True)
class Code:
    """What sender and receiver agree on.

    Attributes:
        grid: The points of the search.
        paths: Number of paths in the structure.
        alternatives: Number of set-ups tried by hand, this one included.
    """

    grid: Sequence[Choice]
    paths: int = 0
    alternatives: int = 1


class MessageError(ValueError):
    """Bytes that no sender would have written."""


@dataclass(frozen=True)
class Message:
    """What a message says.

    Attributes:
        choice: Index of the point of the search.
        structure: Whether each path is on.
        codebook: The levels [L], each a half-precision number.
        coefficients: The level of each coefficient [d].
    """

    choice: int
    structure: tuple[bool, ...] = ()
    codebook: tuple[float, ...] = ()
    coefficients: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """The quantised coefficients [d]."""
        return tuple(self.codebook[level] for level in self.coefficients)


def write(message: Message, code: Code) -> tuple[bytes, dict[str, int]]:
    """The bytes of a message, and the bits of each of its `PARTS`.

    Raises:
        ValueError: If it does not fit the code, or a level is not a finite half-precision number.
    """
    _check(message, code)
    counts = [message.coefficients.count(k) for k in range(len(message.codebook))]
    parts = {
        "alternatives": _number(0, _width(code.alternatives - 1)),
        "choice": _number(message.choice, _width(len(code.grid) - 1)),
        "structure": [int(on) for on in message.structure],
        "codebook": _half_bits(message.codebook),
        "counts": _count_bits(counts),
        "coefficients": arithmetic.encode(message.coefficients, counts),
    }
    bits = [bit for part in parts.values() for bit in part]
    # one byte at least: the prior over messages asks for two bits
    lengths = {name: len(part) for name, part in parts.items()}
    lengths["padding"] = max(8, -(-len(bits) // 8) * 8) - len(bits)
    packed = np.packbits([*bits, *[0] * lengths["padding"]])
    return packed.tobytes(), lengths


def read(data: bytes, code: Code) -> Message:
    """The message of some bytes.

    Args:
        data: What `write` returned.
        code: What it was given.

    Raises:
        MessageError: If the bytes are no such message.
    """
    bits = _Bits(data)
    bits.number(_width(code.alternatives - 1))
    choice = bits.number(_width(len(code.grid) - 1))
    if choice >= len(code.grid):
        raise MessageError(f"the message names point {choice} of a search over {len(code.grid)}")
    structure = tuple(bool(bits.number(1)) for _ in range(code.paths))
    point = code.grid[choice]
    codebook = np.frombuffer(bits.take(16 * point.levels), _HALF).tolist()
    counts: list[int] = []
    left = point.dimension
    for _ in range(point.levels - 1):
        counts.append(bits.number(_width(left)))
        left -= counts[-1]
    if left < 0:
        raise MessageError("the counts of the message add up to more than the coefficients")
    counts += [left] if point.levels else []
    try:
        symbols = arithmetic.decode(bits.rest(), counts)
        message = Message(choice, structure, tuple(codebook), tuple(symbols))
        again, _ = write(message, code)
    except ValueError as error:
        raise MessageError(str(error)) from error
    if again != data:
        raise MessageError("the bytes are not as a sender would have written them")
    return message


class _Bits:
    """Bits of some bytes, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bits, which are whole bytes."""
        part = self._bits[self._at : self._at + count]
        self._at += count
        if len(part) < count:
            raise MessageError("the message ends too early")
        return np.packbits(part).tobytes()

    def number(self, width: int) -> int:
        """The next bits as a number."""
        part = self._bits[self._at : self._at + width]
        self._at += width
        if len(part) < width:
            raise MessageError("the message ends too early")
        return int("0" + "".join(map(str, part)), 2)

    def rest(self) -> list[int]:
        """All the bits that follow."""
        rest: list[int] = self._bits[self._at :].tolist()
        return rest


def _number(value: int, width: int) -> list[int]:
    return [value >> i & 1 for i in reversed(range(width))]


def _width(largest: int) -> int:
    """Bits of the numbers 0..largest."""
    return largest.bit_length()


def _half_bits(codebook: Sequence[float]) -> list[int]:
    as_bytes = np.frombuffer(np.array(codebook, _HALF).tobytes(), np.uint8)
    bits: list[int] = np.unpackbits(as_bytes).tolist()
    return bits


def _count_bits(counts: Sequence[int]) -> list[int]:
    """All counts but the last, each in the bits of what the ones before have left."""
    bits: list[int] = []
    left = sum(counts)
    for count in counts[:-1]:
        bits += _number(count, _width(left))
        left -= count
    return bits


def _check(message: Message, code: Code) -> None:
    if not 0 <= message.choice < len(code.grid):
        raise ValueError(f"choice is {message.choice}; the search has {len(code.grid)} points")
    if len(message.structure) != code.paths:
        raise ValueError(f"structure has {len(message.structure)} paths, not {code.paths}")
    point = code.grid[message.choice]
    given = (len(message.coefficients), len(message.codebook))
    if given != (point.dimension, point.levels):
        raise ValueError(
            f"the message has {given[0]} coefficients and {given[1]} levels; point "
            f"{message.choice} of the search has {point.dimension} and {point.levels}"
        )
    as_half = np.array(message.codebook, _HALF).astype(float)
    if not (np.isfinite(as_half).all() and np.array_equal(as_half, message.codebook)):
        raise ValueError(f"levels {list(message.codebook)} are not finite half-precision numbers")
