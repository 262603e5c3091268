"""Learned structure to a plain module: layers keep the paths that are on, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.paths import ConvPath
from symlearn.relaxed import RelaxedLayer, relaxed_layers, replace_module
from symlearn.subsample import Align


class PathSum(nn.Module):
    """The sum of a layer's surviving paths and its bias.

    Args:
        layer: The relaxed layer.
    """

    def __init__(self, layer: RelaxedLayer) -> None:
        super().__init__()
        on = [path for path in layer.named_paths().values() if path.enabled]
        self.aligned = nn.ModuleList(path for path in on if path.reads_aligned)
        self.unaligned = nn.ModuleList(path for path in on if not path.reads_aligned)
        self.align: Align | None = layer.align
        self.bias = layer.bias
        self.out_shape = (layer.geometry.out_channels, *layer.geometry.out_size)
        self._dense = next((p.dense for p in on if isinstance(p, ConvPath)), None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out = x.new_zeros(len(x), *self.out_shape)
        for path in self.unaligned:
            out = out + path(x)
        if len(self.aligned):
            grid = x if self.align is None else self.align(x, self._dense)
            for path in self.aligned:
                out = out + path(grid)
        if self.bias is not None:
            out = out + self.bias.reshape(-1, *[1] * (out.ndim - 2))
        return out


def collapse(model: nn.Module) -> nn.Module:
    """Replace relaxed layers by what survived in them; the given model is left alone.

    A layer in which only the convolution is on becomes a plain convolution with the layer's bias
    (of a circular layer: a `PathSum` that keeps the sampling grid). Other layers become a
    `PathSum` of the paths that are on.

    Args:
        model: A relaxed network.

    Returns:
        A network with the same outputs and without the paths that are off.

    Raises:
        ValueError: If the model has no relaxed layer.
    """
    if not relaxed_layers(model):
        raise ValueError("the model has no relaxed layer to collapse")
    plain = copy.deepcopy(model)
    for layer in relaxed_layers(plain).values():
        replacement = _plain_conv(layer) or PathSum(layer)
        if layer is plain:
            return replacement
        replace_module(plain, layer, replacement)
    if hasattr(plain, "symlearn_wrap"):
        del plain.symlearn_wrap
    return plain


def _plain_conv(layer: RelaxedLayer) -> nn.Module | None:
    """The layer as one convolution with bias, where that is all it is."""
    on = [path for path in layer.named_paths().values() if path.enabled]
    if len(on) != 1 or not isinstance(on[0], ConvPath) or layer.geometry.circular:
        return None
    old: Any = on[0].conv
    conv: nn.Module = type(old)(
        old.in_channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        dilation=old.dilation,
        groups=old.groups,
        padding_mode=old.padding_mode,
        bias=layer.bias is not None,
    ).to(old.weight)
    with torch.no_grad():
        conv.weight.copy_(old.weight)  # type: ignore[operator]
        if layer.bias is not None:
            conv.bias.copy_(layer.bias)  # type: ignore[operator]
    return conv.train(layer.training)
