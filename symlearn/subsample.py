"""Subsampling that is exactly equivariant to circular shifts, and still trains.

A stride-2 layer keeps one of several sampling grids. If the grid is fixed, a shifted image is seen
on another grid and equivariance is lost; if every sample chooses its own grid by a rule that moves
with the image, equivariance is exact. The rules here read the position q of the image once, at the
network's input (`symlearn.template`, `symlearn.position`), so that all layers and paths agree: a
layer of stride s after a total stride of m samples the grid ``(q // m) mod s``. Shifting the image
by t adds t to q, and shifts the map after the layer by the difference of ``q // (m s)``.

Choosing the component of largest norm instead (Chaman and Dokmanic 2021; the paper's App. F.2) is
exact too, but spreads each class over many misaligned grids, and generalises worse. Which of equal
components is taken does not turn with the map, so that it is not equivariant to rotations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.geometry import wrap_pad
from symlearn.groups.grid import GridGroup, named
from symlearn.pose import Pose, roll_each, turn_each, views
from symlearn.position import Centroid, Rule, locate
from symlearn.template import Template

PHASES = ("template", "centroid", "polyphase")


@dataclass(frozen=True)
class Circular:
    """Options of ``wrap(boundary=...)`` for strictly shift-equivariant networks.

    Attributes:
        phase: How the sampling grid of an image is chosen. "template" and "centroid" decide once,
            at the network's input: where the image is most likely under a model of the training
            images (`symlearn.template`), or its centre of energy (`symlearn.position`). With
            "polyphase" each layer picks its component of largest l-infinity norm, as in the paper.
        dither: How much positions vary while training, so that the network learns the grids next
            to the chosen one: half-width in pixels of the uniform noise added to centroids, or the
            probability that a template's position moves by one pixel, on each axis.
        group: A finite group of the grid, or its name, to whose action the network is equivariant
            too; only "template" decides the orientation of an image.

    Raises:
        ValueError: For an unknown phase rule or group, a dither outside [0, 0.5], or a group with a
            rule that cannot be equivariant to it.
    """

    phase: str = "template"
    dither: float = 0.25
    group: str | GridGroup | None = None

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"unknown phase rule {self.phase!r}; choose one of {list(PHASES)}")
        number = isinstance(self.dither, (int, float)) and not isinstance(self.dither, bool)
        if not (number and 0 <= self.dither <= 0.5):
            raise ValueError(f"dither is {self.dither!r}; give a number of pixels in [0, 0.5]")
        if self.grid_group is not None and self.phase != "template":
            raise ValueError(
                f"phase={self.phase!r} does not see how an image is turned, so that it is not "
                f"equivariant to group {self.grid_group.name!r}; choose phase='template'"
            )

    @property
    def grid_group(self) -> GridGroup | None:
        """The group, or None if there is only the identity."""
        group = None if self.group is None else named(self.group)
        return None if group is None or group.order == 1 else group

    def rule(self, size: tuple[int, ...], channels: int) -> Rule | None:
        """The rule that reads poses off images [N, channels, *size]; None if each layer decides."""
        if self.phase == "template":
            return Template(size, channels, self.dither)
        return Centroid(len(size), self.dither) if self.phase == "centroid" else None


class PhaseReference(nn.Module):
    """The pose of each image of the current batch, decided at the network's input.

    The network's root calls `decide` before each forward pass and `forget` after it; `Align`
    modules read it in between.

    Args:
        size: Spatial size of the network's input.
        channels: Channels of the network's input.
        options: The rule and the group.

    Raises:
        ValueError: If the rule is one that decides in each layer.
    """

    calibrated: Tensor

    def __init__(self, size: tuple[int, ...], channels: int, options: Circular) -> None:
        super().__init__()
        rule = options.rule(size, channels)
        if rule is None:
            raise ValueError(f"phase={options.phase!r} has no decision at the network's input")
        self.size, self.channels, self.options = size, channels, options
        self.group, self.rule = options.grid_group, rule
        if self.group is not None:
            self.group.check_size(size)
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))
        self._pose: Pose | None = None

    def attach(self, root: nn.Module) -> None:
        """Let a network decide the grid before each of its forward passes."""
        root.register_forward_pre_hook(self.decide, with_kwargs=True)
        root.register_forward_hook(self.forget, always_call=True)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Adapt the rule to images of the training set, once before training.

        Args:
            x: Images, [N, C, *size].
        """
        self.rule.calibrate(x)
        self.calibrated.fill_(True)

    @torch.no_grad()
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
        self._pose = self.rule.locate(views(x.detach(), self.group))

    def forget(self, root: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Forward hook of the network's root."""
        self._pose = None

    @property
    def pose(self) -> Pose:
        """Poses of the images of the forward pass under way.

        Raises:
            RuntimeError: If called outside a forward pass of the wrapped network.
        """
        if self._pose is None:
            raise RuntimeError(
                "the sampling grid is decided at the network's input; call the wrapped network, "
                "not one of its parts"
            )
        return self._pose

    def phase(self, passed: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Grid of a layer in the canonical frame, [N, axes]: ``(shift // passed) mod stride``."""
        shift = self.pose.shift
        done, steps = (torch.tensor(v, device=shift.device) for v in (passed, stride))
        return shift // done % steps

    def turned_back(self, x: Tensor, over_group: bool) -> Tensor:
        """Maps [N, C, *size] in the canonical orientation of each image."""
        if self.group is None:
            return x
        inverse = self.group.inverse.to(x.device)[self.pose.element]
        return turn_each(x, inverse, self.group, over_group)

    def turned(self, x: Tensor, over_group: bool) -> Tensor:
        """Maps [N, C, *size] of the canonical orientation as the image itself has them."""
        if self.group is None:
            return x
        return turn_each(x, self.pose.element, self.group, over_group)


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
    """Move each sample so that the plain strided operation after it samples the sample's grid.

    With a group the operation sees the sample in its canonical orientation, and `restore` turns the
    result as the sample was. Grids of stride two turn into other grids where maps are even; in the
    canonical frame there is only one.

    Args:
        stride: Stride of the operation per axis.
        passed: Total stride before it per axis; empty if that differs between calls and is to be
            read off the input's size (a pool used at several places).
        reference: The network's phase reference, or None to choose the loudest component here.
        over_group: Whether the operation's input, and its output, are features over the group whose
            group axis it mixes; a pool, which treats channels alike, need not say.
    """

    def __init__(
        self,
        stride: tuple[int, ...],
        passed: tuple[int, ...],
        reference: PhaseReference | None,
        over_group: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.stride, self.passed, self.over_group = stride, passed, over_group
        self.reference = None if self.idle else reference

    @property
    def idle(self) -> bool:
        """Whether there is only one grid."""
        return all(step == 1 for step in self.stride)

    def forward(self, x: Tensor, dense: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Aligned input [N, C, *size].

        Args:
            x: Input of the operation, [N, C, *size].
            dense: The operation at stride one, whose components are compared where there is no
                reference; the identity by default.
        """
        if self.idle:
            return x
        if self.reference is None:
            phase = loudest_phase(x if dense is None else dense(x), self.stride)
        else:
            sizes = zip(self.reference.size, x.shape[2:], strict=True)
            passed = self.passed or tuple(whole // mine for whole, mine in sizes)
            phase = self.reference.phase(passed, self.stride)
            x = self.reference.turned_back(x, self.over_group[0])
        return roll_each(x, phase, self.stride)

    def restore(self, out: Tensor) -> Tensor:
        """The operation's output [N, C', *size/stride] in each sample's own orientation."""
        if self.idle or self.reference is None:
            return out
        return self.reference.turned(out, self.over_group[1])


class CircularPool(nn.Module):
    """A pooling layer on the sample's own grid, with windows that wrap around.

    Args:
        pool: Pooling module without padding.
        align: Chooses the grid.
        pads: Circular padding, as `torch.nn.functional.pad` takes it.
    """

    def __init__(self, pool: nn.Module, align: Align, pads: Sequence[int]) -> None:
        super().__init__()
        self.pool, self.align, self.pads = pool, align, tuple(pads)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *size] to [N, C, *size/stride]."""
        return self.align.restore(self.pool(wrap_pad(self.align(x), self.pads)))
