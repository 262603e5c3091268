"""Subsampling that is exactly equivariant to circular shifts, and still trains.

A stride-2 layer keeps one of several sampling grids. If the grid is fixed, a shifted image is seen
on another grid and equivariance is lost; if every sample chooses its own grid by a rule that moves
with the image, equivariance is exact. The rule here reads the position q of the image once, at the
network's input (`symlearn.position`), so that all layers and all paths agree: a layer of stride s
after a total stride of m samples the grid ``(q // m) mod s``. Shifting the image by t adds t to q,
and shifts the map after the layer by the difference of ``q // (m s)``.

Choosing the component of largest norm instead (Chaman and Dokmanic 2021; the paper's App. F.2) is
exact too, but spreads each class over many misaligned grids, and generalises worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.geometry import wrap_pad
from symlearn.position import centroid, locate

PHASES = ("centroid", "polyphase")


@dataclass(frozen=True)
class Circular:
    """Options of ``wrap(boundary=...)`` for strictly shift-equivariant networks.

    Attributes:
        phase: "centroid" (one decision at the network's input) or "polyphase" (each layer picks
            the component of largest l-infinity norm, as in the paper).
        dither: Half-width in pixels of the uniform noise added to the position while training.

    Raises:
        ValueError: For an unknown phase rule or a dither outside [0, 0.5].
    """

    phase: str = "centroid"
    dither: float = 0.25

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"unknown phase rule {self.phase!r}; choose one of {list(PHASES)}")
        number = isinstance(self.dither, (int, float)) and not isinstance(self.dither, bool)
        if not (number and 0 <= self.dither <= 0.5):
            raise ValueError(f"dither is {self.dither!r}; give a number of pixels in [0, 0.5]")


class PhaseReference(nn.Module):
    """The integer position of each image of the current batch, decided at the network's input.

    The network's root calls `decide` before each forward pass and `forget` after it; `Align`
    modules read it in between.

    Args:
        size: Spatial size of the network's input.
        dither: See `Circular`.
    """

    offset: Tensor
    calibrated: Tensor

    def __init__(self, size: tuple[int, ...], dither: float) -> None:
        super().__init__()
        self.size, self.dither = size, dither
        # one half puts images centred on a pixel in the middle of theirs
        self.register_buffer("offset", torch.full((len(size),), 0.5, dtype=torch.float64))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self._position: Tensor | None = None

    def attach(self, root: nn.Module) -> None:
        """Let a network decide the grid before each of its forward passes."""
        root.register_forward_pre_hook(self.decide, with_kwargs=True)
        root.register_forward_hook(self.forget, always_call=True)

    def calibrate(self, x: Tensor) -> None:
        """Put the mean position of the images in the middle of a pixel, far from decision edges.

        Args:
            x: Images of the training set, [N, C, *size].
        """
        where, defined = centroid(x)
        turns = torch.polar(defined.to(where), 2 * math.pi * where).sum(0)
        mean = torch.where(turns.abs() > 0, turns.angle() / (2 * math.pi), 0.0)
        self.offset.copy_(0.5 - mean)
        self.calibrated.fill_(True)

    def decide(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the network's root.

        Raises:
            ValueError: If the images have another size than the network was wrapped for.
        """
        x = args[0] if args else next(iter(kwargs.values()))
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"the network was wrapped for images of size {list(self.size)}, got "
                f"{list(x.shape[2:])}; wrap it again with an example of this size"
            )
        offset = self.offset.to(x.device, torch.float64)
        if self.training and self.dither:
            noise = torch.rand(len(x), len(self.size), dtype=torch.float64, device=x.device)
            offset = offset + (2 * noise - 1) * self.dither
        self._position = locate(x.detach(), offset)

    def forget(self, root: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Forward hook of the network's root."""
        self._position = None

    def phase(self, passed: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Grid of a layer, [N, axes]: ``(position // passed) mod stride``.

        Raises:
            RuntimeError: If called outside a forward pass of the wrapped network.
        """
        if self._position is None:
            raise RuntimeError(
                "the sampling grid is decided at the network's input; call the wrapped network, "
                "not one of its parts"
            )
        done, steps = (torch.tensor(v, device=self._position.device) for v in (passed, stride))
        return self._position // done % steps


def roll_each(x: Tensor, phase: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Roll every sample [C, *size] by ``-phase`` of its own; phases are below the strides."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    for axis, step in enumerate(stride):
        for bit in range((step - 1).bit_length()):
            mine = (phase[:, axis] >> bit & 1).bool().reshape(shape)
            x = torch.where(mine, x.roll(-(1 << bit), axis + 2), x)
    return x


def loudest_phase(y: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Phase [N, axes] of the polyphase component of ``y [N, C, *size]`` with largest max-norm.

    Equal norms are common (flat areas, binary images); the first in memory would not move with the
    map, so of equal components the one next after the map's position is taken.
    """
    y = y.detach()
    shape: list[int] = [len(y), y.shape[1]]
    for size, step in zip(y.shape[2:], stride, strict=True):
        shape += [size // step, step]
    kept = [0, *range(3, len(shape), 2)]
    others = [axis for axis in range(len(shape)) if axis not in kept]
    norms = y.abs().reshape(shape).amax(others).flatten(1)
    tied = norms >= norms.amax(1, keepdim=True) * (1 - torch.finfo(y.dtype).eps ** 0.5)
    grids = torch.cartesian_prod(*[torch.arange(s, device=y.device) for s in stride])
    grids = grids.reshape(-1, len(stride))
    steps = torch.tensor(stride, device=y.device)
    later = (grids - locate(y)[:, None]) % steps  # [N, grids, axes]
    rank = later[..., 0]
    for axis in range(1, len(stride)):
        rank = rank * stride[axis] + later[..., axis]
    return grids[torch.where(tied, rank, math.prod(stride)).argmin(1)]


class Align(nn.Module):
    """Roll each sample so that the plain strided operation after it samples the sample's grid.

    Args:
        stride: Stride of the operation per axis.
        passed: Total stride before it per axis; empty if that differs between calls and is to be
            read off the input's size (a pool used at several places).
        reference: The network's phase reference, or None to choose the loudest component here.
    """

    def __init__(
        self, stride: tuple[int, ...], passed: tuple[int, ...], reference: PhaseReference | None
    ) -> None:
        super().__init__()
        self.stride, self.passed, self.reference = stride, passed, reference

    def forward(self, x: Tensor, dense: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Aligned input [N, C, *size].

        Args:
            x: Input of the operation, [N, C, *size].
            dense: The operation at stride one, whose components are compared where there is no
                reference; the identity by default.
        """
        if all(step == 1 for step in self.stride):
            return x
        if self.reference is None:
            phase = loudest_phase(x if dense is None else dense(x), self.stride)
        else:
            sizes = zip(self.reference.size, x.shape[2:], strict=True)
            passed = self.passed or tuple(whole // mine for whole, mine in sizes)
            phase = self.reference.phase(passed, self.stride)
        return roll_each(x, phase, self.stride)


class CircularPool(nn.Module):
    """A pooling layer on the sample's own grid, with windows that wrap around.

    Args:
        pool: Pooling module without padding.
        align: Chooses the grid.
        pads: Circular padding, as `torch.nn.functional.pad` takes it.
    """

    def __init__(self, pool: nn.Module, align: Align, pads: list[int]) -> None:
        super().__init__()
        self.pool, self.align, self.pads = pool, align, pads

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *size] to [N, C, *size/stride]."""
        out: Tensor = self.pool(wrap_pad(self.align(x), self.pads))
        return out
