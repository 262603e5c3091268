"""Small networks with every kind of layer that wrap has to deal with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def conv(c_in: int, c_out: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    """A 2-D convolution; padded by one unless told otherwise."""
    options.setdefault("padding", 1)
    return nn.Conv2d(c_in, c_out, kernel, **options)  # type: ignore[arg-type]


class Map(nn.Module):
    """A function as a module."""

    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.f(x)
        return out


class Block(nn.Module):
    """Residual block with a strided shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(c_in, c_out, stride=stride, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(out)) + self.shortcut(x)).relu()


class Shared(nn.Module):
    """One convolution and one pool, each used in several places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 4)
        self.twice = conv(4, 4)
        self.alias = nn.ModuleDict({"again": self.twice})
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x).relu())
        x = self.alias["again"](self.twice(x).relu()).relu()
        return self.head(self.pool(x).mean((2, 3)))


def ending(channels: int, pool: type[nn.Module] = nn.AdaptiveAvgPool2d) -> list[nn.Module]:
    """A head that sees no positions."""
    return [pool(1), nn.Flatten(), nn.Linear(channels, 3)]


def strided() -> nn.Module:
    """Strides 2, with batch normalisation."""
    return nn.Sequential(
        conv(1, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 4, stride=2), nn.ReLU(),
        *ending(4, nn.AdaptiveMaxPool2d),
    )  # fmt: skip


def residual() -> nn.Module:
    """Two residual blocks, the second strided."""
    return nn.Sequential(conv(1, 3), Block(3, 3, 1), Block(3, 4, 2), *ending(4))


def max_pooled() -> nn.Module:
    """Max pools, one overlapping as in ResNets, and an even kernel."""
    return nn.Sequential(
        conv(1, 3, 4, padding="same"), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        conv(3, 4, 2, padding=0), nn.ReLU(), nn.MaxPool2d(2), *ending(4),
    )  # fmt: skip


def average_pooled() -> nn.Module:
    """Average pools, an adaptive pool to more than one site, and a stride."""
    return nn.Sequential(
        conv(1, 3), nn.ReLU(), nn.AvgPool2d(3, 2, 1), conv(3, 4, 5, padding=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), conv(4, 4, stride=2), nn.ReLU(), *ending(4),
    )  # fmt: skip


def thirds() -> nn.Module:
    """Strides and pools of three."""
    return nn.Sequential(
        conv(1, 3, stride=3), nn.ReLU(), conv(3, 3, dilation=2, padding=2), nn.ReLU(),
        nn.MaxPool2d(3), *ending(3),
    )  # fmt: skip


def signal() -> nn.Module:
    """A network on 1-D signals."""
    return nn.Sequential(
        nn.Conv1d(1, 3, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


def volume() -> nn.Module:
    """A network on volumes."""
    return nn.Sequential(
        nn.Conv3d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool3d(2),
        nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(2, 3),
    )  # fmt: skip


# name -> (network, size of its images); all can be made circular
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "strided": (strided, (8, 8)),
    "residual": (residual, (8, 6)),
    "max-pooled": (max_pooled, (8, 8)),
    "average-pooled": (average_pooled, (8, 8)),
    "shared": (Shared, (8, 8)),
    "thirds": (thirds, (9, 9)),
    "signal": (signal, (16,)),
    "volume": (volume, (4, 4, 4)),
}


def make(name: str) -> tuple[nn.Module, Tensor]:
    """A network in float64 and eval mode, with lively statistics, and images for it."""
    build, size = NETS[name]
    torch.manual_seed(0)
    net = build().double()
    x = torch.randn(4, 1, *size, dtype=torch.float64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    net.train()
    with torch.no_grad():
        net(x)
    return net.eval(), x


def assert_same_function(net: nn.Module, relaxed: nn.Module, x: Tensor) -> None:
    """Check outputs and running statistics in eval and train mode, to 1e-12."""
    net, relaxed = copy.deepcopy(net), copy.deepcopy(relaxed)
    for mode in (False, True):
        torch.testing.assert_close(relaxed.train(mode)(x), net.train(mode)(x), rtol=0, atol=1e-12)
    mine, theirs = dict(relaxed.named_buffers()), dict(net.named_buffers())
    for name, buffer in theirs.items():
        torch.testing.assert_close(mine[name], buffer, rtol=0, atol=1e-12)
