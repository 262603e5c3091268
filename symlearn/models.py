"""Reference networks: the small CNN of the demo, and the paper's architecture."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import nn

from curvature.checking import check_count, seeded
from symlearn.lift import lift
from symlearn.paths import FFC, SFC, Conv, GConv, PathSpec, SConv, as_specs
from symlearn.paths.base import he_std, normal_
from symlearn.relaxed import relaxed_layers
from symlearn.subsample import Circular
from symlearn.wrap import wrap

# the rows of the paper's Table 2; "-omega" has priors on the lengthscales too
PAPER_KINDS: dict[str, tuple[str | PathSpec, ...]] = {
    "fc": ("fc",),
    "conv": ("conv",),
    "fc+conv": ("conv", "fc"),
    "ffc": ("ffc",),
    "ffc+conv": ("conv", "ffc"),
    "sfc": ("sfc",),
    "sconv": ("sconv",),
    "sfc+sconv": ("sconv", "sfc"),
    "sfc-omega": (SFC(control="omega"),),
    "sconv-omega": (SConv(control="omega"),),
    "sfc+sconv-omega": (SConv(control="omega"), SFC(control="omega")),
}

# networks on the group p4, a path's options included
GROUP_KINDS: dict[str, tuple[PathSpec, ...]] = {
    "gconv-full": (GConv(factor="full"),),
    "gconv-separable": (GConv(factor="separable", inner_bias=True),),
    "gconv-depthwise-separable": (GConv(factor="depthwise-separable", inner_bias=True),),
    "gconv-pointwise": (GConv(factor="pointwise"),),
    "ffc+conv+gconv": (Conv(), FFC(), GConv(factor="pointwise")),
}

PAPER_STRIDES = (1, 2, 1, 2, 1, 2, 2, 2)

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
    for name, value in {"width": width, "in_channels": in_channels, "classes": classes}.items():
        check_count(name, value)
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
    Sparse paths have half of the anchors, as App. F.4 says: 0.8 M (S-FC), 0.2 M (S-CONV) and 1.0 M
    (S-FC+S-CONV), as in Table 2. In strided layers the fully-connected paths write the subsampled
    map: at full resolution F-FC would have 2.1 M parameters. Inside ``with torch.device("meta"):``
    no weights are allocated.

    Group kinds repeat the image over p4, have as many channels for each element in the eight
    spatial layers, and pool over the group before the 1x1 layers. That gives the numbers of Table 7
    exactly (the separable ones with depthwise spatial and group filters that have biases of their
    own), but for the depthwise separable one at ``alpha=10``: 139,725 for the table's 139,735,
    which does not go together with its 346,215 at ``alpha=16``. Table 3's 1.2 M are 1,235,122 for
    F-FC+CONV+GCONV at ``alpha=2`` with pointwise group convolutions.

    Args:
        kind: One of `PAPER_KINDS` or `GROUP_KINDS`.
        alpha: Width factor.
        in_channels: Channels of the images.
        classes: Number of outputs.
        size: Height and width of the images, a multiple of 32.
        boundary: As for `symlearn.wrap`; the paper's own subsampling is ``Circular("polyphase")``.
        seed: Seed of the initial weights.

    Raises:
        ValueError: For an unknown kind or a size that is not a multiple of 32.
    """
    kinds: dict[str, tuple[str | PathSpec, ...]] = {**PAPER_KINDS, **GROUP_KINDS}
    if kind not in kinds:
        raise ValueError(f"unknown kind {kind!r}; choose one of {sorted(kinds)}")
    plain = paper_backbone(alpha, in_channels, classes, size, seed=seed)
    depth = len(PAPER_STRIDES)
    if kind in GROUP_KINDS:
        spatial = 2 * depth
        lifted = lift(plain[:spatial], "p4", first="repeat")
        plain = nn.Sequential(*lifted.children(), *plain[spatial:])
    paths = as_specs(kinds[kind])
    init = "keep" if any(isinstance(spec, Conv) for spec in paths) else "fresh"
    net = wrap(
        plain,
        torch.zeros(1, in_channels, size, size),
        paths=paths,
        layers=[f"{2 * i}{'.conv' if kind in GROUP_KINDS else ''}" for i in range(depth)],
        boundary=boundary,
        seed=seed,
        init=init,
    )
    if init == "fresh":
        _start_strict(net, seed)
    return net


def paper_backbone(
    alpha: int = 10, in_channels: int = 3, classes: int = 10, size: int = 32, *, seed: int = 0
) -> nn.Sequential:
    """The plain CNN under `paper_cnn`, with ordinary strides and zero padding, to wrap yourself.

    Args:
        alpha: Width factor.
        in_channels: Channels of the images.
        classes: Number of outputs.
        size: Height and width of the images, a multiple of 32.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If the size is not a multiple of 32.
    """
    given = {"alpha": alpha, "in_channels": in_channels, "classes": classes, "size": size}
    for name, value in given.items():
        check_count(name, value)
    if size % 32:
        raise ValueError(f"size is {size}; the network halves it five times, give a multiple of 32")
    widths = [in_channels] + [alpha * w for w in (1, 2, 2, 4, 4, 8, 8, 16)]
    with torch.random.fork_rng(devices=()):  # torch draws weights of its own
        layers: list[nn.Module] = []
        for c_in, c_out, s in zip(widths[:-1], widths[1:], PAPER_STRIDES, strict=True):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=s, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], 64 * alpha, 1), nn.ReLU()]
        layers += [nn.Conv2d(64 * alpha, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _he(nn.Sequential(*layers), seed)


def _start_strict(net: nn.Module, seed: int) -> None:
    """Let paths without a symmetry start at zero contribution beside those that have one."""
    generator = seeded(seed)
    for layer in relaxed_layers(net).values():
        free = [name for name, path in layer.named_paths().items() if not path.reads_aligned]
        if 0 < len(free) < len(layer.paths):
            layer.reset_parameters(generator, absent=free)


def _he(net: nn.Sequential, seed: int) -> nn.Sequential:
    """He initialisation of all weights by a seed of their own, biases zero."""
    generator = seeded(seed)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            normal_(module.weight, he_std(module.weight[0].numel()), generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
