"""Subsampling that is exactly equivariant to circular shifts, and still trains.

A stride-2 layer keeps one of several sampling grids. If the grid is fixed, a shifted image is seen
on another grid and equivariance is lost; if every sample chooses its own grid by a rule that moves
with the image, equivariance is exact. The rule here reads the position of the image's energy from
its lowest spatial frequency, once, at the network's input, so that all layers and all paths agree:

    e   = sum over channels of (x - mean x)^2           energy
    z_k = sum_i e_i exp(2 pi i k i / H)                 k-th harmonic of its marginal on one axis
    c   = H / (2 pi k) arg z_k                          position, with k = 1 unless z_1 vanishes
    q   = floor(c + offset)                             integer position: shifts by t add t to q

A layer of stride s after a total stride of m samples the grid ``(q // m) mod s``. Choosing the
component of largest norm instead (Chaman and Dokmanic 2021; the paper's App. F.2) is exact too, but
spreads each class over many misaligned grids, and generalises worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_VANISHES = 1e-6
_POWERS = (1, 2, 3)
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
        if not 0 <= self.dither <= 0.5:
            raise ValueError(f"dither is {self.dither}; give a number of pixels in [0, 0.5]")


def position(x: Tensor) -> Tensor:
    """Position of the image's energy on each spatial axis, in pixels, [N, axes] (float64).

    Where the first harmonic vanishes (two equal objects half a period apart, periodic textures)
    powers of the energy and higher harmonics are tried in turn; a constant image has position 0.

    Args:
        x: Images [N, C, *size].
    """
    x = x.double()
    axes = tuple(range(2, x.ndim))
    energy = (x - x.mean(axes, keepdim=True)).square().sum(1)
    energy = energy / energy.amax(tuple(range(1, energy.ndim)), keepdim=True).clamp(min=1e-300)
    return torch.stack([_axis_position(energy, a) for a in range(1, energy.ndim)], dim=1)


def _axis_position(energy: Tensor, axis: int) -> Tensor:
    size = energy.shape[axis]
    others = tuple(a for a in range(1, energy.ndim) if a != axis)
    index = torch.arange(size, dtype=energy.dtype, device=energy.device)
    result = torch.zeros(len(energy), dtype=energy.dtype, device=energy.device)
    settled = torch.zeros(len(energy), dtype=torch.bool, device=energy.device)
    for k in (2**j for j in range(max(1, int(math.log2(size))))):
        angle = 2 * math.pi * k * index / size
        for power in _POWERS:
            marginal = energy**power
            marginal = marginal.sum(others) if others else marginal
            real, imag = (marginal * angle.cos()).sum(1), (marginal * angle.sin()).sum(1)
            present = torch.hypot(real, imag) > _VANISHES * marginal.sum(1)
            here = torch.atan2(imag, real) * size / (2 * math.pi * k)
            result = torch.where(present & ~settled, here, result)
            settled = settled | present
    return result


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
        self.register_buffer("offset", torch.zeros(len(size), dtype=torch.float64))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self._position: Tensor | None = None

    def calibrate(self, x: Tensor) -> None:
        """Put the mean position of the images in the middle of a pixel, far from decision edges.

        Args:
            x: Images of the training set, [N, C, *size].
        """
        angle = 2 * math.pi * position(x)
        mean = torch.atan2(angle.sin().mean(0), angle.cos().mean(0)) / (2 * math.pi)
        self.offset.copy_(0.5 - mean)
        self.calibrated.fill_(True)

    def decide(self, root: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Forward pre-hook of the network's root.

        Raises:
            ValueError: If the images have another size than the network was wrapped for.
        """
        x = args[0]
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"the network was wrapped for images of size {list(self.size)}, got "
                f"{list(x.shape[2:])}; wrap it again with an example of this size"
            )
        where = position(x.detach()) + self.offset.to(x.device)
        if self.training and self.dither:
            where = where + (2 * torch.rand_like(where) - 1) * self.dither
        size = torch.tensor(self.size, device=x.device)
        self._position = where.floor().long() % size

    def forget(self, root: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
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
        here = self._position
        return here // here.new_tensor(passed) % here.new_tensor(stride)


def roll_each(x: Tensor, phase: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Roll every sample [C, *size] by ``-phase`` of its own; phases are below the strides."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    for axis, step in enumerate(stride):
        out = x
        for p in range(1, step):
            mine = (phase[:, axis] == p).reshape(shape)
            out = torch.where(mine, x.roll(-p, axis + 2), out)
        x = out
    return x


def loudest_phase(y: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Phase [N, axes] of the polyphase component of ``y [N, C, *size]`` with largest max-norm."""
    shape: list[int] = [len(y), y.shape[1]]
    for size, step in zip(y.shape[2:], stride, strict=True):
        shape += [size // step, step]
    kept = [0, *range(3, len(shape), 2)]
    others = [axis for axis in range(len(shape)) if axis not in kept]
    norms = y.detach().abs().reshape(shape).amax(others)
    best = norms.flatten(1).argmax(1)
    phases = []
    for step in reversed(stride):
        phases.append(best % step)
        best = best // step
    return torch.stack(phases[::-1], dim=1)


class Align(nn.Module):
    """Roll each sample so that the plain strided operation after it samples the sample's grid.

    Args:
        stride: Stride of the operation per axis.
        passed: Total stride before it per axis.
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
        if self.reference is not None:
            phase = self.reference.phase(self.passed, self.stride)
        else:
            phase = loudest_phase(x if dense is None else dense(x), self.stride)
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
        x = self.align(x)
        if any(self.pads):
            x = nn.functional.pad(x, self.pads, mode="circular")
        out: Tensor = self.pool(x)
        return out
