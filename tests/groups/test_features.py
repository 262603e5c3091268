"""Features over a group, and what acts on them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import curvature
import curvature.testing
from symlearn.groups import GROUPS, GroupPool, act_on_features, named
from symlearn.groups.features import GroupBias, GroupRepeat, PerElement

pytestmark = pytest.mark.core
D = torch.float64
each_group = pytest.mark.parametrize("name", ["horizontal", "p4", "p4m"])


@each_group
def test_acting_moves_sites_and_elements(name: str) -> None:
    group = named(name)
    x = torch.randn(2, 3 * group.order, 4, 4)
    split = x.reshape(2, 3, group.order, 4, 4)
    for g in range(group.order):
        moved = act_on_features(x, group, g, True).reshape(split.shape)
        for h in range(group.order):
            expected = group.act(split[:, :, h], g)
            assert torch.equal(moved[:, :, int(group.table[g, h])], expected)
        assert torch.equal(act_on_features(x, name, g, False), group.act(x, g))
    for g, h in itertools.product(range(group.order), repeat=2):
        both = act_on_features(act_on_features(x, group, h, True), group, g, True)
        assert torch.equal(both, act_on_features(x, group, int(group.table[g, h]), True))


@each_group
@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_pool_is_invariant_but_for_the_sites(name: str, how: str) -> None:
    group, pool = named(name), GroupPool(name, how)
    x = torch.randn(2, 3 * group.order, 5, 5, dtype=D)
    split = x.reshape(2, 3, group.order, 5, 5)
    expected = split.amax(2) if how == "max" else split.mean(2)
    torch.testing.assert_close(pool(x), expected)
    for g in range(group.order):
        moved = pool(act_on_features(x, group, g, True))
        torch.testing.assert_close(moved, group.act(pool(x), g), rtol=0, atol=1e-14)
    flat = GroupPool(name, how, sites=25)(x.flatten(1))
    torch.testing.assert_close(flat, pool(x).flatten(1))
    one_site = GroupPool(name, how)(x[..., 0, 0])
    torch.testing.assert_close(one_site, pool(x)[..., 0, 0])


@each_group
def test_modules_that_commute_with_the_group(name: str) -> None:
    group = named(name)
    modules = {
        "bias": GroupBias(3, group),
        "batch": PerElement(nn.BatchNorm2d(3), group),
        "instance": PerElement(nn.InstanceNorm2d(3, affine=True), group),
        "groups": PerElement(nn.GroupNorm(3, 3), group),
    }
    x = torch.randn(4, 3 * group.order, 5, 5, dtype=D)
    for module in modules.values():
        module.double()
        for p in module.parameters():
            nn.init.normal_(p)
        out = module(x)
        assert not torch.allclose(out, x)
        for g in range(group.order):
            moved = module(act_on_features(x, group, g, True))
            torch.testing.assert_close(moved, act_on_features(out, group, g, True))
    image = torch.randn(2, 3, 5, 5)
    repeated = GroupRepeat(group)(image)
    for g in range(group.order):
        moved = GroupRepeat(group)(group.act(image, g))
        assert torch.equal(moved, act_on_features(repeated, group, g, True))


def test_the_shared_bias_has_a_curvature() -> None:
    bias = GroupBias(3, "p4")
    curvature.testing.assert_rule(bias, torch.randn(2, 12, 4, 5))
    plain = nn.Conv2d(1, 12, 1)
    nn.init.zeros_(plain.weight)
    with torch.no_grad():
        plain.bias.copy_(torch.arange(3.0).repeat_interleave(4))
        bias.bias.copy_(torch.arange(3.0))
    torch.testing.assert_close(bias(torch.zeros(1, 12, 2, 2)), plain(torch.zeros(1, 1, 2, 2)))


def test_wrong_features() -> None:
    for call in (
        lambda: GroupPool("p4")(torch.zeros(1, 6, 3, 3)),
        lambda: act_on_features(torch.zeros(1, 6, 3, 3), "p4", 1, True),
    ):
        with pytest.raises(ValueError, match="got 6 channels; .* 'p4' have a multiple of 4"):
            call()
    with pytest.raises(ValueError, match=r"unknown pool 'min'; choose one of \['max', 'mean'\]"):
        GroupPool("p4", "min")
    with pytest.raises(ValueError, match="needs square maps"):
        act_on_features(torch.zeros(1, 4, 3, 5), "p4", 1, True)


def test_all_ready_groups_are_tested_or_smaller() -> None:
    """The p4m table contains every other ready group's elements."""
    assert all(set(g.elements) <= set(named("p4m").elements) for g in GROUPS.values())
