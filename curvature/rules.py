"""The Kronecker rule and its registry.

A rule states how a module's weight acts: at every shared position ``r`` and for every block ``b``,
``out[n, r, b, :] = W[b] @ in[n, r, b, :]``, so that the Jacobian of sample n is a sum of outer
products, ``J_n[b] = sum_r a[n, r, b] (x) g[n, r, b]`` (paper, Sec. 5 and App. C). Everything else
about curvature is written once for W.

Index letters: ``N`` samples, ``R`` shared positions, ``B`` blocks, ``I`` inputs, ``O`` outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvature.blocks import Layout
from curvature.gram import gram, patch_gram

RuleClass = TypeVar("RuleClass", bound=type)


class Rule:
    """How one module's weight acts; the base class states a matrix product over the last axis.

    Subclasses override what differs, and `curvature.testing.assert_rule` checks what they state. A
    rule object is made for one module and lives for one pass.

    Args:
        module: The module the rule speaks for.
    """

    weight: str | None = "weight"
    """Name of the parameter with blocks [B, O, I], or None when there is only a bias."""
    bias: str | None = "bias"
    """Name of the parameter added once per output and position, or None."""
    others: Mapping[str, str] = MappingProxyType({})
    """Further parameters by name: "dense", "diagonal", or "fixed" for hyperparameters."""
    restricted: bool = False
    """Whether the weight holds coefficients of blocks ``Q beta``, columns of Q orthonormal; then
    `to_blocks` is Q, `from_blocks` its transpose, and there is no bias."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    def inputs(self, module: Any, x: Tensor) -> Tensor:
        """The vectors the weight multiplies, [N, R, B, I], from the module's input."""
        return x.reshape(len(x), -1, 1, x.shape[-1])

    def input_gram(self, module: Any, x: Tensor) -> Tensor:
        """``sum_{n, r} a a^T`` [B, I, I] of `inputs`; override it where there is a shorter way."""
        return gram(self.inputs(module, x))

    def grads(self, module: Any, g: Tensor) -> Tensor:
        """Gradients of the weight's products, [N, R, B, O], from the module output's gradient."""
        return g.reshape(len(g), -1, 1, g.shape[-1])

    def to_blocks(self, weight: Tensor) -> Tensor:
        """The stored weight as [B, O, I]; must only rearrange elements, if not `restricted`."""
        return weight.reshape(1, len(weight), -1)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """Inverse of `to_blocks`; the default inverts it numerically as a permutation."""
        shape = self._parameter(self.weight).shape
        index = torch.arange(shape.numel(), device=blocks.device).reshape(shape)
        flat = torch.empty_like(blocks.reshape(-1))
        flat[self.to_blocks(index).reshape(-1)] = blocks.reshape(-1)
        return flat.reshape(shape)

    def _parameter(self, name: str | None) -> Tensor:
        if name is None:
            raise TypeError(f"the rule of {type(self.module).__name__} declares no weight")
        parameter: Tensor = getattr(self.module, name)
        return parameter

    def weight_layout(self) -> Layout:
        """The weight's arrangement as blocks."""
        return Layout(self._parameter(self.weight).shape, self.to_blocks, self.from_blocks)

    def bias_layout(self, blocks: int) -> Layout:
        """The bias' arrangement: a weight whose only input is the constant one, [B, O, 1]."""
        shape = self._parameter(self.bias).shape
        return Layout(shape, lambda w: w.reshape(blocks, -1, 1), lambda w: w.reshape(shape))


_RULES: dict[type[nn.Module], type[Rule]] = {}


def register_rule(*modules: type[nn.Module]) -> Callable[[RuleClass], RuleClass]:
    """Class decorator that registers a rule for module classes (exact class, not subclasses).

    A subclass may change what its parent computes, so it is not covered unless registered too.
    A class that does not derive from `Rule` is given the defaults of `Rule` for what it leaves out.

    Args:
        *modules: Module classes the rule speaks for.

    Raises:
        TypeError: If an argument is not a module class, or the rule is restricted and has a bias.

    Example:
        >>> import torch, curvature
        >>> class Scale(torch.nn.Module):  # y = W x along the last axis, stored transposed
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.randn(3, 2))
        ...     def forward(self, x):
        ...         return x @ self.weight
        >>> @curvature.register_rule(Scale)
        ... class ScaleRule(curvature.Rule):
        ...     bias = None
        ...     def to_blocks(self, weight):
        ...         return weight.T.unsqueeze(0)
        >>> data = (torch.randn(5, 3), torch.randn(5, 2))
        >>> curvature.kronecker(Scale(), data, "gaussian")["weight"].to_dense().shape
        torch.Size([6, 6])
    """
    for module in modules:
        if not (isinstance(module, type) and issubclass(module, nn.Module)):
            raise TypeError(f"register_rule takes module classes, got {module!r}")

    def register(rule: RuleClass) -> RuleClass:
        full: Any = rule if issubclass(rule, Rule) else type(rule.__name__, (rule, Rule), {})
        if full.restricted and full.bias is not None:
            raise TypeError(f"{rule.__name__} is restricted: set bias = None, list it in others")
        for module in modules:
            _RULES[module] = full
        return rule

    return register


def rule_for(module: nn.Module) -> Rule | None:
    """The rule object for a module, or None when none is registered for what it computes.

    The class must match exactly, and a forward method replaced on the object itself counts as
    another class.
    """
    rule = None if "forward" in vars(module) else _RULES.get(type(module))
    return None if rule is None else rule(module)


@register_rule(nn.Linear)
class LinearRule(Rule):
    """``y = x W^T + b`` along the last axis; leading axes after the first are shared positions."""


class ConvRule(Rule):
    """Convolution of any stride, padding mode, dilation and groups: patches times filters.

    Blocks are the groups, positions the output sites (Grosse and Martens 2016).
    """

    def inputs(self, module: Any, x: Tensor) -> Tensor:
        """Patches [N, sites, groups, channels per group * kernel size]."""
        patches = unfold(module, x)
        n, c, dims = len(x), x.shape[1], x.ndim - 2
        sites, window = math.prod(patches.shape[2 : 2 + dims]), math.prod(module.kernel_size)
        grouped = patches.reshape(n, module.groups, c // module.groups, sites, window)
        return grouped.permute(0, 3, 1, 2, 4).flatten(3)

    def grads(self, module: Any, g: Tensor) -> Tensor:
        """Output gradients [N, sites, groups, channels per group]."""
        grouped = g.reshape(len(g), module.groups, g.shape[1] // module.groups, -1)
        return grouped.permute(0, 3, 1, 2)

    def to_blocks(self, weight: Tensor) -> Tensor:
        """[C', C/g, *S] as [g, C'/g, C/g * S]; already contiguous in this order."""
        groups: int = self.module.groups
        return weight.reshape(groups, len(weight) // groups, -1)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """Inverse of `to_blocks`."""
        return blocks.reshape(self._parameter(self.weight).shape)


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class _StockConvRule(ConvRule):
    """The rule of torch's own convolutions.

    Not part of `ConvRule`: a subclass that changes `inputs` would inherit sums of other patches.
    """

    def input_gram(self, module: Any, x: Tensor) -> Tensor:
        """Sums over patches that share rows, where enough windows slide; see `patch_gram`."""
        maps, (k, s, d) = pad(module, x), (module.kernel_size, module.stride, module.dilation)
        windows = (maps.shape[2] - d[0] * (k[0] - 1) - 1) // s[0] + 1
        if k[0] == 1 or windows <= 2:
            return super().input_gram(module, x)
        return patch_gram(maps, k, s, d, module.groups)


def same_padding(kernel: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after one axis that torch's ``padding="same"`` adds."""
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


def conv_pads(conv: Any) -> list[tuple[int, int]]:
    """Padding (before, after) of each spatial axis of a convolution."""
    if conv.padding == "valid":
        return [(0, 0)] * len(conv.kernel_size)
    if conv.padding == "same":
        return [same_padding(k, d) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return [(p, p) for p in conv.padding]


def pad(conv: Any, x: Tensor) -> Tensor:
    """A convolution's input [N, C, *sizes], padded as the convolution pads it.

    The stock curvature libraries build patches with zeros whatever ``padding_mode`` says.

    Raises:
        ValueError: If the input has no batch axis.
    """
    if x.ndim != len(conv.kernel_size) + 2:
        raise ValueError(
            f"a {type(conv).__name__} was called on {list(x.shape)}; its curvature needs a batch "
            "axis: [N, C, *sizes]"
        )
    pads = conv_pads(conv)
    flat = [p for pad in reversed(pads) for p in pad]
    if any(flat):
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = F.pad(x, flat, mode=mode)
    return x


def unfold(conv: Any, x: Tensor) -> Tensor:
    """Patches [N, C, *sites, *kernel] of a convolution's input; see `pad`."""
    x = pad(conv, x)
    geometry = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(geometry, start=2):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x
