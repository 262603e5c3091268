"""Layers over a group, on small circular maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry, OverGroup
from symlearn.groups import named
from symlearn.paths import GConv
from symlearn.paths.gconv import GConvPath

D = torch.float64


def layer(
    group: str = "p4",
    lifts: bool = False,
    size: tuple[int, int] = (5, 5),
    groups: int = 1,
    window: int = 3,
    circular: bool = True,
    channels: tuple[int, int] = (2, 3),
    **options: Any,
) -> Geometry:
    """Geometry of a convolution over a group; channels for each channel group and element."""
    order = named(group).order
    conv = nn.Conv2d(
        channels[0] * groups * (1 if lifts else order),
        channels[1] * groups * order,
        window,
        padding=window // 2 * options.get("dilation", 1),
        groups=groups,
        **options,
    )
    OverGroup(group, lifts).put_on(conv)
    out = tuple(-(-s // options.get("stride", 1)) for s in size)
    geometry = Geometry.of(conv, size, out)
    return geometry.as_circular(out) if circular else geometry


def path(geometry: Geometry, factor: str = "full", seed: int = 0, **options: Any) -> GConvPath:
    """A path in float64 with random weights."""
    made = GConv(factor=factor, **options).build(geometry).double()
    made.reset_parameters(torch.Generator().manual_seed(seed))
    return made


def inputs(geometry: Geometry, n: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, geometry.in_channels, *geometry.in_size, generator=generator, dtype=D)
