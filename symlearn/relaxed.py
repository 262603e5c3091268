"""A relaxed layer: a sum of paths plus a bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import curvature
from symlearn.geometry import Geometry
from symlearn.paths import ConvPath, Path, PathSpec
from symlearn.subsample import Align


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

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw fresh weights for all paths, and a zero bias."""
        for path in self.named_paths().values():
            path.reset_parameters(generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def aligned(self, x: Tensor) -> Tensor:
        """The input on the sampling grid of each sample."""
        if self.align is None:
            return x
        on = (path for path in self.paths.values() if isinstance(path, ConvPath) and path.enabled)
        out: Tensor = self.align(x, next((path.dense for path in on), None))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        accepted = (self.geometry.in_channels, *self.geometry.in_size)
        if tuple(x.shape[1:]) != accepted:
            raise ValueError(
                f"this layer was wrapped for inputs of shape [N, {', '.join(map(str, accepted))}], "
                f"got {list(x.shape)}; wrap the model again with an example of this size"
            )
        on = [path for path in self.named_paths().values() if path.enabled]
        aligned = self.aligned(x) if any(path.reads_aligned for path in on) else x
        terms = [path(aligned if path.reads_aligned else x) for path in on]
        size = (len(x), self.geometry.out_channels, *self.geometry.out_size)
        out = terms[0] if terms else x.new_zeros(size)
        for term in terms[1:]:
            out = out + term
        if self.bias is not None:
            out = out + self.bias.reshape(-1, *[1] * len(self.geometry.out_size))
        return out


@curvature.register_rule(RelaxedLayer)
class RelaxedBiasRule(curvature.Rule):
    """The layer's own parameter is its bias; its paths have rules of their own."""

    weight = None

    def grads(self, module: nn.Module, g: Tensor) -> Tensor:
        """[N, C', *out] as [N, sites, 1, C']."""
        return g.flatten(2).transpose(1, 2).unsqueeze(2)


def relaxed_layers(model: nn.Module) -> dict[str, RelaxedLayer]:
    """Qualified name to relaxed layer, in the model's order."""
    return {n: m for n, m in model.named_modules() if isinstance(m, RelaxedLayer)}


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a submodule wherever the model refers to it."""
    for parent in model.modules():
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = new
