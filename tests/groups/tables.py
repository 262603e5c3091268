"""Ranks of equivariant bases as published: Finzi et al. 2021, Tables A.1 to A.8.

Table A.3 is left out: it belongs to another group than the cube's, see test_equivariant.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import symlearn.groups as G

Ranks = dict[int, tuple[int, ...]]  # n of the group -> ranks of T_1, T_2, ... or from `first` on


class Entry(NamedTuple):
    """One entry of a table: the rank of T(p, q) of a group."""

    table: str
    group: Callable[[], G.MatrixGroup]
    p: int
    q: int
    rank: int


def _family(
    table: str, make: Callable[[int], G.MatrixGroup], first: int, ranks: Ranks
) -> list[Entry]:
    return [
        Entry(table, lambda n=n: make(n), first + i, 0, rank)  # type: ignore[misc]
        for n, row in ranks.items()
        for i, rank in enumerate(row)
    ]


CYCLIC: Ranks = {
    2: (1, 2, 4, 8, 16, 32, 64),
    3: (1, 3, 9, 27, 81, 243, 729),
    4: (1, 4, 16, 64, 256, 1024, 4096),
    5: (1, 5, 25, 125, 625, 3125),
    6: (1, 6, 36, 216, 1296),
    7: (1, 7, 49, 343, 2401),
    8: (1, 8, 64, 512),
}
SYMMETRIC: Ranks = {
    2: (1, 2, 4, 8, 16, 32, 64),
    3: (1, 2, 5, 14, 41, 122, 365),
    4: (1, 2, 5, 15, 51, 187, 715),
    5: (1, 2, 5, 15, 52, 202, 855),
    6: (1, 2, 5, 15, 52, 203),
    7: (1, 2, 5, 15, 52, 203),
    8: (1, 2, 5, 15, 52),
}
ROTATIONS: Ranks = {
    2: (2, 0, 6, 0, 20, 0, 70),
    3: (1, 1, 3, 6, 15, 36, 91),
    4: (1, 0, 4, 0, 25, 0, 196),
    5: (1, 0, 3, 1, 15, 15),
    6: (1, 0, 3, 0, 16),
    7: (1, 0, 3, 0, 15),
}
ORTHOGONAL: Ranks = {
    2: (1, 0, 3, 0, 10, 0, 35),
    3: (1, 0, 3, 0, 15, 0, 91),
    4: (1, 0, 3, 0, 15, 0, 105),
    5: (1, 0, 3, 0, 15, 0),
    6: (1, 0, 3, 0, 15),
    7: (1, 0, 3, 0, 15),
}
SYMPLECTIC: Ranks = {
    1: (1, 0, 2, 0, 5, 0, 14),
    2: (1, 0, 3, 0, 14, 0, 84),
    3: (1, 0, 3, 0, 15, 0),
    4: (1, 0, 3, 0, 15),
    5: (1, 0, 3, 0),
    6: (1, 0, 3, 0),
}
LORENTZ = {
    G.SO13p: (1, 0, 4, 0, 25, 0, 196),
    G.SO13: (1, 0, 4, 0, 25, 0, 196),
    G.O13: (1, 0, 3, 0, 15, 0, 105),
}
UNITARY_TENSORS = ((3, 0), (3, 1), (3, 2), (3, 3), (4, 0), (4, 1), (4, 2))
UNITARY: Ranks = {
    2: (0, 2, 0, 5, 2, 0, 5),
    3: (1, 0, 0, 6, 0, 3, 0),
    4: (0, 0, 0, 6, 1, 0, 0),
}


def entries() -> Iterator[Entry]:
    """Every entry."""
    yield from _family("A.1", G.Z, 1, CYCLIC)
    yield from _family("A.2", G.S, 1, SYMMETRIC)
    yield from _family("A.4", G.SO, 2, ROTATIONS)
    yield from _family("A.5", G.O, 2, ORTHOGONAL)
    yield from _family("A.7", G.Sp, 2, SYMPLECTIC)
    for make, row in LORENTZ.items():
        yield from (Entry("A.6", make, 2 + i, 0, rank) for i, rank in enumerate(row))
    for n, row in UNITARY.items():
        for (p, q), rank in zip(UNITARY_TENSORS, row, strict=True):
            yield Entry("A.8", lambda n=n: G.SU(n), p, q, rank)  # type: ignore[misc]
