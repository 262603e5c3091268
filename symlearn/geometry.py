"""The geometry of one layer: what a path needs to know about the convolution it stands beside.

Index letters: ``C`` input channels, ``C'`` output channels, ``S`` input sites, ``S'`` output sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

import curvature

Sizes = tuple[int, ...]
CONVS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


@dataclass(frozen=True)
class OverGroup:
    """Mark on a convolution whose output is over a finite group; `symlearn.lift` sets it.

    Attributes:
        group: Name of the group, see `symlearn.groups.named`.
        lifts: Whether the input is plain images or maps, not over the group.
    """

    group: str
    lifts: bool

    def put_on(self, conv: nn.Module) -> None:
        """Mark a convolution."""
        vars(conv)["symlearn_over_group"] = self

    @staticmethod
    def of(conv: nn.Module) -> OverGroup | None:
        """The mark of a convolution, if it has one."""
        found: OverGroup | None = vars(conv).get("symlearn_over_group")
        return found


@dataclass(frozen=True)
class Geometry:
    """Shapes of a layer's input and output, and the window of its convolution.

    Attributes:
        in_channels: C.
        out_channels: C'.
        in_size: Spatial size of the input, one number per axis.
        out_size: Spatial size of the output.
        kernel_size: Window of the convolution per axis.
        stride: Stride per axis.
        padding: Padding per axis, or "same" / "valid".
        dilation: Dilation per axis.
        groups: Channel groups of the convolution.
        padding_mode: As in torch.
        circular: Whether the layer is strictly shift-equivariant: circular boundary on both ends,
            output size ``in_size / stride``, and subsampling on a grid chosen per sample.
        group: Name of the finite group G that the output is over: its channels are ``c |G| + g``.
        lifts: Whether the input is not over that group.
    """

    in_channels: int
    out_channels: int
    in_size: Sizes
    out_size: Sizes
    kernel_size: Sizes
    stride: Sizes
    padding: Sizes | str
    dilation: Sizes
    groups: int = 1
    padding_mode: str = "zeros"
    circular: bool = False
    group: str | None = None
    lifts: bool = False

    @property
    def in_sites(self) -> int:
        """Number of input sites S."""
        return math.prod(self.in_size)

    @property
    def out_sites(self) -> int:
        """Number of output sites S'."""
        return math.prod(self.out_size)

    @property
    def window(self) -> int:
        """Number of filter taps."""
        return math.prod(self.kernel_size)

    @property
    def fan_in(self) -> int:
        """Inputs of one output of the convolution."""
        return self.in_channels // self.groups * self.window

    @classmethod
    def of(cls, conv: Any, in_size: Sizes, out_size: Sizes) -> Geometry:
        """Read the geometry off a convolution and the sizes it saw."""
        over = OverGroup.of(conv)
        return cls(
            conv.in_channels,
            conv.out_channels,
            in_size,
            out_size,
            tuple(conv.kernel_size),
            tuple(conv.stride),
            conv.padding if isinstance(conv.padding, str) else tuple(conv.padding),
            tuple(conv.dilation),
            conv.groups,
            conv.padding_mode,
            group=None if over is None else over.group,
            lifts=over is not None and over.lifts,
        )

    @classmethod
    def of_vectors(cls, inputs: int, outputs: int) -> Geometry:
        """A matrix between vectors [N, C, 1] and [N, C', 1]: one site, a window of one."""
        return cls(inputs, outputs, (1,), (1,), (1,), (1,), (0,), (1,))

    def as_circular(self, out_size: Sizes) -> Geometry:
        """The same window in a strictly shift-equivariant layer."""
        return replace(self, out_size=out_size, circular=True)

    def at_stride_one(self) -> Geometry:
        """The circular layer that computes all sampling grids of this one at once."""
        return replace(self, stride=(1,) * len(self.stride), out_size=self.in_size, circular=True)

    def circular_pads(self) -> list[int]:
        """Circular padding, as `wrap_pad` takes it, that yields ``in_size / stride`` sites.

        The first window starts where the convolution's own padding puts it.
        """
        pads = []
        for axis, (k, s, d) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ):
            span = d * (k - 1)
            own = {"valid": 0, "same": span // 2}
            before = own[self.padding] if isinstance(self.padding, str) else self.padding[axis]
            total = max(0, span + 1 - s)
            pads.append((min(before, total), total - min(before, total)))
        return [p for pad in reversed(pads) for p in pad]

    def window_options(self) -> dict[str, Any]:
        """Options of a convolution of this geometry; unpadded when circular."""
        return {
            "stride": self.stride,
            "padding": (0,) * len(self.kernel_size) if self.circular else self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": "zeros" if self.circular else self.padding_mode,
        }

    def build_conv(self) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        """A convolution of this geometry without bias, all zero; unpadded when circular."""
        make: Any = CONVS[len(self.in_size)]
        # skip_init: drawing weights that are overwritten would move the global random state
        conv: nn.Conv1d | nn.Conv2d | nn.Conv3d = nn.utils.skip_init(
            make,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            **self.window_options(),
            bias=False,
        )
        nn.init.zeros_(conv.weight)
        return conv


def wrap_pad(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Pad circularly, also by more than the map's size (where torch refuses).

    Args:
        x: Maps [N, C, *size].
        pads: Sites before and after each axis, last axis first, as `torch.nn.functional.pad`.
    """
    if not any(pads):
        return x
    sizes = [size for size in reversed(x.shape[2:]) for _ in range(2)]
    if all(p <= size for p, size in zip(pads, sizes, strict=True)):
        return curvature.pad_circular(x, pads)
    for axis, before, after in zip(range(x.ndim - 1, 1, -1), pads[::2], pads[1::2], strict=True):
        size = x.shape[axis]
        left, right = -(-before // size), -(-after // size)
        copies = [left + 1 + right if a == axis else 1 for a in range(x.ndim)]
        x = x.repeat(copies).narrow(axis, left * size - before, before + size + after)
    return x
