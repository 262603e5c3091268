"""An existing CNN in, a relaxed CNN out: the same function, with room to learn its symmetry."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import curvature
from symlearn.geometry import CONVS, Geometry
from symlearn.paths import PathSpec, as_specs
from symlearn.paths.conv import Conv
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.subsample import Align, Circular, CircularPool, PhaseReference

Selection: TypeAlias = "str | Iterable[str] | Callable[[str, nn.Module], bool] | None"
BOUNDARIES = ("keep", "circular")
TIES = ("path", "tensor")
INITS = ("keep", "fresh")
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_CONV_TYPES = tuple(CONVS.values())


@dataclass(frozen=True)
class WrapInfo:
    """How a model was wrapped; kept on the relaxed model as ``model.symlearn_wrap``."""

    specs: tuple[PathSpec, ...]
    boundary: str | Circular
    tie: str
    seed: int


@dataclass(frozen=True)
class _Site:
    """A convolution or pool that ran on the example: where it is and what shapes it saw."""

    name: str
    module: nn.Module
    geometry: Geometry | None
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]


def wrap(
    model: nn.Module,
    example_input: Tensor,
    *,
    paths: str | PathSpec | Iterable[str | PathSpec] = ("conv", "ffc"),
    layers: Selection = None,
    boundary: str | Circular = "keep",
    tie: str = "path",
    seed: int = 0,
    init: str = "keep",
    memory_limit_gib: float = 8.0,
) -> nn.Module:
    """Replace the convolutions of a network by relaxed layers; the given model is left alone.

    The pretrained weights go into the first path that can hold them (``conv`` copies the filters,
    ``fc`` unrolls them); all other paths start at zero contribution, so the returned network
    computes the same function.

    Args:
        model: A network with `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` layers.
        example_input: A batch the network accepts, [N, C, *size]; only its shape matters, and
            relaxed layers are made for its size.
        paths: Path names or path objects with options, such as ``("conv", FFC())``.
        layers: Which convolutions to relax: a name pattern or several (shell wildcards), a
            predicate ``(name, module) -> bool``, or None for all.
        boundary: "keep", or "circular" (or `Circular` with options) to make the network strictly
            shift-equivariant as well: circular padding, and subsampling on a grid that moves with
            each image in place of strides and pools. This changes the function.
        tie: "path" for one prior precision per path, "tensor" for one per weight tensor.
        seed: Seed of the random weights in paths that contribute nothing yet.
        init: "keep" the function, or "fresh" random weights in all paths (for baselines without a
            path that could hold the pretrained weights).
        memory_limit_gib: Refuse paths whose weights and curvature factors would need more.

    Returns:
        The relaxed network, in the mode (train or eval) of the given one.

    Raises:
        ValueError: If the model is wrapped already, has no convolution to relax, a name does not
            exist, the example does not fit, a layer runs on several sizes, no path can hold a
            pretrained weight, or a path would not fit in memory; all such layers are named.
        TypeError: If the model or the example is of the wrong kind.

    Example:
        >>> import torch, symlearn
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 8, 8)
        >>> relaxed = symlearn.wrap(cnn, x, paths=("conv", "ffc"))
        >>> bool(torch.equal(relaxed(x), cnn(x)))
        True
    """
    specs = as_specs(paths)
    options = _boundary(boundary)
    _check_call(model, example_input, tie, init)
    relaxed = copy.deepcopy(model)
    size = tuple(example_input.shape[2:])
    sites = _observe(relaxed, example_input)
    chosen = {site.name for site in _select(sites, layers)}
    _check_memory([site for site in sites if site.name in chosen], specs, memory_limit_gib)
    reference = None
    if options is not None:
        if options.phase == "centroid":
            reference = PhaseReference(size, options.dither)
            relaxed.register_forward_pre_hook(reference.decide)
            relaxed.register_forward_hook(reference.forget, always_call=True)
        sites = [_circular_site(site) for site in sites]
        _replace_pools(relaxed, sites, size, reference)
    build = _Builder(relaxed, size, reference, init, torch.Generator().manual_seed(seed))
    stuck = [s.name for s in sites if s.name in chosen and not build.relax(s, specs)]
    if stuck:
        raise ValueError(
            f"none of the paths {[s.name for s in specs]} can hold the pretrained weights of "
            f"{stuck}; add 'conv' (or 'fc' with boundary='keep'), or pass init='fresh'"
        )
    if options is not None:
        for site in sites:
            if site.geometry is not None and site.name not in chosen:
                build.relax(site, (Conv(),))
    relaxed.symlearn_wrap = WrapInfo(specs, boundary, tie, seed)  # type: ignore[assignment]
    _check_forward(relaxed, example_input, options)
    return relaxed


def prior_groups(model: nn.Module) -> dict[str, list[str]]:
    """Parameter groups that share one prior precision, by group name.

    Each path of a relaxed layer is a group (or each of its tensors, as wrapped with
    ``tie="tensor"``), as is the weight of each other layer and each bias. Frozen parameters and
    those of normalisation layers have no prior.
    """
    info = getattr(model, "symlearn_wrap", None)
    tie = info.tie if isinstance(info, WrapInfo) else "path"
    owner: dict[str, str] = {}
    for layer_name, layer in relaxed_layers(model).items():
        for path_name, path in layer.named_paths().items():
            prefix = f"{layer_name}.paths.{path_name}" if layer_name else f"paths.{path_name}"
            for tensor, _ in path.named_parameters():
                group = f"{layer_name}.{path_name}".lstrip(".")
                owner[f"{prefix}.{tensor}"] = group if tie == "path" else f"{group}.{tensor}"
    groups: dict[str, list[str]] = {}
    covered = {row.name: row for row in curvature.coverage(model, fallback="diagonal")}
    for name, row in covered.items():
        if name in owner:
            groups.setdefault(owner[name], []).append(name)
        elif row.kind != "fixed":
            groups.setdefault(name, []).append(name)
    return groups


def _boundary(boundary: str | Circular) -> Circular | None:
    if isinstance(boundary, Circular):
        return boundary
    if boundary not in BOUNDARIES:
        raise ValueError(
            f"unknown boundary {boundary!r}; choose one of {list(BOUNDARIES)} or a Circular object"
        )
    return Circular() if boundary == "circular" else None


def _check_call(model: object, example: object, tie: str, init: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"wrap takes a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(example, Tensor):
        raise TypeError(f"example_input must be a tensor, got {type(example).__name__}")
    if tie not in TIES:
        raise ValueError(f"unknown tie {tie!r}; choose one of {list(TIES)}")
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; choose one of {list(INITS)}")
    if relaxed_layers(model):
        raise ValueError("the model is wrapped already; wrap the plain network once")
    if not any(type(m) in _CONV_TYPES for m in model.modules()):
        raise ValueError("the model has no nn.Conv1d, nn.Conv2d or nn.Conv3d layer to relax")
    devices = {p.device for p in model.parameters()}
    if len(devices) == 1 and example.device not in devices:
        raise ValueError(
            f"example_input is on {example.device}, the model on {devices.pop()}; move one of them"
        )


def _observe(model: nn.Module, example: Tensor) -> list[_Site]:
    """Run the example and note the sizes that convolutions and pools see."""
    kinds = (*_CONV_TYPES, *_POOLS, *_ADAPTIVE)
    watched = {m: n for n, m in model.named_modules() if type(m) in kinds}
    seen: dict[nn.Module, set[tuple[tuple[int, ...], tuple[int, ...]]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        seen.setdefault(module, set()).add((tuple(args[0].shape[1:]), tuple(out.shape[1:])))

    handles = [module.register_forward_hook(note) for module in watched]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(example)
    except Exception as error:
        raise ValueError(
            f"the model does not accept example_input of shape {list(example.shape)} "
            f"({example.dtype}): {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    several = [watched[m] for m, shapes in seen.items() if len(shapes) > 1]
    if several:
        raise ValueError(
            f"these layers run on several input sizes in one forward pass: {several}; "
            "leave them out with layers=..."
        )
    return [_site(name, m, *seen[m].copy().pop()) for m, name in watched.items() if m in seen]


def _site(
    name: str, module: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> _Site:
    geometry = None
    if type(module) in _CONV_TYPES:
        geometry = Geometry.of(module, in_shape[1:], out_shape[1:])
    return _Site(name, module, geometry, in_shape[1:], out_shape[1:])


def _select(sites: Sequence[_Site], layers: Selection) -> list[_Site]:
    convs = [site for site in sites if site.geometry is not None]
    names = [site.name for site in convs]
    if layers is None:
        picked = convs
    elif callable(layers):
        picked = [site for site in convs if layers(site.name, site.module)]
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        idle = [p for p in patterns if not fnmatch.filter(names, p)]
        if idle:
            raise ValueError(f"no convolution is named {idle}; the convolutions are {names}")
        picked = [s for s in convs if any(fnmatch.fnmatchcase(s.name, p) for p in patterns)]
    if not picked:
        raise ValueError(f"no convolution is selected; those that ran are {names}")
    return picked


def _check_memory(sites: Sequence[_Site], specs: Sequence[PathSpec], limit_gib: float) -> None:
    """Predict weights (with gradient and optimiser moments) and curvature factors, before building."""
    too_big = []
    for site in sites:
        for spec in specs:
            if site.geometry is not None:
                # weights: value, gradient, two moments, average; factors: matrix and eigenvectors
                numbers = 5 * spec.n_params(site.geometry) + 2 * spec.factor_elements(site.geometry)
                gib = 4 * numbers / 2**30
                if gib > limit_gib:
                    too_big.append(f"{site.name}: path {spec.name!r} needs {gib:.1f} GiB")
    if too_big:
        raise ValueError(
            f"paths that would not fit in memory_limit_gib={limit_gib:g}:\n  "
            + "\n  ".join(too_big)
            + "\nSelect later layers with layers=..., use 'ffc' in place of 'fc', or raise the limit."
        )


def _circular_site(site: _Site) -> _Site:
    """The site with output size ``in_size / stride``.

    Raises:
        ValueError: If a stride does not divide the size.
    """
    stride = _stride_of(site)
    if any(size % step for size, step in zip(site.in_size, stride, strict=True)):
        raise ValueError(
            f"boundary='circular' needs strides that divide the map: {site.name} has stride "
            f"{list(stride)} on {list(site.in_size)}"
        )
    out_size = tuple(size // step for size, step in zip(site.in_size, stride, strict=True))
    if site.geometry is None:
        return _Site(site.name, site.module, None, site.in_size, out_size)
    return _Site(
        site.name, site.module, site.geometry.as_circular(out_size), site.in_size, out_size
    )


_ADAPTIVE: dict[type[nn.Module], Any] = {
    nn.AdaptiveAvgPool1d: nn.AvgPool1d,
    nn.AdaptiveAvgPool2d: nn.AvgPool2d,
    nn.AdaptiveAvgPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.MaxPool1d,
    nn.AdaptiveMaxPool2d: nn.MaxPool2d,
    nn.AdaptiveMaxPool3d: nn.MaxPool3d,
}


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * axes


def _stride_of(site: _Site) -> tuple[int, ...]:
    axes = len(site.in_size)
    if type(site.module) in _ADAPTIVE:
        # an adaptive pool with windows of equal size is a plain pool of that size
        return tuple(i // o for i, o in zip(site.in_size, site.out_size, strict=True))
    return _per_axis(site.module.stride, axes)


def _passed(size: tuple[int, ...], in_size: tuple[int, ...], name: str) -> tuple[int, ...]:
    if any(s % i for s, i in zip(size, in_size, strict=True)):
        raise ValueError(
            f"boundary='circular' needs maps that divide the image: {name} sees {list(in_size)} of "
            f"{list(size)}"
        )
    return tuple(s // i for s, i in zip(size, in_size, strict=True))


def _replace_pools(
    model: nn.Module,
    sites: Sequence[_Site],
    size: tuple[int, ...],
    reference: PhaseReference | None,
) -> None:
    """Put pools on each sample's own grid; size-one outputs pool over everything already."""
    for site in sites:
        if site.geometry is not None or math.prod(site.out_size) == 1:
            continue
        axes, pool = len(site.in_size), site.module
        stride = _stride_of(site)
        if type(pool) in _ADAPTIVE:
            window, before = stride, (0,) * axes
        else:
            window = _per_axis(pool.kernel_size, axes)
            before = _per_axis(pool.padding, axes)
        total = [max(0, w - s) for w, s in zip(window, stride, strict=True)]
        pads = [(min(b, t), t - min(b, t)) for b, t in zip(before, total, strict=True)]
        plain = _ADAPTIVE.get(type(pool), type(pool))(window, stride)
        align = Align(stride, _passed(size, site.in_size, site.name), reference)
        flat = [p for pad in reversed(pads) for p in pad]
        _put(model, site.name, CircularPool(plain, align, flat))


@dataclass(frozen=True)
class _Builder:
    """Puts relaxed layers into a model."""

    model: nn.Module
    size: tuple[int, ...]
    reference: PhaseReference | None
    init: str
    generator: torch.Generator

    def relax(self, site: _Site, specs: Sequence[PathSpec]) -> bool:
        """Replace one convolution; False if no path can hold its weights."""
        conv: Any = site.module
        geometry = site.geometry
        if geometry is None:
            raise TypeError(f"{site.name} is not a convolution")
        align = None
        if geometry.circular:
            passed = _passed(self.size, geometry.in_size, site.name)
            align = Align(geometry.stride, passed, self.reference)
        layer = RelaxedLayer(geometry, specs, conv.bias is not None, align).to(conv.weight)
        layer.train(conv.training)
        _put(self.model, site.name, layer)
        if self.init == "fresh":
            layer.reset_parameters(self.generator)
            return True
        return self._adopt(layer, conv)

    def _adopt(self, layer: RelaxedLayer, conv: Any) -> bool:
        held = False
        for path in layer.named_paths().values():
            if not held and path.adopt(conv):
                held = True
            else:
                path.start_at_zero(self.generator)
        if layer.bias is not None:
            with torch.no_grad():
                layer.bias.copy_(conv.bias)
        return held


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a submodule wherever the model refers to it."""
    old = model.get_submodule(name)
    for parent in model.modules():
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = module


def _check_forward(model: nn.Module, example: Tensor, options: Circular | None) -> None:
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(example)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "the relaxed model does not run on the example"
            + ("; circular maps have size in/stride, which may not suit a later layer" if options else "")
            + f": {error}"
        ) from error
