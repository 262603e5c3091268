"""A relaxed layer as the smallest plain module with the same outputs.

All paths that are convolutions become one convolution, a factored path becomes two batched
products, and a fully-connected path one matrix. The whole layer becomes one matrix where that has
neither more weights nor more multiply-adds than the sum: beside a fully-connected path, and on maps
of very few sites.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.collapse.cost import multiply_adds, weights
from symlearn.collapse.modules import (
    CircularConv,
    ConstantMap,
    FactoredMap,
    GeneratorMap,
    KeptPaths,
    MapSum,
    PowerMap,
)
from symlearn.generators.powermaps import PickedPowers
from symlearn.generators.terms import FixedTerm, LearnedTerm
from symlearn.geometry import CONVS, Geometry
from symlearn.paths import EmlpPath, FCPath, LConvPath, Path, PowerPath
from symlearn.paths.factored import FactoredPath
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import Align

_UNITS_AT_ONCE = 256


@torch.no_grad()
def plain_layer(layer: RelaxedLayer) -> nn.Module:
    """The layer's enabled paths and bias as a plain module; the layer is left alone.

    Args:
        layer: The relaxed layer.

    Returns:
        A convolution where all paths are convolutions (a `CircularConv` where torch has none that
        pads or samples like it); else a `FactoredMap`, a matrix (``Flatten, Linear, Unflatten``, or
        a convolution over the whole map where the output has one site), or a `MapSum` of such
        parts; a `ConstantMap` where no path is on.
    """
    geometry = layer.geometry
    parts = _parts(layer)
    if _better_as_matrix(layer, parts):
        total = sum(_matrix(part, geometry) for part in parts.values())
        parts = {"matrix": _matrix_module(geometry, torch.as_tensor(total))}
    if layer.bias is not None:
        _add_bias(parts, geometry, layer.bias)
    if not parts:
        parts["none"] = ConstantMap((geometry.out_channels, *geometry.out_size), bias=False)
    plain = next(iter(parts.values())) if len(parts) == 1 else MapSum(parts)
    anchor = next(layer.parameters(), torch.empty(0))
    return plain.to(anchor).requires_grad_().train(layer.training)


def _parts(layer: RelaxedLayer) -> dict[str, nn.Module]:
    """Summands of the layer without its bias, the convolution first."""
    on = {name: path for name, path in layer.named_paths().items() if path.enabled}
    filters = {name: _filters(path) for name, path in on.items()}
    if layer.align is not None and not layer.align.idle:
        strict = [name for name, path in on.items() if path.reads_aligned]
        if any(filters[name] is None for name in strict):  # they share one grid
            rest = {name: path for name, path in on.items() if name not in strict}
            return {"paths": _kept(layer, strict, layer.align), **_others(layer, rest)}
    others = _others(layer, {name: path for name, path in on.items() if path.filters() is None})
    convolutions = [f.double() for f in filters.values() if f is not None]
    if not convolutions:
        return others
    return {"conv": _convolution(layer, torch.stack(convolutions).sum(0)), **others}


def _filters(path: Path) -> Tensor | None:
    """Filters of a path, or of the part of it that is a convolution."""
    if isinstance(path, LConvPath) and not path.is_sparse():
        return path.split()[0]
    return path.filters()


def _others(layer: RelaxedLayer, paths: dict[str, Path]) -> dict[str, nn.Module]:
    """Paths that are no convolutions: batched products, a matrix, or the paths as they are."""
    plain: dict[str, nn.Module] = {}
    for name, path in paths.items():
        if isinstance(path, FactoredPath):
            plain[name] = _factored(path)
        elif isinstance(path, (EmlpPath, FCPath)):
            plain[name] = _matrix_module(path.geometry, path.linear.weight.detach().clone())
        elif isinstance(path, LConvPath) and not path.is_sparse():
            terms = path.split()[1]
            plain.update({f"{name}_{k}": _generator(path.geometry, t) for k, t in terms.items()})
        elif isinstance(path, PowerPath) and not path.is_stepped():
            plain[name] = _power(path)
        else:
            plain[name] = _kept(layer, [name], None)
    return plain


def _kept(layer: RelaxedLayer, names: Sequence[str], align: Align | None) -> KeptPaths:
    """Some of the layer's paths as they are."""
    specs = [spec for spec in layer.specs if spec.name in names]
    kept = KeptPaths(layer.geometry, specs, align)
    kept.paths = nn.ModuleList([copy.deepcopy(layer.path(spec.name)) for spec in specs])
    return kept


def _convolution(layer: RelaxedLayer, filters: Tensor) -> nn.Module:
    """The convolution of the layer's geometry with filters [C', C/g, *kernel]."""
    geometry = layer.geometry
    conv: Any = geometry.build_conv()
    conv.weight = nn.Parameter(filters)
    if not geometry.circular:
        return conv  # type: ignore[no-any-return]
    pads = geometry.circular_pads()
    before, after = pads[::2][::-1], pads[1::2][::-1]
    fits = all(pad <= size for pad, size in zip(before, geometry.in_size, strict=True))
    if max(geometry.stride) > 1 or before != after or not fits:
        return CircularConv(conv, geometry, layer.align)
    same = replace(geometry, circular=False, padding=tuple(before), padding_mode="circular")
    plain: Any = same.build_conv()
    plain.weight = conv.weight
    return plain  # type: ignore[no-any-return]


def _factored(path: FactoredPath) -> FactoredMap:
    """A factored path with its coordinates multiplied out where that is cheaper."""
    geometry = path.geometry
    read, write = path.theta2.weight.detach().double(), path.theta1.weight.detach().double()
    (c_out, c_in, d_in), d_out = read.shape, write.shape[2]
    fields = geometry.in_channels // c_in, geometry.out_channels // c_out
    n_in, n_out = fields[0] * geometry.in_sites, fields[1] * geometry.out_sites
    double = copy.deepcopy(path).double()
    # coordinates of unit inputs in the first field, and maps of unit coordinates
    units = torch.eye(n_in, dtype=read.dtype, device=read.device)
    units = torch.cat([units, units.new_zeros(n_in, (c_in - 1) * n_in)], 1)
    reader = double.read(units.reshape(n_in, geometry.in_channels, *geometry.in_size))[:, 0]
    units = units.new_zeros(d_out, c_out, d_out)
    units[:, 0].fill_diagonal_(1)
    writer = double.write(units).flatten(1)[:, :n_out]
    # numbers held; products with few channels are smaller, and then fewer multiply-adds too
    keeps_reader = d_in * (n_in + c_out * c_in) < c_out * c_in * n_in
    keeps_writer = d_out * (n_out + c_out * c_in) < c_out * c_in * n_out
    plain = FactoredMap(
        (geometry.in_channels, *geometry.in_size),
        (geometry.out_channels, *geometry.out_size),
        fields,
        (d_in if keeps_reader else None, d_out if keeps_writer else None),
        bias=False,
    )
    plain.read = nn.Parameter(read if keeps_reader else read @ reader.T)
    plain.write = nn.Parameter(write if keeps_writer else write @ writer)
    if keeps_reader:
        plain.register_buffer("reader", reader)
    if keeps_writer:
        plain.register_buffer("writer", writer)
    return plain


def _generator(geometry: Geometry, term: FixedTerm | LearnedTerm) -> GeneratorMap:
    """One generator of a Lie algebra convolution."""
    plain = GeneratorMap(
        (geometry.in_channels, *geometry.in_size),
        (geometry.out_channels, *geometry.out_size),
        term.V.out_features if isinstance(term, LearnedTerm) else None,
    )
    plain.mix = nn.Parameter(term.W.weight.detach().clone())
    if isinstance(term, LearnedTerm):
        plain.read = nn.Parameter(term.V.weight.detach().clone())
        plain.write = nn.Parameter(term.U.weight.detach().clone())
    else:
        plain.matrix = term.sites.matrix().to(plain.mix)
    return plain


def _power(path: PowerPath) -> PowerMap:
    """A power series."""
    geometry = path.geometry
    plain = PowerMap(
        (geometry.in_channels, *geometry.in_size),
        (geometry.out_channels, *geometry.out_size),
        tuple(isinstance(base, PickedPowers) for base in path.bases),
        len(path.options.exponents),
        path.options.zero,
        not path.picks.identity,
    )
    plain.mix = nn.Parameter(path.theta.weight.detach().clone())
    for held, base in zip(plain.series, path.bases, strict=True):
        for name, values in base.named_buffers():
            setattr(held, name, values.clone())
    if plain.picks:
        plain.picked = path.picks.index
    return plain


def _better_as_matrix(layer: RelaxedLayer, parts: dict[str, nn.Module]) -> bool:
    """Whether one matrix has neither more weights nor more multiply-adds than the sum."""
    if not set(parts) - {"conv"}:
        return False  # a convolution stays one, also where the map is small
    if any(isinstance(part, (CircularConv, KeptPaths)) for part in parts.values()):
        return False  # not one matrix for all samples, or not known to be linear
    geometry = layer.geometry
    anchor = next(layer.parameters())
    x = anchor.new_zeros(1, geometry.in_channels, *geometry.in_size)
    elements = geometry.in_channels * geometry.in_sites * geometry.out_channels * geometry.out_sites
    modules = [part.to(anchor) for part in parts.values()]
    return elements <= min(
        sum(weights(part) for part in modules), sum(multiply_adds(part, x) for part in modules)
    )


def _matrix(part: nn.Module, geometry: Geometry) -> Tensor:
    """The matrix [C'S', CS] of a linear map, in float64; columns are its responses to units."""
    if isinstance(part, nn.Sequential):
        return part.get_parameter("linear.weight").detach().double()
    part, n = copy.deepcopy(part).double(), geometry.in_channels * geometry.in_sites
    columns = []
    device = next(part.parameters()).device
    for start in range(0, n, _UNITS_AT_ONCE):
        units = torch.zeros(min(_UNITS_AT_ONCE, n - start), n, dtype=torch.float64, device=device)
        units.diagonal(start).fill_(1)
        columns.append(part(units.reshape(-1, geometry.in_channels, *geometry.in_size)).flatten(1))
    return torch.cat(columns).T


def _matrix_module(geometry: Geometry, matrix: Tensor) -> nn.Module:
    """The map of a matrix [C'S', CS] between feature maps, without bias."""
    if geometry.out_sites == 1:
        make: Any = CONVS[len(geometry.in_size)]
        channels = (geometry.in_channels, geometry.out_channels)
        plain: Any = nn.utils.skip_init(make, *channels, geometry.in_size, bias=False)
        plain.weight = nn.Parameter(matrix.reshape(plain.weight.shape))
        return plain  # type: ignore[no-any-return]
    linear = nn.utils.skip_init(nn.Linear, matrix.shape[1], matrix.shape[0], bias=False)
    linear.weight = nn.Parameter(matrix)
    unflatten = nn.Unflatten(1, (geometry.out_channels, *geometry.out_size))
    return nn.Sequential(
        OrderedDict([("flatten", nn.Flatten()), ("linear", linear), ("unflatten", unflatten)])
    )


def _add_bias(parts: dict[str, nn.Module], geometry: Geometry, bias: Tensor) -> None:
    """Give the layer's bias [C'] to the first part that can hold one, or make it a part."""
    values = bias.detach().clone()
    holder: Any = next((p for p in parts.values() if "bias" in p._parameters), None)
    matrix: Any = next((p for p in parts.values() if isinstance(p, nn.Sequential)), None)
    if holder is None and matrix is not None:
        holder, values = matrix.linear, values.repeat_interleave(geometry.out_sites)
    if holder is None:
        holder = parts["bias"] = ConstantMap((geometry.out_channels, *geometry.out_size))
    holder.bias = nn.Parameter(values)
