"""Pictures of trained paths: filters of convolutions, and what other paths read and write."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvature.checking import seeded
from symlearn.paths import Path
from symlearn.relaxed import relaxed_layers
from symlearn.report.background import FILTERS, LEVELS, READS, WRITES, Picture

MAX_SHOWN = 12
"""Maps in one picture."""

MAX_CHANNELS = 6
"""Output channels shown of a path that is no convolution."""

MAX_SIDE = 32
"""Pixels of a map along each axis; larger ones are averaged."""

MAX_PICTURES = 32
"""Pictures of a network; later layers have none."""

_PROBES = 8


@torch.no_grad()
def pictures_of(model: nn.Module) -> tuple[Picture, ...]:
    """Pictures of the paths that work, layer by layer, of the first layers if there are many.

    Args:
        model: The trained network.
    """
    found: list[Picture] = []
    for layer_name, layer in relaxed_layers(model).items():
        for path_name, path in layer.named_paths().items():
            if not (path.enabled and path.contributes()):
                continue
            for kind, maps, n_maps in _maps_of(path):
                if bool(maps.isfinite().all()):
                    found.append(_picture((layer_name, path_name, kind), maps, n_maps))
            if len(found) >= MAX_PICTURES:
                return tuple(found[:MAX_PICTURES])
    return tuple(found)


def _maps_of(path: Path) -> Iterator[tuple[str, Tensor, int]]:
    """Kind, maps [n, height, width], and how many maps of the kind there are."""
    filters, geo = path.filters(), path.geometry
    if filters is not None:
        if filters[0, 0].numel() > 1:
            maps = _flat(filters, 2)
            yield FILTERS, maps[_largest(maps)], len(maps)
        return
    for kind, found in zip((READS, WRITES), _responses(path), strict=True):
        if found[0].numel() > 1:
            maps = _flat(found, 1)
            n_maps = len(maps) // len(found) * geo.out_channels * geo.in_channels
            yield kind, maps[_largest(maps)], n_maps


def _responses(path: Path) -> tuple[Tensor, Tensor]:
    """What strong outputs of a linear path read [n, *in], and what they write in answer [n, *out].

    An output channel is looked at where it answers noise most, in the input channel that it reads
    most there; then the input is an impulse where that is read most.
    """
    geo, weight = path.geometry, next(path.parameters())
    noise = torch.randn(_PROBES, geo.in_channels, *geo.in_size, generator=seeded(0))
    power = path(noise.to(weight)).square().mean(0).flatten(1)  # [C', S']
    channels = power.sum(1).topk(min(MAX_CHANNELS, len(power))).indices
    rows = torch.arange(len(channels))
    with torch.enable_grad():
        x = weight.new_zeros(len(channels), geo.in_channels, *geo.in_size, requires_grad=True)
        out = path(x).flatten(2)
        seen = out[rows, channels, power[channels].argmax(1)].sum()
        (reads,) = torch.autograd.grad(seen, x)
    flat = reads.flatten(2)  # [n, C, S]
    inputs = flat.norm(dim=2).argmax(1)
    sites = flat[rows, inputs].abs().argmax(1)
    impulse = torch.zeros_like(flat)
    impulse[rows, inputs, sites] = 1.0
    writes = path(impulse.reshape(reads.shape))
    return reads[rows, inputs], writes[rows, channels]


def _flat(maps: Tensor, lead: int) -> Tensor:
    """Maps as [n, height, width]: the leading axes in one; a line is one high, a volume its slices.

    Args:
        maps: Maps with one to three spatial axes.
        lead: Number of leading axes.
    """
    if maps.ndim - lead == 1:
        maps = maps.unsqueeze(-2)
    return maps.reshape(-1, *maps.shape[-2:])


def _largest(maps: Tensor) -> Tensor:
    """Indices of the maps of the largest norm, in their own order."""
    norms = torch.linalg.vector_norm(maps.flatten(1), dim=1)
    return torch.sort(norms.topk(min(MAX_SHOWN, len(maps))).indices).values


def _picture(where: tuple[str, str, str], maps: Tensor, n_maps: int) -> Picture:
    height, width = (min(side, MAX_SIDE) for side in maps.shape[1:])
    maps = F.adaptive_avg_pool2d(maps[None].float(), (height, width))[0]
    largest = float(maps.abs().max())
    levels = (maps / (largest or 1.0) * LEVELS).round().to(torch.int8)
    pixels = base64.b64encode(levels.cpu().contiguous().numpy().tobytes()).decode()
    return Picture(*where, height, width, n_maps, largest, pixels)
