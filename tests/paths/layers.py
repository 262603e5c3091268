"""Layers, networks and data for tests of paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry
from tests.paths.slow import conv_geometry


def geometry(c_in: int = 2, c_out: int = 3, size: tuple[int, int] = (4, 4)) -> Geometry:
    return conv_geometry(nn.Conv2d(c_in, c_out, 3, padding=1), size)


def drawn(spec: Any, geo: Geometry, seed: int = 0) -> Any:
    path = spec.build(geo).double()
    path.reset_parameters(torch.Generator().manual_seed(seed))
    return path


def network(layer: nn.Module, geo: Geometry, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    head = nn.Linear(geo.out_channels * geo.out_sites, classes)
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), head.requires_grad_(False)).double()


def samples(geo: Geometry, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, geo.in_channels, *geo.in_size, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 3
