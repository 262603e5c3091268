"""Poses: moving samples by poses of their own, and choosing among poses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symlearn.groups.grid import GridGroup, named
from symlearn.pose import best_pose, roll_each, turn_each, views

pytestmark = pytest.mark.core
D = torch.float64
GROUPS = ["p2", "p4", "p4m", "vertical"]


def test_roll_each_rolls_every_sample_by_its_own_phase() -> None:
    x = torch.randn(12, 2, 4, 6)
    stride = (2, 3)
    phase = torch.stack([torch.arange(12) % 2, torch.arange(12) % 3], 1)
    pairs = zip(x.split(1), phase.tolist(), strict=True)
    slow = torch.cat([v.roll((-p, -q), (2, 3)) for v, (p, q) in pairs])
    assert torch.equal(roll_each(x, phase, stride), slow)


@given(st.sampled_from(GROUPS), st.integers(1, 6), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_turn_each_turns_every_sample_by_its_own_element(
    name: str, size: int, channels: int, over_group: bool
) -> None:
    group = named(name)
    order = group.order
    shape = (channels, order, size, size) if over_group else (channels, size, size)
    x = torch.randn(2 * order, *shape, dtype=D)
    element = torch.arange(2 * order) % order
    turned = turn_each(x.flatten(1, -3), element, group, over_group).reshape(x.shape)
    for before, after, g in zip(x, turned, element.tolist(), strict=True):
        assert torch.equal(after, _slow(group, before, g, over_group))


def _slow(group: GridGroup, x: torch.Tensor, g: int, over_group: bool) -> torch.Tensor:
    """The field of h moves to g h."""
    y = group.act(x, g)
    if not over_group:
        return y
    out = torch.empty_like(y)
    for h in range(group.order):
        out[:, group.table[g, h]] = y[:, h]
    return out


@pytest.mark.parametrize("over_group", [False, True])
def test_turning_is_an_action(over_group: bool) -> None:
    group = named("p4m")
    x = torch.randn(64, 8, 5, 5, dtype=D)
    g, h = torch.cartesian_prod(torch.arange(8), torch.arange(8)).unbind(1)
    twice = turn_each(turn_each(x, h, group, over_group), g, group, over_group)
    assert torch.equal(twice, turn_each(x, group.table[g, h], group, over_group))
    there = turn_each(x, g, group, over_group)
    assert torch.equal(turn_each(there, group.inverse[g], group, over_group), x)


def test_views_are_turned_back() -> None:
    group, x = named("p4"), torch.randn(3, 2, 4, 4)
    found = views(x, group)
    assert tuple(found.shape) == (3, 4, 2, 4, 4)
    for g in range(4):
        assert torch.equal(group.act(found[:, g], g), x)
    assert torch.equal(views(x, None)[:, 0], x)


def test_equal_scores_are_decided_by_the_second() -> None:
    score, second = torch.zeros(2, 4, 3, 5, dtype=D), torch.zeros(2, 4, 3, 5, dtype=D)
    score[0, 3, 2, 4], score[0, 1, 1, 1], score[0, 0, 0, 1] = 1.0, 1 - 1e-9, 0.9
    second[0, 0, 0, 1], second[0, 1, 1, 1] = 2.0, 1.0
    second[1, 2, 0, 3] = 1.0
    pose = best_pose(score, second, torch.full((2,), 1e-8, dtype=D))
    assert pose.element.tolist() == [1, 2]
    origin = torch.tensor([3 // 3, 5 // 3])
    assert ((pose.shift - origin) % torch.tensor([3, 5])).tolist() == [[1, 1], [0, 3]]
    exact = best_pose(score, second, torch.zeros(2, dtype=D))
    assert exact.element.tolist() == [3, 2]


def test_images_that_are_not_numbers_have_some_pose() -> None:
    score = torch.full((1, 2, 3, 3), math.nan, dtype=D)
    pose = best_pose(score, score, torch.zeros(1, dtype=D))
    assert pose.element.tolist() == [0]
    assert pose.shift.tolist() == [[1, 1]]
