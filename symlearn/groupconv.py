"""The primitive of group convolutions: one filter that every group element turns, and its rule.

Features over a group G are maps [N, C |G|, H, W] with channel index ``c |G| + g``. Index letters:
``c``, ``c'`` channels, ``g``, ``h`` group elements, ``u`` window positions about the centre,
``x`` sites, ``B`` channel groups, ``J`` numbers of a filter per channel pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
from curvature.gram import patch_gram
from curvature.rules import ConvRule, pad
from symlearn.geometry import Geometry
from symlearn.groups.grid import named
from symlearn.groups.windows import turned_taps


@dataclass(frozen=True)
class GroupFilter:
    """Shape of a group convolution's weight.

    Args:
        geometry: The convolution over the ``C |G|`` and ``C' |G|`` channels; its `group` is set.
        pointwise: Whether an output at g reads its input at g only (paper, App. F.3).
        bias: Whether there is one bias per channel, shared over the group.
    """

    geometry: Geometry
    pointwise: bool = False
    bias: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """[C', C/B, F, *window] with F = |G|, or 1 where there is no sum over the group."""
        geo, order = self.geometry, named(self.geometry.group or "").order
        channels = geo.in_channels // geo.groups // (1 if geo.lifts else order)
        reach = 1 if self.pointwise or geo.lifts else order
        return (geo.out_channels // order, channels, reach, *geo.kernel_size)

    @property
    def fan_in(self) -> int:
        """Weights that meet in one output."""
        return math.prod(self.shape[1:])

    @property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return self.shape[0] * (self.fan_in + self.bias)

    @property
    def factor_elements(self) -> int:
        """Numbers in the Kronecker factors: one pair per channel group, for weight and bias."""
        blocks, outputs = self.geometry.groups, (self.shape[0] // self.geometry.groups) ** 2
        return blocks * (self.fan_in**2 + outputs + self.bias * (1 + outputs))


class GroupConv2d(nn.Module):
    """Convolution over shifts and a finite group (Cohen and Welling 2016; paper, App. A).

        y[c', g', x] = sum_{c, h, u} W[c', c, h, u] f[c, g' h, x + g' u]

    The group fastest among the channels; pointwise, h is the identity only. Where the input is not
    over the group (lifting) it is ``f[c, x + g' u]``, without h. Boundaries, stride, dilation and
    channel groups are as in torch; a circular layer is given padded maps.

    Args:
        filter: Shape of the weight, and the layer.
    """

    taps: Tensor
    source: Tensor

    def __init__(self, filter: GroupFilter) -> None:
        super().__init__()
        geo = filter.geometry
        self.group, self.kernel_size = named(geo.group or ""), geo.kernel_size
        self.stride, self.dilation, self.groups = geo.stride, geo.dilation, geo.groups
        options = geo.window_options()
        self.padding, self.padding_mode = options["padding"], options["padding_mode"]
        self.weight = nn.Parameter(torch.zeros(filter.shape))
        self.bias = nn.Parameter(torch.zeros(filter.shape[0])) if filter.bias else None
        # the number of the dense filter that each weight is, for outputs at each g': [|G|, J]
        taps = turned_taps(self.group, geo.kernel_size)
        if not geo.lifts:
            table = self.group.table[:, : filter.shape[2]]  # column 0: g' e = g'
            taps = (table[:, :, None] * taps.shape[1] + taps[:, None, :]).flatten(1)
        # and the other way round: the weight that each number is, J where it is none
        size = geo.in_channels // geo.groups // filter.shape[1] * math.prod(geo.kernel_size)
        numbers = torch.arange(taps.shape[1], device="cpu")
        source = taps.new_full((self.group.order, size), len(numbers))
        source.scatter_(1, taps, numbers.expand_as(taps))
        self.register_buffer("taps", taps.to(self.weight.device), persistent=False)
        self.register_buffer("source", source.to(self.weight.device), persistent=False)

    def dense(self) -> Tensor:
        """The filters [C' |G|, C |G| / B, *window] of the convolution that this is."""
        c_out, c_in = self.weight.shape[:2]
        flat = F.pad(self.weight.reshape(c_out, c_in, -1), (0, 1))
        order, size = self.source.shape
        turned = flat.index_select(2, self.source.flatten()).reshape(c_out, c_in, order, size)
        rows = turned.transpose(1, 2).reshape(c_out * order, -1)
        return rows.reshape(c_out * order, -1, *self.kernel_size)

    def project(self, dense: Tensor) -> Tensor:
        """The weight whose `dense` filters are nearest to given ones."""
        c_out, c_in = self.weight.shape[:2]
        rows = dense.reshape(c_out, self.group.order, c_in, -1)
        turned = [rows[:, g, :, taps] for g, taps in enumerate(self.taps)]
        return torch.stack(turned).mean(0).reshape(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C |G|, *in] to [N, C' |G|, *out]."""
        bias = None if self.bias is None else self.bias.repeat_interleave(self.group.order)
        return F.conv2d(
            pad(self, x),
            self.dense(),
            bias,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


@curvature.register_rule(GroupConv2d)
class GroupConvRule(ConvRule):
    """Every site and every group element is a position, where the filter meets a turned patch."""

    def inputs(self, module: Any, x: Tensor) -> Tensor:
        """Turned patches [N, sites * |G|, B, C/B * J]."""
        patches: Tensor = super().inputs(module, x).unflatten(3, (-1, module.source.shape[1]))
        turned = patches[..., module.taps]  # [N, sites, B, C/B, |G|, J]
        return turned.permute(0, 1, 4, 2, 3, 5).flatten(4).flatten(1, 2)

    def input_gram(self, module: Any, x: Tensor) -> Tensor:
        """The dense convolution's sums over patches, read once per group element."""
        window = (module.kernel_size, module.stride, module.dilation, module.groups)
        size = module.source.shape[1]
        dense = patch_gram(pad(module, x), *window).unflatten(2, (-1, size))
        dense = dense.unflatten(1, (-1, size))  # [B, C/B, size, C/B, size]
        turned = [dense[:, :, taps][..., taps] for taps in module.taps]
        return torch.stack(turned).sum(0).flatten(3).flatten(1, 2)

    def grads(self, module: Any, g: Tensor) -> Tensor:
        """Output gradients [N, sites * |G|, B, C'/B]."""
        split = g.reshape(len(g), module.groups, -1, module.group.order, g[0, 0].numel())
        return split.permute(0, 4, 3, 1, 2).flatten(1, 2)
