"""A relaxed layer: a sum of paths plus a bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
from curvature.checking import check_module
from symlearn.geometry import Geometry, wrap_pad
from symlearn.paths import Path, PathSpec
from symlearn.subsample import Align

_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class RelaxedLayer(nn.Module):
    """``forward(x) = sum_p path_p(x) + bias`` (paper, Eq. 4, for any list of paths).

    Args:
        geometry: Shapes of the layer.
        specs: The paths.
        bias: Whether there is one bias per output channel.
        align: Chooses the sampling grid of a circular layer, or None.

    Attributes:
        paths: ``nn.ModuleDict``, path name to path.
        bias: Bias [C'] or None.

    Raises:
        ValueError: On an input whose size is not the one the layer was made for.
    """

    def __init__(
        self,
        geometry: Geometry,
        specs: Sequence[PathSpec],
        bias: bool = True,
        align: Align | None = None,
    ) -> None:
        super().__init__()
        self.geometry, self.specs = geometry, tuple(specs)
        self.paths = nn.ModuleDict({spec.name: spec.build(geometry) for spec in specs})
        self.bias = nn.Parameter(torch.zeros(geometry.out_channels)) if bias else None
        self.align = align

    def path(self, name: str) -> Path:
        """The path of a name.

        Raises:
            KeyError: If the layer has no such path; the message lists its paths.
        """
        if name not in self.paths:
            raise KeyError(f"no path {name!r} in this layer; it has {list(self.paths)}")
        path = self.paths[name]
        if not isinstance(path, Path):
            raise TypeError(f"{name!r} is a {type(path).__name__}, not a Path")
        return path

    def named_paths(self) -> dict[str, Path]:
        """Path name to path, in order."""
        return {name: self.path(name) for name in self.paths}

    def reset_parameters(self, generator: torch.Generator, absent: Collection[str] = ()) -> None:
        """Draw fresh weights for all paths, and a zero bias.

        The variance of the output does not grow with the number of paths (paper, App. B).

        Args:
            generator: Draws the weights.
            absent: Names of paths that start without a contribution.
        """
        present = len(self.paths) - len(absent)
        for name, path in self.named_paths().items():
            if name in absent:
                path.start_at_zero(generator)
            else:
                path.reset_parameters(generator)
                path.scale(present**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        accepted = (self.geometry.in_channels, *self.geometry.in_size)
        if tuple(x.shape[1:]) != accepted:
            raise ValueError(
                f"this layer was wrapped for inputs of shape [N, {', '.join(map(str, accepted))}], "
                f"got {list(x.shape)}; wrap the model again with an example of this size"
            )
        on = [path for path in self.named_paths().values() if path.enabled]
        size = (len(x), self.geometry.out_channels, *self.geometry.out_size)
        out = sum_paths(x, on, self.align) if on else x.new_zeros(size)
        if self.bias is not None:
            out = out + self.bias.reshape(-1, *[1] * len(self.geometry.out_size))
        return out


def sum_paths(x: Tensor, paths: Sequence[Path], align: Align | None) -> Tensor:
    """Sum of one or more paths of a layer, the strict ones on the sampling grid of each sample.

    Args:
        x: Input of the layer, [N, C, *in].
        paths: The paths.
        align: Chooses the grid, or None.
    """
    strict = [path for path in paths if path.reads_aligned]
    terms: list[Tensor] = []
    # The sum has the memory layout of its first term. That of the convolution comes first: a
    # dropout behind it draws in the order of memory, and so masks what it masked before `wrap`.
    if align is None:
        terms += [path(x) for path in strict]
    elif strict:
        aligned = align(x, partial(dense_map, strict))
        terms.append(align.restore(_total([path(aligned) for path in strict])))
    terms += [path(x) for path in paths if not path.reads_aligned]
    return _total(terms)


def _total(terms: Sequence[Tensor]) -> Tensor:
    out = terms[0]
    for term in terms[1:]:
        out = out + term
    return out


def dense_map(paths: Sequence[Path], x: Tensor) -> Tensor:
    """What strict paths compute at stride one: all sampling grids at once.

    Args:
        paths: Paths of one layer; those that are no convolution are left out.
        x: Input of the layer, [N, C, *in].

    Returns:
        The map [N, C', *in], or x if none of the paths is a convolution.
    """
    filters = [f for path in paths if (f := path.filters()) is not None]
    if not filters:
        return x
    geo = paths[0].geometry.at_stride_one()
    out: Tensor = _CONVOLVE[len(geo.in_size)](
        wrap_pad(x, geo.circular_pads()), _total(filters), dilation=geo.dilation, groups=geo.groups
    )
    return out


@curvature.register_rule(RelaxedLayer)
class RelaxedBiasRule(curvature.Rule):
    """The layer's own parameter is its bias; its paths have rules of their own."""

    weight = None

    def grads(self, module: nn.Module, g: Tensor) -> Tensor:
        """[N, C', *out] as [N, sites, 1, C']."""
        return g.flatten(2).transpose(1, 2).unsqueeze(2)


def relaxed_layers(model: nn.Module) -> dict[str, RelaxedLayer]:
    """Qualified name to relaxed layer, in the model's order.

    Raises:
        TypeError: If the model is not a module.
    """
    check_module(model)
    return {n: m for n, m in model.named_modules() if isinstance(m, RelaxedLayer)}


def enabled_paths(model: nn.Module) -> dict[str, list[str]]:
    """Names of the paths that are switched on, by relaxed layer."""
    return {
        name: [key for key, path in layer.named_paths().items() if path.enabled]
        for name, layer in relaxed_layers(model).items()
    }


def check_layers(model: nn.Module, saved: Mapping[str, Collection[str]]) -> None:
    """Check that a model has the relaxed layers of a saved one, and paths of these names.

    Args:
        model: The model.
        saved: `enabled_paths` of the saved one.

    Raises:
        ValueError: If names or order of the layers differ, or a path is missing.
    """
    layers, theirs = relaxed_layers(model), list(saved)
    if list(layers) != theirs:
        raise ValueError(f"the model has relaxed layers {list(layers)}, the saved one {theirs}")
    for name, layer in layers.items():
        unknown = sorted(set(saved[name]) - set(layer.paths))
        if unknown:
            raise ValueError(
                f"layer {name!r} has no paths {unknown}; its paths are {list(layer.paths)}"
            )


def enable_paths(model: nn.Module, enabled: Mapping[str, Collection[str]]) -> None:
    """Switch on the named paths of each relaxed layer and switch off, to zero, all others."""
    for name, layer in relaxed_layers(model).items():
        for key, path in layer.named_paths().items():
            if key not in enabled[name]:
                path.switch_off()
            elif not path.enabled:  # one that is on may be frozen, and stays so
                path.switch_on()


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a submodule wherever the model refers to it."""
    for parent in list(model.modules()):  # the new module may hold the old one
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = new
