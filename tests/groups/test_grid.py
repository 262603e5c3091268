"""Groups of the grid: the laws of a group, exact on odd and even maps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symlearn.groups import GROUPS, GridGroup, named, register

pytestmark = pytest.mark.core
ORDERS = {"trivial": 1, "vertical": 2, "horizontal": 2, "p2": 2, "p4": 4, "p4m": 8}
TURN, FLIP = ((0, -1), (1, 0)), ((1, 0), (0, -1))


def slow_act(x: Tensor, matrix: Any) -> Tensor:
    """``(g . x)(g p) = x(p)`` by a loop over sites, coordinates about the centre, doubled."""
    out = torch.full_like(x, torch.nan)
    h, w = x.shape[-2:]
    for i, j in itertools.product(range(h), range(w)):
        r, s = 2 * i - (h - 1), 2 * j - (w - 1)
        a, b = (m[0] * r + m[1] * s for m in matrix)
        out[..., (a + h - 1) // 2, (b + w - 1) // 2] = x[..., i, j]
    return out


@pytest.mark.parametrize("name", GROUPS)
def test_the_table_is_that_of_the_action(name: str) -> None:
    group = named(name)
    assert group.order == ORDERS[name] == len(set(group.elements))
    x = torch.randn(2, 4, 4)
    pairs = list(itertools.product(range(group.order), repeat=2))
    for g, h in pairs:
        both = group.act(group.act(x, h), g)
        assert torch.equal(both, group.act(x, int(group.table[g, h])))
    assert torch.equal(group.act(x, 0), x)
    every = torch.arange(group.order)
    assert torch.equal(group.table[0], every)
    assert torch.equal(group.table[every, group.inverse], 0 * every)
    t = group.table
    for (g, h), k in itertools.product(pairs, range(group.order)):
        assert t[t[g, h], k] == t[g, t[h, k]]


@pytest.mark.parametrize("name", GROUPS)
@settings(max_examples=8, deadline=None)
@given(h=st.integers(1, 6), w=st.integers(1, 6))
def test_the_action_is_that_of_the_matrices(name: str, h: int, w: int) -> None:
    group = named(name)
    w = h if group.turns else w
    x = torch.arange(2.0 * h * w).reshape(2, h, w)
    sites = group.permutation((h, w))
    for g, matrix in enumerate(group.elements):
        moved = group.act(x, g)
        assert torch.equal(moved, slow_act(x, matrix))
        assert torch.equal(moved.flatten(1), x.flatten(1)[:, sites[g]])


def test_known_elements() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(named("vertical").act(x, 1), x.flip(0))
    assert torch.equal(named("horizontal").act(x, 1), x.flip(1))
    assert torch.equal(named("p2").act(x, 1), x.flip(0, 1))
    square = torch.arange(9.0).reshape(3, 3)
    for g in range(4):
        assert torch.equal(named("p4").act(square, g), square.rot90(g))


def test_a_group_from_generators_and_from_elements() -> None:
    made = GridGroup.generated("mine", [TURN, FLIP])
    assert set(made.elements) == set(named("p4m").elements)
    shuffled = GridGroup("mine", tuple(reversed(made.elements)))
    assert shuffled.elements[0] == ((1, 0), (0, 1))
    assert GridGroup.generated("mine", []).order == 1


def test_registering_a_group() -> None:
    diagonal = GridGroup.generated("test-diagonal", [((0, 1), (1, 0))])
    try:
        assert register(diagonal) is diagonal
        assert named("test-diagonal") is diagonal
        assert named(diagonal) is diagonal
        assert register(GridGroup("test-diagonal", diagonal.elements)) == diagonal
        with pytest.raises(ValueError, match="another group of the name 'test-diagonal'"):
            register(GridGroup.generated("test-diagonal", [FLIP]))
    finally:
        GROUPS.pop("test-diagonal", None)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ((((1, 0), (0, 1)), TURN), r"not closed: the product \(\(-1, 0\), \(0, -1\)\) of"),
        ((TURN,), r"identity .* is missing"),
        ((((1, 0), (0, 1)), FLIP, FLIP), "given twice"),
        ((((1, 1), (0, 1)),), r"2x2 matrix with one entry .* got \(\(1, 1\)"),
        ((((2, 0), (0, 1)),), "2x2 matrix"),
        ((((1, 0, 0), (0, 1, 0)),), "2x2 matrix"),
        ((((1, 0), (1, 0)),), "2x2 matrix"),
        ((((0.5, 0), (0, 1)),), "2x2 matrix"),
    ],
)
def test_what_is_no_group(elements: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridGroup("mine", elements)


def test_maps_that_a_group_cannot_turn() -> None:
    x = torch.zeros(3, 5)
    for act in (lambda: named("p4").act(x, 1), lambda: named("p4m").permutation((3, 5))):
        with pytest.raises(
            ValueError, match=r"square maps, got size \(3, 5\).*'vertical', 'horizontal', 'p2'"
        ):
            act()
    assert named("p4").act(x, 2).shape == (3, 5)  # half a turn needs no square
    with pytest.raises(ValueError, match="two spatial axes"):
        named("p4").check_size((3, 3, 3))
    with pytest.raises(ValueError, match="'p6'; the groups are .*'p4', 'p4m'.*register"):
        named("p6")
