"""Factored fully-connected: two spatial maps per pair of channels (paper, Eq. 5).

    y[c', x'] = sum_c theta1[c', c, x'] sum_x theta2[c', c, x] x[c, x]

Both halves are block-linear, so their Kronecker factors have one small block per channel; the
product is unchanged under ``theta1 -> s theta1, theta2 -> theta2 / s``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symlearn.blocklinear import BlockLinear
from symlearn.geometry import Geometry
from symlearn.paths.base import Path, PathSpec, he_std, normal_

_STEPS = 12
_HIDDEN_COPIES = 3  # copies of the hidden values in a training step, if the samples come first
_TINY = 1e-30


class FFCPath(Path):
    """Reads maps with ``theta2 [C', C, S]`` and writes maps with ``theta1 [C', C, S']``."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        c_out, c_in = geometry.out_channels, geometry.in_channels
        s_out, s_in = geometry.out_sites, geometry.in_sites
        # Between the two maps the channels change places. With the samples last that needs no copy
        # of the C C' hidden values, but of the C' S' outputs and the C S gradients of the inputs.
        last = _HIDDEN_COPIES * c_out * c_in > c_out * s_out + c_in * s_in
        self.theta1 = BlockLinear((c_out, c_in, s_out), (0, 2, 1), samples_last=last)
        self.theta2 = BlockLinear((c_out, c_in, s_in), (1, 0, 2), samples_last=last)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        hidden = self.theta2(x.flatten(2))
        out: Tensor = self.theta1(hidden.transpose(1, 2))
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def _product_std(self) -> float:
        return he_std(self.geometry.in_channels * self.geometry.in_sites)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Both factors Gaussian, with a product of He's size."""
        for factor in (self.theta1, self.theta2):
            normal_(factor.weight, self._product_std() ** 0.5, generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """``theta2 = 0`` and random ``theta1``: no contribution, but not a saddle.

        The first gradient reaches ``theta2`` only; once that has moved, ``theta1`` too.
        """
        normal_(self.theta1.weight, self._product_std() ** 0.5, generator)
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
        leading left singular vector is found without building the ``C' C S' S`` numbers of it.
        """
        x, g = x.flatten(2), g.flatten(2)
        # as many output channels at once as keep the search below [N, C', C] or [C', C, S] numbers
        most = g.shape[1] * max(len(x), x.shape[2], g.shape[2]) // (_STEPS * g.shape[2])
        parts = g.split(max(1, most), dim=1)
        with torch.no_grad():
            self.theta1.weight.copy_(torch.cat([_leading_outputs(x, part) for part in parts]))
            self.theta2.weight.zero_()

    def seed(self, descent: Tensor, size: float) -> None:
        """Scale ``theta1`` and set ``theta2`` along the descent direction, balanced in norm."""
        with torch.no_grad():
            total = size * self._product_std()
            sites = self.geometry.in_sites * self.geometry.out_sites
            scale = (total * sites**0.5) ** 0.5
            self.theta1.weight.mul_(scale)
            self.theta2.weight.copy_(_unit(descent) * scale)


def _leading_outputs(x: Tensor, g: Tensor) -> Tensor:
    """Unit left singular vector of ``M = sum_n g[n, d] x[n, c]^T`` with the largest value.

    Lanczos' method on ``M M^T`` for all channel pairs at once: exact in as many steps as M has
    rank, and otherwise close to the best in its ``_STEPS`` steps.

    Args:
        x: Inputs [N, C, S].
        g: Gradients [N, C', S'].

    Returns:
        Vectors [C', C, S']; a fixed unit vector where M is zero.
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
    """Orthonormal basis [K, C', C, S'] of ``start, A start, A^2 start, ...`` and A times it."""
    basis, images = start.unsqueeze(0), apply(start).unsqueeze(0)
    for _ in range(steps - 1):
        new = _unit(images[-1])
        for _ in range(2):  # once leaves rounding errors along the basis, twice is enough
            new = _unit(new - torch.einsum("kdcy,kdc->dcy", basis, _dot(basis, new)))
        basis = torch.cat([basis, new.unsqueeze(0)])
        images = torch.cat([images, apply(new).unsqueeze(0)])
    return basis, images


def _dot(basis: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("kdcy,dcy->kdc", basis, v)


def _unit(v: Tensor) -> Tensor:
    """Vectors along the last axis at norm one; zero stays zero."""
    return F.normalize(v, dim=-1, eps=_TINY)


@dataclass(frozen=True)
class FFC(PathSpec):
    """Spec of the factored fully-connected path ``"ffc"``."""

    name: ClassVar[str] = "ffc"

    def build(self, geometry: Geometry) -> FFCPath:
        """Make the path for one layer."""
        return FFCPath(geometry)

    def n_params(self, geometry: Geometry) -> int:
        """``C' C (S + S')`` weights."""
        pairs = geometry.out_channels * geometry.in_channels
        return pairs * (geometry.in_sites + geometry.out_sites)

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per input channel (theta2) and per output channel (theta1)."""
        c_in, c_out = geometry.in_channels, geometry.out_channels
        theta2 = c_in * (geometry.in_sites**2 + c_out**2)
        return theta2 + c_out * (geometry.out_sites**2 + c_in**2)
