"""Reference networks: the small CNN of the demo, and the paper's architecture."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import nn

from symlearn.paths.base import he_std, normal_
from symlearn.subsample import Circular
from symlearn.wrap import wrap

PAPER_KINDS: dict[str, tuple[str, ...]] = {
    "fc": ("fc",),
    "conv": ("conv",),
    "fc+conv": ("conv", "fc"),
    "ffc": ("ffc",),
    "ffc+conv": ("conv", "ffc"),
}

PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]


def small_cnn(
    classes: int,
    *,
    in_channels: int = 1,
    width: int = 8,
    padding_mode: PaddingMode = "zeros",
    seed: int = 0,
) -> nn.Sequential:
    """A plain strided CNN with a pooled head, for 16x16 images: the network of the demo.

    Widths ``w, 2w, 4w, 4w``; maps 16, 8, 4, 2; then the maximum over the last map and a linear
    head. Its head sees no positions: with circular boundaries it is invariant to shifts.

    Args:
        classes: Number of outputs.
        in_channels: Channels of the images.
        width: Channels of the first layer.
        padding_mode: Padding of the convolutions, as in torch.
        seed: Seed of the initial weights.
    """
    channels = [in_channels, width, 2 * width, 4 * width, 4 * width]
    with torch.random.fork_rng(devices=()):  # torch draws weights of its own
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            stride = 2 if i < 3 else 1
            conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, padding_mode=padding_mode)
            layers += [conv, nn.ReLU()]
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes)]
    return _he(nn.Sequential(*layers), seed)


def paper_cnn(
    kind: str,
    alpha: int = 10,
    in_channels: int = 3,
    classes: int = 10,
    size: int = 32,
    *,
    boundary: str | Circular = "circular",
    seed: int = 0,
) -> nn.Module:
    """The paper's network (App. F, Table 6) with the given paths in its eight spatial layers.

    3x3 convolutions with circular padding, five times subsampled by two, then two 1x1
    convolutions. The table's rows do not fit together; this reading takes each row's output as the
    next row's input and halves the map where the table's output says so (the last 3x3 row too,
    which names no POOL). It is the paper's: with ``alpha=10`` on 32x32 colour images it has the
    338,770 parameters of Table 7's classical CNN, and Table 2's 133.6 M (FC), 1.5 M (F-FC, biases
    and 1x1 layers included) and 1.8 M (F-FC+CONV); only FC+CONV is 133.8 M for the table's 133.9.
    In strided layers the fully-connected paths write the subsampled map: at full resolution F-FC
    would have 2.1 M parameters.

    Args:
        kind: One of `PAPER_KINDS`.
        alpha: Width factor.
        in_channels: Channels of the images.
        classes: Number of outputs.
        size: Height and width of the images, a multiple of 32.
        boundary: As for `symlearn.wrap`; the paper's own subsampling is ``Circular("polyphase")``.
        seed: Seed of the initial weights.

    Raises:
        ValueError: For an unknown kind or a size that is not a multiple of 32.
    """
    if kind not in PAPER_KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of {sorted(PAPER_KINDS)}")
    if size % 32:
        raise ValueError(f"size is {size}; the network halves it five times, give a multiple of 32")
    widths = [in_channels] + [alpha * w for w in (1, 2, 2, 4, 4, 8, 8, 16)]
    strides = [1, 2, 1, 2, 1, 2, 2, 2]
    with torch.random.fork_rng(devices=()):  # torch draws weights of its own
        layers: list[nn.Module] = []
        for c_in, c_out, s in zip(widths[:-1], widths[1:], strides, strict=True):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=s, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], 64 * alpha, 1), nn.ReLU()]
        layers += [nn.Conv2d(64 * alpha, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    plain = _he(nn.Sequential(*layers), seed)
    paths = PAPER_KINDS[kind]
    return wrap(
        plain,
        torch.zeros(1, in_channels, size, size),
        paths=paths,
        layers=[str(2 * i) for i in range(len(strides))],
        boundary=boundary,
        seed=seed,
        init="keep" if "conv" in paths else "fresh",
    )


def _he(net: nn.Sequential, seed: int) -> nn.Sequential:
    """He initialisation of all weights by a seed of their own, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            normal_(module.weight, he_std(module.weight[0].numel()), generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
