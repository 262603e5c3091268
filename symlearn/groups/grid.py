"""Finite groups of rotations and reflections of a grid of sites.

An element is a signed permutation matrix that acts on coordinates (row, column) about the centre of
the grid: a permutation of sites, exact on maps of odd and even size. Index letters: ``|G|`` order
of the group, ``g``, ``h`` elements by their index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Matrix = tuple[tuple[int, int], tuple[int, int]]
"""A signed permutation of the axes (row, column)."""

_IDENTITY: Matrix = ((1, 0), (0, 1))
_ROTATION: Matrix = ((0, -1), (1, 0))  # a quarter turn against the clock, rows counted downwards
_HALF_TURN: Matrix = ((-1, 0), (0, -1))
_ROWS: Matrix = ((-1, 0), (0, 1))
_COLUMNS: Matrix = ((1, 0), (0, -1))


@dataclass(frozen=True)
class GridGroup:
    """A finite group that acts on the last two axes of maps, ``(g . x)(p) = x(g^-1 p)``.

    Args:
        name: Name of the group.
        elements: All its elements as 2x2 signed permutation matrices, in any order; the identity is
            moved to the front. Use `generated` to give generators only.

    Raises:
        ValueError: If an element is not a signed permutation matrix or is given twice, if the
            identity is missing, or if a product of two elements is no element (it is named).

    Example:
        >>> import torch
        >>> from symlearn.groups import GridGroup
        >>> turn = GridGroup.generated("quarter turns", [[[0, -1], [1, 0]]])
        >>> turn.order
        4
        >>> turn.act(torch.arange(4).reshape(2, 2), 1)
        tensor([[1, 3],
                [0, 2]])
    """

    name: str
    elements: tuple[Matrix, ...]

    def __post_init__(self) -> None:
        given = tuple(_as_matrix(self.name, m) for m in self.elements)
        twice = sorted({m for m in given if given.count(m) > 1})
        if twice:
            raise ValueError(f"group {self.name!r}: the elements {twice} are given twice")
        if _IDENTITY not in given:
            raise ValueError(
                f"group {self.name!r}: the identity {_IDENTITY} is missing from {list(given)}"
            )
        ordered = (_IDENTITY, *(m for m in given if m != _IDENTITY))
        object.__setattr__(self, "elements", ordered)
        for a in ordered:
            for b in ordered:
                if _product(a, b) not in ordered:
                    raise ValueError(
                        f"group {self.name!r} is not closed: the product {_product(a, b)} of {a} "
                        f"and {b} is missing; add it, or use GridGroup.generated"
                    )

    @classmethod
    def generated(cls, name: str, generators: Iterable[Sequence[Sequence[int]]]) -> GridGroup:
        """The smallest group that contains the generators.

        Args:
            name: Name of the group.
            generators: 2x2 signed permutation matrices.

        Raises:
            ValueError: If a generator is not a signed permutation matrix.
        """
        steps = [_as_matrix(name, m) for m in generators]
        found = [_IDENTITY]
        for element in found:  # grows while it is read
            found += [m for s in steps if (m := _product(s, element)) not in found]
        return cls(name, tuple(found))

    @property
    def order(self) -> int:
        """Number of elements |G|."""
        return len(self.elements)

    @cached_property
    def table(self) -> Tensor:
        """Multiplication table [|G|, |G|]: ``table[g, h]`` is the index of g h."""
        index = {m: i for i, m in enumerate(self.elements)}
        rows = [[index[_product(a, b)] for b in self.elements] for a in self.elements]
        return torch.tensor(rows, device="cpu")  # kept, so not where a caller builds a network

    @cached_property
    def inverse(self) -> Tensor:
        """Index of the inverse of each element, [|G|]."""
        # each row is a permutation, with its zero where the product is the identity
        return self.table.argmin(1)

    @property
    def turns(self) -> bool:
        """Whether an element exchanges rows and columns, which only square maps allow."""
        return any(m[0][0] == 0 for m in self.elements)

    def check_size(self, size: Sequence[int]) -> None:
        """Check that the group acts on maps of a size.

        Raises:
            ValueError: If it does not; the size and the ready groups that do are named.
        """
        if len(size) != 2:
            raise ValueError(
                f"group {self.name!r} acts on maps with two spatial axes, got size {tuple(size)}"
            )
        if self.turns and size[0] != size[1]:
            fine = [name for name, group in GROUPS.items() if not group.turns]
            raise ValueError(
                f"group {self.name!r} exchanges rows and columns, so it needs square maps, got "
                f"size {tuple(size)}; on such maps take one of {fine}"
            )

    def act(self, x: Tensor, g: int) -> Tensor:
        """Apply the element g to the last two axes of a tensor [..., H, W].

        Raises:
            ValueError: If the map is not square and the element exchanges rows and columns.
        """
        (a, b), (c, d) = self.elements[int(self.inverse[g])]
        swaps = a == 0
        if swaps and x.shape[-1] != x.shape[-2]:
            self.check_size(x.shape[-2:])
        # y[p] = x[L p] with L = g^-1: axis 0 of x is read at a r + b s, axis 1 at c r + d s
        flips = [axis for axis, sign in ((-2, a + b), (-1, c + d)) if sign < 0]
        y = x.flip(flips) if flips else x
        return y.transpose(-1, -2) if swaps else y

    def permutation(self, size: Sequence[int]) -> Tensor:
        """The action on sites, [|G|, H W]: ``act(x, g).flatten() = x.flatten()[permutation[g]]``.

        Args:
            size: Spatial size (H, W).

        Raises:
            ValueError: If the group does not act on maps of this size.
        """
        self.check_size(size)
        index = torch.arange(size[0] * size[1], device="cpu").reshape(tuple(size))
        return torch.stack([self.act(index, g).flatten() for g in range(self.order)])


def _as_matrix(name: str, m: Sequence[Sequence[int]]) -> Matrix:
    """A 2x2 signed permutation matrix as nested tuples of int."""
    rows = tuple(tuple(int(v) for v in row) for row in m)
    square = len(rows) == 2 and all(len(row) == 2 for row in rows)
    lines = (*rows, *zip(*rows, strict=True)) if square else ()
    if not lines or any(sorted(map(abs, line)) != [0, 1] for line in lines):
        raise ValueError(
            f"group {name!r}: an element is a 2x2 matrix with one entry +1 or -1 in each row and "
            f"column and zeros elsewhere, got {m}"
        )
    return ((rows[0][0], rows[0][1]), (rows[1][0], rows[1][1]))


def _product(a: Matrix, b: Matrix) -> Matrix:
    (p, q), (r, s) = a
    (t, u), (v, w) = b
    return ((p * t + q * v, p * u + q * w), (r * t + s * v, r * u + s * w))


GROUPS: dict[str, GridGroup] = {
    group.name: group
    for group in (
        GridGroup("trivial", (_IDENTITY,)),
        GridGroup("vertical", (_IDENTITY, _ROWS)),  # top and bottom change places
        GridGroup("horizontal", (_IDENTITY, _COLUMNS)),  # left and right change places
        GridGroup("p2", (_IDENTITY, _HALF_TURN)),
        GridGroup.generated("p4", (_ROTATION,)),
        GridGroup.generated("p4m", (_ROTATION, _COLUMNS)),
    )
}
"""The groups that are known by name; `register` adds to them."""


def named(name: str | GridGroup) -> GridGroup:
    """The group of a name; a group is returned as it is.

    Raises:
        ValueError: If there is no group of this name; the names are listed.
    """
    if isinstance(name, GridGroup):
        return name
    if name not in GROUPS:
        raise ValueError(
            f"unknown group {name!r}; the groups are {sorted(GROUPS)}, and "
            "symlearn.groups.register adds one"
        )
    return GROUPS[name]


def register(group: GridGroup) -> GridGroup:
    """Make a group known by its name, so that paths and saved networks can refer to it.

    Raises:
        ValueError: If another group has this name.
    """
    if GROUPS.setdefault(group.name, group) != group:
        raise ValueError(f"there is another group of the name {group.name!r}; choose a new name")
    return group
