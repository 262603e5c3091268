"""Making a network strictly shift-equivariant: circular maps, and pools on each sample's grid."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from symlearn.geometry import Sizes
from symlearn.groups.grid import named
from symlearn.observe import CONV_TYPES, Site, observe
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.subsample import Align, Circular, CircularPool, PhaseReference

BOUNDARIES = ("keep", "circular")
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
# an adaptive pool with windows of equal size is a plain pool of that size
_ADAPTIVE: dict[type[nn.Module], Any] = {
    nn.AdaptiveAvgPool1d: nn.AvgPool1d,
    nn.AdaptiveAvgPool2d: nn.AvgPool2d,
    nn.AdaptiveAvgPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.MaxPool1d,
    nn.AdaptiveMaxPool2d: nn.MaxPool2d,
    nn.AdaptiveMaxPool3d: nn.MaxPool3d,
}
_POOL_TYPES = (*_MAX_POOLS, *_AVG_POOLS, *_ADAPTIVE)


def as_circular(boundary: str | Circular) -> Circular | None:
    """The options of a boundary, None for "keep".

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(boundary, Circular):
        return boundary
    if boundary not in BOUNDARIES:
        raise ValueError(
            f"unknown boundary {boundary!r}; choose one of {list(BOUNDARIES)} or a Circular object"
        )
    return Circular() if boundary == "circular" else None


def observe_circular(model: nn.Module, example: Tensor) -> list[Site]:
    """Convolutions and pools, with the sizes they will see once every map is circular.

    A circular map has ``1 / stride`` of the size of the map before it, whatever the padding.

    Raises:
        ValueError: If a stride does not divide the map, a map does not divide the image, or the
            new sizes do not suit the rest of the network; the layer is named.
    """
    resize = partial(_circular_output, tuple(example.shape[2:]))
    try:
        return observe(model, example, (*CONV_TYPES, *_POOL_TYPES), resize)
    except Exception as error:
        raise ValueError(
            f"boundary='circular' does not suit this network: {error} (circular maps have size "
            "in / stride, whatever the padding)"
        ) from error


def phase_reference(
    model: nn.Module, example: Tensor, options: Circular, convs: Sequence[Site]
) -> PhaseReference | None:
    """What decides the poses of a network's images; None if each layer decides.

    A network lifted to a group (`symlearn.lift`) is made equivariant to that group too.

    Args:
        model: The network.
        example: Images it takes, [N, C, *size].
        options: The rule and the group.
        convs: Its convolutions.

    Raises:
        ValueError: If the rule cannot decide for the group, or the options name another group.
    """
    lifted = next((conv.geometry.group for conv in convs if conv.geometry.group), None)
    if lifted is not None and options.group is None:
        options = replace(options, group=lifted)
    if lifted is not None and named(options.group or lifted) != named(lifted):
        raise ValueError(
            f"the network is lifted to group {lifted!r}, the boundary asks for group "
            f"{options.group!r}; leave the latter out"
        )
    size, channels = tuple(example.shape[2:]), example.shape[1]
    if options.rule(size, channels) is None:
        return None
    reference = PhaseReference(size, channels, options)
    return reference.train(model.training).to(example.device)


def _circular_output(image: Sizes, site: Site, x: Tensor, out: Any) -> Tensor:
    """A map of the size that the circular stand-in of a module would return."""
    size = tuple(x.shape[2:])
    if not isinstance(out, Tensor):
        raise ValueError(f"{site.name} returns more than its map (return_indices?)")
    if len(size) != len(image) or any(w % s for w, s in zip(image, size, strict=True)):
        raise ValueError(
            f"maps must divide the image: {site.name} sees {list(size)} of {list(image)}"
        )
    if type(site.module) in _ADAPTIVE:
        if any(s % o for s, o in zip(size, out.shape[2:], strict=True)):
            raise ValueError(
                f"windows must be equal: {site.name} pools {list(size)} to {list(out.shape[2:])}"
            )
        return out
    stride = _stride(site.module, size, size)
    if any(s % step for s, step in zip(size, stride, strict=True)):
        raise ValueError(
            f"strides must divide the map: {site.name} strides {list(stride)} on {list(size)}"
        )
    smaller = [s // step for s, step in zip(size, stride, strict=True)]
    return out.new_zeros(*out.shape[:2], *smaller)


def _per_axis(value: Any, axes: int) -> Sizes:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * axes


def _stride(module: Any, size: Sizes, out_size: Sizes) -> Sizes:
    """Stride of a convolution or pool; of an adaptive pool with equal windows their size."""
    if type(module) in _ADAPTIVE:
        return tuple(i // o for i, o in zip(size, out_size, strict=True))
    return _per_axis(module.stride, len(size))


def circular_pool(site: Site, reference: PhaseReference | None, image: Sizes) -> nn.Module:
    """What stands for a pool in a circular network: itself, if it pools over everything.

    Raises:
        ValueError: For an adaptive pool used on several sizes.
    """
    pool: Any = site.module
    adaptive = type(pool) in _ADAPTIVE
    if adaptive and all(o == 1 for _, out in site.calls for o in out):
        return site.module
    stride = _stride(pool, site.in_size, site.out_size)
    axes = len(stride)
    if adaptive:
        if len(site.calls) > 1:
            raise ValueError(f"the adaptive pool {site.name} runs on several sizes; use one each")
        plain, pads = _ADAPTIVE[type(pool)](stride, stride), [0] * 2 * axes
    else:
        plain, pads = copy.copy(pool), _pool_pads(pool, stride)
        plain.padding = (0,) * axes
    passed = tuple(w // s for w, s in zip(image, site.in_size, strict=True))
    align = Align(stride, passed if len(site.calls) == 1 else (), reference)
    return CircularPool(plain, align, pads).train(pool.training)


def _pool_pads(pool: Any, stride: Sizes) -> list[int]:
    axes = len(stride)
    spacing = _per_axis(pool.dilation, axes) if isinstance(pool, _MAX_POOLS) else (1,) * axes
    pads = []
    windows = zip(_per_axis(pool.kernel_size, axes), spacing, stride, strict=True)
    for own, (window, d, step) in zip(_per_axis(pool.padding, axes), windows, strict=True):
        total = max(0, d * (window - 1) + 1 - step)
        pads.append((min(own, total), total - min(own, total)))
    return [p for pad in reversed(pads) for p in pad]


def check_moves(model: nn.Module, example: Tensor) -> None:
    """Shift a random image, and check that the maps of all circular layers are shifted too.

    Catches what `wrap` cannot see: functional pools, position codes, padding by hand.

    Raises:
        ValueError: If a map changes other than by its sites changing places; the layer is named.
    """
    if not example.is_floating_point() or example.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *example.shape[1:], generator=generator, dtype=torch.float64).to(example)
    shifted = x.roll((1,) * (x.ndim - 2), tuple(range(2, x.ndim)))
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    with _strict_paths_only(model):
        pairs = zip(_sorted_maps(model, x), _sorted_maps(model, shifted), strict=True)
    for (place, before), (_, after) in pairs:
        error = (before - after).abs().max()
        if not bool(error <= tolerance * before.abs().max()):
            raise ValueError(
                f"boundary='circular' cannot make this network shift-equivariant: {place} does not "
                "move with the image. Something before it depends on absolute position (a "
                "functional pool or padding, an upsampling, a subclass of a convolution, a "
                "position code): use modules that wrap knows, or boundary='keep'"
            )


@contextmanager
def _strict_paths_only(model: nn.Module) -> Iterator[None]:
    paths = [p for layer in relaxed_layers(model).values() for p in layer.named_paths().values()]
    enabled = [path.enabled for path in paths]
    for path in paths:
        path.enabled = path.enabled and path.reads_aligned
    try:
        yield
    finally:
        for path, on in zip(paths, enabled, strict=True):
            path.enabled = on


def _sorted_maps(model: nn.Module, x: Tensor) -> list[tuple[str, Tensor]]:
    """Values per channel, sorted over sites, of what goes into and out of circular layers."""
    maps: list[tuple[str, Tensor]] = []
    kinds = (RelaxedLayer, CircularPool)
    names: dict[nn.Module, str] = {m: n for n, m in model.named_modules() if isinstance(m, kinds)}

    def note(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        for side, v in (("input", args[0]), ("output", out)):
            maps.append((f"the {side} of {names[module]}", v.flatten(2).sort(2).values))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return maps
