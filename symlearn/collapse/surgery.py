"""Cutting channels out of single modules: convolutions, matrices, factored maps, norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.collapse.modules import CircularConv, ConstantMap, FactoredMap
from symlearn.observe import CONV_TYPES

# Module class -> its weights, outputs on the first axis and inputs on the second.
_WEIGHTS: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(CONV_TYPES, ("weight",)),
    nn.Linear: ("weight",),
    FactoredMap: ("read", "write"),
    CircularConv: ("conv.weight",),
    ConstantMap: (),
}
PRODUCERS = tuple(_WEIGHTS)
"""Classes whose output channels can be cut."""


def _tensors(module: nn.Module) -> list[Tensor]:
    return [module.get_parameter(name).detach() for name in _WEIGHTS[type(module)]]


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    old = module.get_submodule(owner)
    grad = old.get_parameter(leaf).requires_grad if old._parameters[leaf] is not None else True
    setattr(old, leaf, nn.Parameter(value.contiguous(), requires_grad=grad))


def outputs_of(module: Any) -> int:
    """Number of output channels."""
    if isinstance(module, CircularConv):
        return module.geometry.out_channels
    if isinstance(module, (ConstantMap, FactoredMap)):
        return module.out_shape[0]
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def zero_channels(module: Any) -> tuple[Tensor, Tensor]:
    """Which output channels are constant, for all their weights are zero, and the biases [C']."""
    n = outputs_of(module)
    product = None
    for weight in _tensors(module):
        # of a factored map a pair of channels is zero if either factor is
        size = weight.abs().reshape(n, weight.shape[1], -1).amax(2) > 0
        product = size if product is None else product & size
    bias = module.bias
    values = torch.zeros(n) if bias is None else bias.detach()
    zero = torch.ones(n, dtype=torch.bool) if product is None else ~product.any(1)
    return zero.to(values.device), values


def cut_outputs(module: Any, keep: Tensor) -> None:
    """Keep some output channels, bool [C']."""
    for name, weight in zip(_WEIGHTS[type(module)], _tensors(module), strict=True):
        _put(module, name, weight[keep.to(weight.device)])
    if module.bias is not None:
        _put(module, "bias", module.bias.detach()[keep.to(module.bias.device)])
    _count(module, "out", int(keep.sum()))


def cut_inputs(module: Any, keep: Tensor, values: Tensor) -> None:
    """Keep some input channels, bool [C], and fold the constants [C] of the others into the bias.

    A matrix may read several sites of each channel, one after the other.
    """
    if isinstance(module, ConstantMap):
        return
    sites = module.in_features // len(keep) if isinstance(module, nn.Linear) else 1
    keep, values = keep.repeat_interleave(sites), values.repeat_interleave(sites)
    constants = torch.where(keep, 0.0, values)
    for name, weight in zip(_WEIGHTS[type(module)], _tensors(module), strict=True):
        if bool(constants.any()):
            share = weight.double().flatten(2).sum(2) if weight.ndim > 2 else weight.double()
            _add_to_bias(module, share @ constants.to(share))
        _put(module, name, weight[:, keep.to(weight.device)])
    _count(module, "in", int(keep.sum()))


def cut_channels(norm: Any, keep: Tensor) -> None:
    """Keep some channels of a batch normalisation, bool [C]."""
    for name in ("weight", "bias"):
        if norm._parameters[name] is not None:
            _put(norm, name, norm.get_parameter(name).detach()[keep.to(norm.running_mean.device)])
    for name in ("running_mean", "running_var"):
        buffer = norm.get_buffer(name)
        setattr(norm, name, buffer[keep.to(buffer.device)])
    norm.num_features = int(keep.sum())


def _add_to_bias(module: Any, change: Tensor) -> None:
    old = 0.0 if module.bias is None else module.bias.detach().double()
    like = next(module.parameters())
    _put(module, "bias", (old + change).to(like))


def _count(module: Any, side: str, n: int) -> None:
    """Correct the numbers of channels that a module states."""
    if isinstance(module, CircularConv):
        change: dict[str, Any] = {f"{side}_channels": n}
        module.geometry = replace(module.geometry, **change)
        module = module.conv
    if isinstance(module, (ConstantMap, FactoredMap)):
        setattr(module, f"{side}_shape", (n, *getattr(module, f"{side}_shape")[1:]))
        return
    unit = "features" if isinstance(module, nn.Linear) else "channels"
    setattr(module, f"{side}_{unit}", n)
