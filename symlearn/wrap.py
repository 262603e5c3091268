"""An existing CNN in, a relaxed CNN out: the same function, with room to learn its symmetry."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import curvature
from curvature.checking import check_positive, check_weights, seeded
from symlearn.circular import (
    as_circular,
    check_moves,
    circular_pool,
    observe_circular,
    phase_reference,
)
from symlearn.geometry import Geometry
from symlearn.memory.paths import Place, check_memory
from symlearn.observe import CONV_TYPES, Site, count_calls, observe_convs
from symlearn.paths import PathSpec
from symlearn.paths.conv import Conv
from symlearn.relaxed import RelaxedLayer, relaxed_layers, replace_module
from symlearn.select import (
    PathsFor,
    Selection,
    assign,
    check_replaceable,
    left_alone,
    select,
    unsuited,
)
from symlearn.subsample import Align, Circular, PhaseReference

__all__ = ["INITS", "TIES", "Selection", "WrapInfo", "prior_groups", "wrap"]

TIES = ("path", "tensor")
INITS = ("keep", "fresh")


@dataclass(frozen=True)
class WrapInfo:
    """How a model was wrapped; kept on the relaxed model as ``model.symlearn_wrap``."""

    paths: dict[str, tuple[PathSpec, ...]]
    boundary: str | Circular
    tie: str
    seed: int


def wrap(
    model: nn.Module,
    example_input: Tensor,
    *,
    paths: PathsFor = ("conv", "ffc"),
    layers: Selection = None,
    boundary: str | Circular = "keep",
    tie: str = "path",
    seed: int = 0,
    init: str = "keep",
    memory_limit_gib: float = 8.0,
) -> nn.Module:
    """Replace the convolutions of a network by relaxed layers; the given model is left alone.

    The pretrained weights go into the strict path (``conv`` copies the filters), or else into the
    first that can hold them (``fc`` unrolls them); all other paths start at zero contribution, so
    the returned network computes the same function. All weights of relaxed layers are learnable,
    also where the convolution was frozen (with a warning): leave such layers out to keep them.

    Args:
        model: A network with `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` layers.
        example_input: A batch the network accepts, [N, C, *size]; only its shape matters, and
            relaxed layers are made for its size.
        paths: Path names or path objects with options, such as ``("conv", FFC())``; or a mapping
            from name patterns of layers to these, where the first that matches counts, and layers
            without a match are not relaxed.
        layers: Which convolutions to relax: a name pattern or several (shell wildcards), a
            predicate ``(name, module) -> bool``, `last_stages`, or None for all that run on the
            example. Only torch's own classes are relaxed; subclasses are left alone.
        boundary: "keep", or "circular" (or `Circular` with options) to make the strict paths, all
            other convolutions and the pools exactly shift-equivariant: circular padding, maps of
            size in / stride, and subsampling on a grid that moves with each image. This changes
            the function. The outputs are invariant if the head pools over all positions.
        tie: "path" for one prior precision per path, "tensor" for one per weight tensor.
        seed: Seed of the random weights in paths that contribute nothing yet.
        init: "keep" the function, or "fresh" random weights in all paths (for baselines without a
            path that could hold the pretrained weights).
        memory_limit_gib: Refuse paths whose weights and curvature factors need more in all.

    Returns:
        The relaxed network, in the mode (train or eval) of the given one.

    Raises:
        ValueError: If the model is wrapped already, has no convolution to relax, a name does not
            exist, the example does not fit, a convolution cannot be replaced without loss, no path
            can hold a pretrained weight, or the paths would not fit in memory; all such layers are
            named.
        TypeError: If the model or the example is of the wrong kind.

    Example:
        >>> import torch, symlearn
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> x = torch.randn(2, 1, 8, 8)
        >>> relaxed = symlearn.wrap(cnn, x, paths=("conv", "ffc"))
        >>> bool(torch.equal(relaxed(x), cnn(x)))
        True
    """
    options = as_circular(boundary)
    _check_options(tie, init)
    check_model(model, example_input)
    check_positive("memory_limit_gib", memory_limit_gib)
    relaxed = _copied(model)
    sites = observe_convs(relaxed, example_input)
    chosen = assign(select(sites, layers), paths)
    if layers is None:
        _warn_left_alone([site for site in sites if isinstance(site.module, CONV_TYPES)])
    _warn_frozen([site for site in sites if site.name in chosen])
    if options is None:
        sites = [site for site in sites if site.name in chosen]
    else:
        sites = observe_circular(relaxed, example_input)
    convs = [site for site in sites if isinstance(site.module, CONV_TYPES)]
    check_replaceable(relaxed, sites)
    planned = [(site, spec) for site in convs for spec in chosen.get(site.name, ())]
    _check_suited(planned, options is not None)
    check_memory([(Place.of(site), spec) for site, spec in planned], memory_limit_gib)
    image = tuple(example_input.shape[2:])
    reference = None if options is None else phase_reference(relaxed, example_input, options, convs)
    generator = seeded(seed)
    surgeon = _Surgeon(relaxed, image, options, generator, init, reference)
    surgeon.relax_all(convs, chosen)
    surgeon.replace_pools([site for site in sites if site not in convs])
    if reference is not None and reference in set(relaxed.modules()):
        reference.attach(relaxed)
    relaxed.symlearn_wrap = WrapInfo(chosen, boundary, tie, seed)  # type: ignore[assignment]
    _check_runs(relaxed, example_input)
    if options is not None:
        check_moves(relaxed, example_input)
    return relaxed


def prior_groups(model: nn.Module) -> dict[str, list[str]]:
    """Parameter groups that share one prior precision, by group name.

    Each path of a relaxed layer is a group (or each of its parts, such as the generators of an
    L-conv; or each of its tensors, as wrapped with ``tie="tensor"``), as is the weight of each
    other layer and each bias. Outside of paths, frozen parameters and those of normalisation layers
    have no prior. Hyperparameters of a path have none, or one of their own (the omegas of a sparse
    path with ``control="omega"``).
    """
    info = getattr(model, "symlearn_wrap", None)
    tie = info.tie if isinstance(info, WrapInfo) else "path"
    owner: dict[str, str] = {}
    for layer_name, layer in relaxed_layers(model).items():
        for path_name, path in layer.named_paths().items():
            prefix = f"{layer_name}.paths.{path_name}" if layer_name else f"paths.{path_name}"
            group, owns = f"{layer_name}.{path_name}".lstrip("."), path.hyperparameters()
            tensors = [name for name, _ in path.named_parameters()]
            part_of = {name: part for part, names in path.parts().items() for name in names}
            for tensor in (t for t in tensors if owns.get(t, "") is not None):
                own = owns.get(tensor) or (tensor if tie == "tensor" else part_of.get(tensor))
                owner[f"{prefix}.{tensor}"] = group if own is None else f"{group}.{own}"
    groups: dict[str, list[str]] = {}
    covered = {row.name: row for row in curvature.coverage(model, fallback="diagonal")}
    for name, row in covered.items():
        if name in owner:
            groups.setdefault(owner[name], []).append(name)
        elif row.kind != "fixed":
            groups.setdefault(name, []).append(name)
    return groups


def _check_options(tie: str, init: str) -> None:
    if tie not in TIES:
        raise ValueError(f"unknown tie {tie!r}; choose one of {list(TIES)}")
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; choose one of {list(INITS)}")


def check_model(model: object, example: object) -> None:
    """Check that a model and an example are what `wrap` takes.

    Raises:
        TypeError: If one is of the wrong kind.
        ValueError: If the model is wrapped already, has no convolution, lazy layers or weights that
            are not finite, or the two are on different devices.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"wrap takes a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(example, Tensor):
        raise TypeError(f"example_input must be a tensor, got {type(example).__name__}")
    if relaxed_layers(model):
        raise ValueError("the model is wrapped already; wrap the plain network once")
    if not any(isinstance(m, CONV_TYPES) for m in model.modules()):
        raise ValueError("the model has no nn.Conv1d, nn.Conv2d or nn.Conv3d layer to relax")
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ValueError("the model has lazy layers without weights; run it on the example first")
    check_weights(model)
    devices = {p.device for p in model.parameters()}
    if len(devices) == 1 and example.device not in devices:
        raise ValueError(
            f"example_input is on {example.device}, the model on {devices.pop()}; move one of them"
        )


def _check_suited(planned: Sequence[tuple[Site, PathSpec]], circular: bool) -> None:
    found = unsuited(planned, circular)
    problems = [f"{name}, {reason}" for name, reasons in found.items() for reason in reasons]
    if problems:
        raise ValueError("these layers cannot have these paths:\n  " + "\n  ".join(problems))


def _warn_left_alone(sites: Sequence[Site]) -> None:
    reasons = [f"{len(names)} ({reason})" for reason, names in left_alone(sites).items()]
    if reasons:
        warnings.warn(
            f"of {len(sites)} convolutions, wrap leaves alone {', '.join(reasons)}: only torch's "
            "own classes are known to compute what their weights and options say. symlearn.plan "
            "lists them; layers=... says which to relax",
            stacklevel=3,
        )


def _warn_frozen(sites: Sequence[Site]) -> None:
    frozen = [s.name for s in sites if not any(p.requires_grad for p in s.module.parameters())]
    if frozen:
        warnings.warn(
            f"the convolutions {frozen} are frozen; relaxed layers learn their weights. Leave them "
            "out with layers=... to keep them as they are",
            stacklevel=3,
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the model cannot be copied (copy.deepcopy): {error}") from error


@dataclass
class _Surgeon:
    """Puts relaxed layers and circular pools into a model."""

    model: nn.Module
    image: tuple[int, ...]
    options: Circular | None
    generator: torch.Generator
    init: str
    reference: PhaseReference | None

    def relax_all(self, convs: Sequence[Site], chosen: Mapping[str, tuple[PathSpec, ...]]) -> None:
        """Replace the chosen convolutions by sums of paths, the others by a circular convolution.

        Raises:
            ValueError: If no path can hold the weights of a layer; all such layers are named.
        """
        stuck: dict[tuple[str, ...], list[str]] = {}
        for conv in convs:
            relaxed = conv.name in chosen
            layer = self._layer(conv, chosen.get(conv.name, (Conv(),)))
            if relaxed and self.init == "fresh":
                layer.reset_parameters(self.generator)
            elif not _adopt(layer, conv.module, self.generator):
                stuck.setdefault(tuple(layer.paths), []).append(conv.name)
            if not relaxed:
                _keep_frozen(layer, conv.module)
            replace_module(self.model, conv.module, layer)
        if stuck:
            lines = [
                f"none of the paths {list(paths)} can hold the pretrained weights of {names}"
                for paths, names in stuck.items()
            ]
            raise ValueError(
                f"{'; '.join(lines)}; add 'conv' (or 'fc' with boundary='keep'), give "
                "'sconv' more anchors or a fit_tolerance, or pass init='fresh'"
            )

    def _layer(self, site: Site, specs: Sequence[PathSpec]) -> RelaxedLayer:
        conv, geometry = site.module, site.geometry
        if self.options is not None:
            geometry = geometry.as_circular(site.out_size)
        layer = RelaxedLayer(geometry, specs, conv.bias is not None)
        layer.to(conv.get_parameter("weight"))
        if self.options is not None:
            layer.align = self._align(geometry)
        return layer.train(conv.training)

    def _align(self, geometry: Geometry) -> Align:
        passed = tuple(w // s for w, s in zip(self.image, geometry.in_size, strict=True))
        over = geometry.group is not None
        over_group = (over and not geometry.lifts, over)
        return Align(geometry.stride, passed, self.reference, over_group)

    def replace_pools(self, pools: Sequence[Site]) -> None:
        """Put pools on each sample's own grid."""
        for pool in pools:
            replace_module(self.model, pool.module, circular_pool(pool, self.reference, self.image))


def _adopt(layer: RelaxedLayer, conv: nn.Module, generator: torch.Generator) -> bool:
    """Put a convolution's weights into a strict path, or else the first that can hold them."""
    order = sorted(layer.named_paths().values(), key=lambda path: -path.strictness)
    held = False
    for path in order:
        if not held and path.adopt(conv):
            held = True
        else:
            path.start_at_zero(generator)
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias.copy_(conv.get_parameter("bias"))
    return held


def _keep_frozen(layer: RelaxedLayer, conv: nn.Module) -> None:
    layer.path("conv").requires_grad_(conv.get_parameter("weight").requires_grad)
    if layer.bias is not None:
        layer.bias.requires_grad_(conv.get_parameter("bias").requires_grad)


def _check_runs(model: nn.Module, example: Tensor) -> None:
    """Check that the relaxed model runs, and calls every relaxed layer."""
    if example.is_meta:  # where each image is cannot be known without its values
        return
    try:
        counts = count_calls(model, relaxed_layers(model), example)
    except Exception as error:
        reader = getattr(error, "obj", None)
        read = [f"{name}: " for name, m in relaxed_layers(model).items() if m is reader]
        raise ValueError(
            "the relaxed model does not run on the example (leave out with layers=... what other "
            f"code reads): {''.join(read)}{error}"
        ) from error
    idle = [name for name, count in counts.items() if not count]
    if idle:
        raise ValueError(
            f"the model holds on to the convolutions {idle} outside of its submodules (a list or "
            "dict of layers?), so that they cannot be replaced; leave them out with layers=..."
        )
