"""What factored paths share: two maps per pair of channels, one that reads and one that writes.

    y[c', .] = sum_c theta1[c', c, .] <theta2[c', c, .], x[c, .]>

Both halves are block-linear, so their Kronecker factors have one small block per channel; the
product is unchanged under ``theta1 -> s theta1, theta2 -> theta2 / s``. Index letters: ``D`` and
``D'`` coordinates of an input and an output map (sites, or basis functions), ``|G|`` order of a
group.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symlearn.blocklinear import BlockLinear
from symlearn.geometry import Geometry
from symlearn.groups.grid import named
from symlearn.paths.base import Path, he_std, normal_

_STEPS = 12
_HIDDEN_COPIES = 3  # copies of the hidden values in a training step, if the samples come first
_TINY = 1e-30
_GENUINE = 0.5  # of the norm of a vector that has been made orthogonal once: the rest is rounding


def orders(geometry: Geometry, over_group: bool) -> tuple[int, int]:
    """Number of group elements that share a channel in a layer's input and output, 1 without."""
    if not over_group or geometry.group is None:
        return 1, 1
    order = named(geometry.group).order
    return 1 if geometry.lifts else order, order


def no_group(geometry: Geometry, over_group: bool) -> list[str]:
    """Why a layer cannot be relaxed over its group, one sentence; none if it can."""
    if not over_group or geometry.group is not None:
        return []
    return ["it is not over a group; call symlearn.lift(model, group) before wrap"]


class Factors:
    """Shapes of a factored path.

    Args:
        geometry: Shapes of the layer.
        reads: Coordinates D of an input map, per channel and group element.
        writes: Coordinates D' of an output map, per channel and group element.
        over_group: Whether elements of the layer's group are coordinates, like sites (paper,
            App. A), instead of channels.
    """

    def __init__(self, geometry: Geometry, reads: int, writes: int, over_group: bool) -> None:
        self.orders = orders(geometry, over_group)
        self.c_in = geometry.in_channels // self.orders[0]
        self.c_out = geometry.out_channels // self.orders[1]
        self.d_in, self.d_out = reads * self.orders[0], writes * self.orders[1]

    @property
    def n_params(self) -> int:
        """``C' C (D + D')`` weights."""
        return self.c_out * self.c_in * (self.d_in + self.d_out)

    @property
    def factor_elements(self) -> int:
        """One pair of factors per input channel (theta2) and per output channel (theta1)."""
        theta2 = self.c_in * (self.d_in**2 + self.c_out**2)
        return theta2 + self.c_out * (self.d_out**2 + self.c_in**2)


class FactoredPath(Path):
    """Reads coordinates with ``theta2 [C', C, D]`` and writes them with ``theta1 [C', C, D']``.

    Subclasses state the coordinates: `read`, `write` and its adjoint `pull`.

    Args:
        geometry: Shapes of the layer.
        shapes: Shapes of the factors.
    """

    def __init__(self, geometry: Geometry, shapes: Factors) -> None:
        super().__init__(geometry)
        c_out, c_in, d_out, d_in = shapes.c_out, shapes.c_in, shapes.d_out, shapes.d_in
        # Between the two maps the channels change places. With the samples last that needs no copy
        # of the C C' hidden values, but of the C' D' outputs and the C D gradients of the inputs.
        last = _HIDDEN_COPIES * c_out * c_in > c_out * d_out + c_in * d_in
        self.theta1 = BlockLinear((c_out, c_in, d_out), (0, 2, 1), samples_last=last)
        self.theta2 = BlockLinear((c_out, c_in, d_in), (1, 0, 2), samples_last=last)

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """Coordinates [N, C, D] of the input."""

    @abstractmethod
    def write(self, z: Tensor) -> Tensor:
        """Output maps of coordinates [N, C', D']."""

    @abstractmethod
    def pull(self, g: Tensor) -> Tensor:
        """Adjoint of `write`: coordinates [N, C', D'] of gradients at the output."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        hidden = self.theta2(self.read(x))
        return self.write(self.theta1(hidden.transpose(1, 2)))

    def maps(self) -> tuple[Tensor, Tensor]:
        """Values of the writing maps [C', C, |G| S'] and of the reading maps [C', C, |G| S]."""
        return self.theta1.weight, self.theta2.weight

    def _product_std(self) -> float:
        """Size of a product of two maps' values that is He's."""
        return he_std(self.theta2.weight[0].numel())

    def _draw(self, factor: BlockLinear, generator: torch.Generator) -> None:
        normal_(factor.weight, self._product_std() ** 0.5, generator)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Both factors Gaussian, with a product of He's size."""
        for factor in (self.theta1, self.theta2):
            self._draw(factor, generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """``theta2 = 0`` and random ``theta1``: no contribution, but not a saddle.

        The first gradient reaches ``theta2`` only; once that has moved, ``theta1`` too.
        """
        self._draw(self.theta1, generator)
        nn.init.zeros_(self.theta2.weight)

    def tested(self) -> Tensor:
        """The reading maps ``theta2``, given writing maps ``theta1``."""
        return self.theta2.weight

    def needs_direction(self) -> bool:
        """At ``theta1 = theta2 = 0`` all gradients vanish, so a direction must be found."""
        return True

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Set ``theta1`` to the best rank-one output map of each channel pair, ``theta2`` to zero.

        The gradient of a full map between channels c and c' is ``sum_n g[n, c'] x[n, c]^T``; its
        leading left singular vector is found without building the ``C C' D' D`` numbers of it.
        """
        with torch.no_grad():
            x, g = self.read(x), self.pull(g)
            # as many output channels at once as keep the search below [N, C', C] or [C', C, D]
            most = g.shape[1] * max(len(x), x.shape[2], g.shape[2]) // (_STEPS * g.shape[2])
            parts = g.split(max(1, most), dim=1)
            self.theta1.weight.copy_(torch.cat([_leading_outputs(x, part) for part in parts]))
            self.theta2.weight.zero_()

    def seed(self, descent: Tensor, size: float) -> None:
        """Scale ``theta1`` and set ``theta2`` along the descent direction.

        For each pair of channels the product of the two maps has a fraction of the initial size,
        and they are balanced in norm. It is the maps that count: functions of neighbouring anchors
        add up in a descent, which is smooth.
        """
        with torch.no_grad():
            self.theta2.weight.copy_(_unit(descent))
            maps = self.maps()
            factors = (self.theta1, self.theta2)
            numbers = math.prod(factor.weight.shape[2] for factor in factors)
            total = size * self._product_std() * numbers**0.5
            for factor, values in zip(factors, maps, strict=True):
                norm = values.norm(dim=-1, keepdim=True).clamp(min=_TINY)
                factor.weight.mul_(total**0.5 / norm)


def _leading_outputs(x: Tensor, g: Tensor) -> Tensor:
    """Unit left singular vector of ``M = sum_n g[n, d] x[n, c]^T`` with the largest value.

    Lanczos' method on ``M M^T`` for all channel pairs at once: exact in as many steps as M has
    rank, and otherwise close to the best in its ``_STEPS`` steps.

    Args:
        x: Coordinates of inputs [N, C, D].
        g: Coordinates of gradients [N, C', D'].

    Returns:
        Vectors [C', C, D']; a fixed unit vector where M is zero.
    """
    # a channel's scale does not change its singular vectors, and squares must not underflow
    x = x / x.abs().amax((0, 2), keepdim=True).clamp(min=_TINY)
    g = g / g.abs().amax((0, 2), keepdim=True).clamp(min=_TINY)

    def apply(u: Tensor) -> Tensor:
        v = torch.einsum("ncx,ndc->dcx", x, torch.einsum("ndy,dcy->ndc", g, u))
        return torch.einsum("ndy,ndc->dcy", g, torch.einsum("ncx,dcx->ndc", x, v))

    # quadratic phases: not orthogonal to anything in particular, and the same on every machine
    start = torch.arange(1.0, g.shape[2] + 1, dtype=torch.float64).square().cos()
    start = start.to(g).expand(g.shape[1], x.shape[1], -1)
    steps = min(_STEPS, g.shape[2], x.shape[2], len(x))
    basis, images = _krylov(apply, _unit(apply(start)), steps)
    # Rayleigh-Ritz: the best vector in the span of the basis
    small = torch.einsum("kdcy,ldcy->dckl", basis, images)
    small = small / small.abs().amax((2, 3), keepdim=True).clamp(min=_TINY)
    weights = torch.linalg.eigh((small + small.mT) / 2).eigenvectors[..., -1]
    u = _unit(torch.einsum("dck,kdcy->dcy", weights, basis))
    return torch.where(u.any(2, keepdim=True), u, _unit(start))


def _krylov(apply: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Orthonormal basis [K, C', C, D'] of ``start, A start, A^2 start, ...`` and A times it.

    Where these span fewer than K dimensions, the rest of the basis is zero.
    """
    basis, images = start.unsqueeze(0), apply(start).unsqueeze(0)
    for _ in range(steps - 1):
        new = _unit(images[-1])
        new = _unit(new - torch.einsum("kdcy,kdc->dcy", basis, _dot(basis, new)))
        # once leaves rounding errors along the basis; twice is enough, or nothing else was there
        new = new - torch.einsum("kdcy,kdc->dcy", basis, _dot(basis, new))
        new = torch.where(new.norm(dim=-1, keepdim=True) > _GENUINE, _unit(new), 0)
        basis = torch.cat([basis, new.unsqueeze(0)])
        images = torch.cat([images, apply(new).unsqueeze(0)])
    return basis, images


def _dot(basis: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("kdcy,dcy->kdc", basis, v)


def _unit(v: Tensor) -> Tensor:
    """Vectors along the last axis at norm one; zero stays zero."""
    return F.normalize(v, dim=-1, eps=_TINY)
