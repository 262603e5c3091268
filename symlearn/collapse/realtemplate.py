"""The template rule without complex numbers, for exporters that know none.

Fourier transforms along an axis are products with matrices of cosines and sines, and a complex map
is a pair of real ones. The poses are those of `symlearn.template`, up to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from symlearn.geometry import Sizes
from symlearn.pose import Pose, best_pose
from symlearn.position import Rule, fixed_pattern
from symlearn.template import Template

_Pair = tuple[Tensor, Tensor]


class Correlator(nn.Module):
    """Cross-correlation of images with fixed patterns at all shifts, in float64.

    Args:
        patterns: K patterns [K, C, *kept], given at the lowest frequencies of the images.
        size: Spatial size of the images; ``kept`` is odd on an axis where it is smaller.
        scale: Factor on the result.
    """

    spectrum_real: Tensor
    spectrum_imag: Tensor

    def __init__(self, patterns: Tensor, size: Sizes, scale: float) -> None:
        super().__init__()
        self.axes = len(size)
        kept = tuple(patterns.shape[2:])
        for axis, (n, k) in enumerate(zip(size, kept, strict=True)):
            frequencies = torch.arange(k, dtype=torch.float64) - (k // 2 if k < n else 0)
            angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies * 2 * math.pi / n
            self.register_buffer(f"cos{axis}", angles.cos())
            self.register_buffer(f"sin{axis}", angles.sin())
        found = torch.fft.fftn(patterns.double(), dim=tuple(range(2, patterns.ndim)))
        for axis, (n, k) in enumerate(zip(size, kept, strict=True), 2):
            if k < n:
                found = torch.fft.fftshift(found, dim=axis)
        self.register_buffer("spectrum_real", found.real * scale)
        self.register_buffer("spectrum_imag", found.imag * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Correlations [M, K, *size] of images [M, C, *size], summed over channels."""
        pair: _Pair = (x.unsqueeze(1), torch.zeros_like(x).unsqueeze(1))
        for axis in range(self.axes):
            pair = self._turned(pair, axis, -1.0)
        (a, b), (c, d) = pair, (self.spectrum_real, self.spectrum_imag)
        pair = ((a * c + b * d).sum(2), (b * c - a * d).sum(2))  # times the conjugate
        for axis in range(self.axes):
            pair = self._turned(pair, axis, 1.0)
        return pair[0]

    def _turned(self, pair: _Pair, axis: int, sign: float) -> _Pair:
        """Fourier transform along one axis: forward for sign -1, back (unscaled) for sign 1."""
        cos, sin = self.get_buffer(f"cos{axis}"), sign * self.get_buffer(f"sin{axis}")
        if sign > 0:
            cos, sin = cos.T, sin.T
        where = axis - self.axes
        real, imag = (part.transpose(where, -1) for part in pair)
        out = (real @ cos - imag @ sin, real @ sin + imag @ cos)
        return out[0].transpose(where, -1), out[1].transpose(where, -1)


class RealTemplate(Rule):
    """A calibrated `Template` without complex numbers.

    Args:
        rule: The template.
    """

    sizes: Tensor
    weights: Tensor

    def __init__(self, rule: Template) -> None:
        super().__init__()
        patterns = torch.cat([rule.linear[None], rule.squared]).double()
        sites = math.prod(rule.size) * math.prod(patterns.shape[2:])
        self.likelihood = Correlator(patterns, rule.size, sites**-0.5)
        pattern = fixed_pattern(rule.size)[None, None]
        self.second = Correlator(pattern, rule.size, 1 / math.prod(rule.size))
        sizes = torch.stack([patterns[0].norm(), patterns[1:].square().sum()])
        self.register_buffer("sizes", sizes)
        weights = torch.linspace(1, 2, patterns.shape[1], dtype=torch.float64)
        self.register_buffer("weights", weights.reshape(-1, *[1] * len(rule.size)))
        self.to(rule.linear.device)

    def calibrate(self, x: Tensor) -> None:
        """Not here: the template was calibrated."""
        raise RuntimeError("a rule for export is fixed; calibrate the template it was made of")

    def locate(self, views: Tensor) -> Pose:
        """Pose of largest likelihood; see `Template.locate`."""
        x = views.flatten(0, 1).double()
        centred = x - x.mean(tuple(range(2, x.ndim)), keepdim=True)
        found = self.likelihood(centred)
        score = found[:, 0] + found[:, 1:].square().sum(1)
        second = self.second((centred * self.weights).sum(1, keepdim=True))[:, 0]
        square = x.flatten(1).square().sum(1)
        bound = square.sqrt() * self.sizes[0] + square * self.sizes[1]
        tolerance = (bound * torch.finfo(x.dtype).eps ** 0.5).reshape(-1, views.shape[1]).amax(1)
        shape = (-1, views.shape[1], *views.shape[3:])
        return best_pose(score.reshape(shape), second.reshape(shape), tolerance)
