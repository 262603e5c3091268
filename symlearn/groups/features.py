"""Features over a group: maps [N, C |G|, H, W] with channel index ``c |G| + g``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import curvature
from symlearn.groups.grid import GridGroup, named

POOLS = ("max", "mean")


def act_on_features(x: Tensor, group: str | GridGroup, g: int, lifted: bool) -> Tensor:
    """Apply a group element to maps, and to their group axis if they are over the group.

    ``(g . f)(c, h, p) = f(c, g^-1 h, g^-1 p)``.

    Args:
        x: Maps [N, C, H, W], or features over the group [N, C |G|, H, W].
        group: The group or its name.
        g: Index of the element.
        lifted: Whether the maps are over the group.

    Raises:
        ValueError: If the channels are not a multiple of the group's order, or the group does not
            act on maps of this size.
    """
    group = named(group)
    if not lifted:
        return group.act(x, g)
    back = group.table[group.inverse[g]].to(x.device)
    features = _split(x, group)
    return group.act(features.index_select(2, back).reshape(x.shape), g)


def _split(x: Tensor, group: GridGroup, sites: int = 1) -> Tensor:
    """[N, C |G| sites, ...] as [N, C, |G|, sites, ...], or without the axis for one site."""
    if x.shape[1] % (group.order * sites):
        raise ValueError(
            f"got {x.shape[1]} channels; features over the group {group.name!r} have a multiple of "
            f"{group.order * sites}"
        )
    inner = (group.order,) if sites == 1 else (group.order, sites)
    return x.reshape(len(x), x.shape[1] // (group.order * sites), *inner, *x.shape[2:])


class GroupPool(nn.Module):
    """Largest or mean value over the group axis: features over the group to plain maps.

    With a pool over all sites after it, the output is invariant.

    Args:
        group: The group or its name.
        how: "max" or "mean".
        sites: Sites per channel in inputs that were flattened, [N, C |G| sites].

    Raises:
        ValueError: For an unknown name.

    Example:
        >>> import torch
        >>> from symlearn.groups import GroupPool
        >>> GroupPool("p4")(torch.randn(2, 3 * 4, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, group: str | GridGroup, how: str = "max", sites: int = 1) -> None:
        super().__init__()
        if how not in POOLS:
            raise ValueError(f"unknown pool {how!r}; choose one of {list(POOLS)}")
        self.group, self.how, self.sites = named(group), how, sites

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C |G|, ...] to [N, C, ...]."""
        features = _split(x, self.group, self.sites)
        out = features.amax(2) if self.how == "max" else features.mean(2)
        return out if self.sites == 1 else out.flatten(1, 2)

    def extra_repr(self) -> str:
        """Group and kind."""
        return f"{self.group.name}, {self.how}"


class GroupRepeat(nn.Module):
    """Plain maps as features over the group that are the same at every element.

    Args:
        group: The group or its name.
    """

    def __init__(self, group: str | GridGroup) -> None:
        super().__init__()
        self.group = named(group)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, ...] to [N, C |G|, ...]."""
        return x.repeat_interleave(self.group.order, 1)


class GroupBias(nn.Module):
    """One bias per channel, shared over the group axis and all sites.

    Args:
        channels: Channels C.
        group: The group or its name.
    """

    def __init__(self, channels: int, group: str | GridGroup) -> None:
        super().__init__()
        self.channels, self.group = channels, named(group)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C |G|, H, W] to the same shape."""
        shared = self.bias.repeat_interleave(self.group.order)
        return x + shared.reshape(-1, *[1] * (x.ndim - 2))


@curvature.register_rule(GroupBias)
class GroupBiasRule(curvature.Rule):
    """Every site and every group element is a position."""

    weight = None

    def grads(self, module: Any, g: Tensor) -> Tensor:
        """[N, C |G|, *sites] as [N, |G| * sites, 1, C]."""
        split = g.reshape(len(g), len(module.bias), -1)
        return split.transpose(1, 2).unsqueeze(2)


class PerElement(nn.Module):
    """Apply a module to the maps of each group element, as if they were images of their own.

    For normalisation and dropout, whose weights must not depend on the element.

    Args:
        module: A module on maps [N, C, H, W] that treats all sites alike.
        group: The group or its name.
    """

    def __init__(self, module: nn.Module, group: str | GridGroup) -> None:
        super().__init__()
        self.module, self.group = module, named(group)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C |G|, H, W] to the same shape."""
        images = _split(x, self.group).transpose(1, 2)  # [N, |G|, C, H, W]
        out: Tensor = self.module(images.flatten(0, 1))
        return out.reshape(images.shape).transpose(1, 2).reshape(x.shape)
