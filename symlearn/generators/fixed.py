"""The given generators of a layer as maps of its sites.

Index letters: ``S`` input sites, ``S'`` output sites, ``K`` taps of the window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.generators.affine import DENSE_SITES, AffineGenerator
from symlearn.generators.sitemap import FixedGenerator, SiteMap
from symlearn.geometry import Geometry, wrap_pad

WINDOW = "window"
"""Name that stands for the shifts of the layer's window, one generator per tap."""

Given = Sequence["str | FixedGenerator"]


def misfits(geometry: Geometry, fixed: Given) -> list[str]:
    """Why given generators do not suit a layer, one sentence a reason; none if they do."""
    found = []
    shapes = [
        (s, geometry.in_sites) for s in dict.fromkeys((geometry.in_sites, geometry.out_sites))
    ]
    for given in fixed:
        if isinstance(given, FixedGenerator):
            if given.shape not in shapes:
                found.append(
                    f"generator {given.name!r} is a matrix {list(given.shape)}, the layer's sites "
                    f"ask for {' or '.join(str(list(s)) for s in shapes)}"
                )
        elif given != WINDOW:
            try:
                AffineGenerator(given, geometry.in_size)
            except ValueError as error:
                found.append(str(error))
    return found


def fixed_maps(
    geometry: Geometry, fixed: Given, identity: bool, dense: bool
) -> dict[str, tuple[SiteMap, int | None]]:
    """Fixed maps by name of the generator, and the tap of the window that each of them reads.

    A generator over the input's sites is followed by the middle tap of the window, which picks the
    output's sites.

    Args:
        geometry: Shapes of the layer.
        fixed: Names and generators; see `symlearn.paths.LConv`.
        identity: Whether the middle tap, the identity of a layer that keeps its size, is one.
        dense: Whether matrices are dense for any number of sites.
    """
    taps, middle = window_sites(geometry), _middle(geometry)
    found: dict[str, tuple[SiteMap, int | None]] = {}
    if identity and WINDOW not in fixed:
        found["I"] = _picks(taps[middle], geometry), middle
    for given in fixed:
        if given == WINDOW:
            for tap, name in enumerate(_tap_names(geometry)):
                found[name] = _picks(taps[tap], geometry), tap
            continue
        if isinstance(given, str):
            name, rows = given, geometry.in_sites
            entries = AffineGenerator(given, geometry.in_size).entries()
        else:
            name, rows, entries = given.name, given.shape[0], given.entries()
        if rows != geometry.out_sites:
            entries = _rows(*entries, taps[middle], geometry.in_sites)
        shape = (geometry.out_sites, geometry.in_sites)
        found[name] = SiteMap(shape, *entries, dense=dense), None
    return found


def held_elements(geometry: Geometry, fixed: Given, dense: bool) -> int:
    """Numbers that the matrices of given generators hold at most, without building them.

    Args:
        geometry: Shapes of the layer.
        fixed: Names and generators, as for `fixed_maps`.
        dense: Whether matrices are dense for any number of sites.
    """
    sites = geometry.out_sites, geometry.in_sites
    if dense or max(sites) <= DENSE_SITES:
        return math.prod(sites) * sum(given != WINDOW for given in fixed)
    entries = [
        geometry.in_sites * sum(geometry.in_size) if isinstance(given, str) else len(given.values)
        for given in fixed
        if given != WINDOW
    ]
    return 5 * sum(entries)  # a number each, and two places of 64 bits, as long as two numbers


def middle_map(geometry: Geometry) -> SiteMap:
    """The middle tap of a layer's window: the identity, where the layer keeps the size of maps."""
    return _picks(window_sites(geometry)[_middle(geometry)], geometry)


def reads_moved(geometry: Geometry) -> bool:
    """Whether a convolution of the layer reads each sample on a grid of its own."""
    return geometry.circular and max(geometry.stride) > 1


def over_groups(filters: Tensor, geometry: Geometry) -> Tensor:
    """Filters [C', C/g, *kernel] as [C', C, K], zero between channel groups."""
    g = geometry.groups
    blocks = filters.flatten(2).unflatten(0, (g, -1))  # [g, C'/g, C/g, K]
    out = filters.new_zeros(g, blocks.shape[1], g, *blocks.shape[2:])
    for i in range(g):
        out[i, :, i] = blocks[i]
    return out.reshape(geometry.out_channels, geometry.in_channels, -1)


def window_sites(geometry: Geometry) -> Tensor:
    """Input site that each tap reads at each output site, [K, S']; S where it reads padding."""
    one = replace(geometry, in_channels=1, out_channels=1, groups=1)
    sites = torch.arange(1.0, geometry.in_sites + 1, dtype=torch.float64)
    maps = sites.reshape(1, 1, *geometry.in_size)
    maps = wrap_pad(maps, one.circular_pads() if one.circular else [])
    conv: Any = one.build_conv().double()
    found = []
    for tap in range(geometry.window):
        nn.init.zeros_(conv.weight)
        with torch.no_grad():
            conv.weight.view(-1)[tap] = 1.0
            found.append(conv(maps).flatten().round().long() - 1)
    index = torch.stack(found)
    return torch.where(index < 0, geometry.in_sites, index)


def _middle(geometry: Geometry) -> int:
    """Number of the window's middle tap."""
    tap = 0
    for k in geometry.kernel_size:
        tap = tap * k + (k - 1) // 2
    return tap


def _tap_names(geometry: Geometry) -> list[str]:
    """Names of the shifts of the window, by row and column of the tap."""
    places = itertools.product(*(range(k) for k in geometry.kernel_size))
    return ["_".join(map(str, ("tap", *place))) for place in places]


def _picks(index: Tensor, geometry: Geometry) -> SiteMap:
    """The map that picks one input site [S'] for each output site; S for none."""
    rows = (index < geometry.in_sites).nonzero().flatten()
    places = torch.stack([rows, index[rows]])
    return SiteMap((geometry.out_sites, geometry.in_sites), places, torch.ones(len(rows)))


def _rows(places: Tensor, values: Tensor, index: Tensor, sites: int) -> tuple[Tensor, Tensor]:
    """Entries of the rows [S'] of a matrix over input sites; S for a row of zeros."""
    order = torch.argsort(places[0], stable=True)
    places, values = places[:, order], values[order]
    counts = torch.bincount(places[0], minlength=sites + 1)  # none in the row of padding
    starts = counts.cumsum(0) - counts
    kept = counts[index]
    rows = torch.arange(len(index)).repeat_interleave(kept)
    within = torch.arange(len(rows)) - (kept.cumsum(0) - kept).repeat_interleave(kept)
    chosen = starts[index].repeat_interleave(kept) + within
    return torch.stack([rows, places[1, chosen]]), values[chosen]
