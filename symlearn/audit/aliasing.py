"""The Lie derivative of downsampling along translations, in closed form (Theorem 4.1).

Keeping every s-th site sends the Fourier mode n to ``Alias(n)``: a wave that the coarse grid cannot
show moves by the wrong amount. Frequencies are in cycles per map. Index letters: (n, m) modes of
the fine grid, (n', m') of the coarse grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from symlearn.audit.resample import frequencies


def _modes(x: Tensor, step: int) -> tuple[Tensor, list[Tensor]]:
    """Fourier series [..., H, W] scaled so that sums over the coarse sites obey Parseval's law.

    Also ``Alias(n) - n`` along both axes, [H, 1] and [W].
    """
    if x.shape[-2] % step or x.shape[-1] % step or step < 1:
        raise ValueError(
            f"a step of {step} does not divide maps of size {list(x.shape[-2:])}; keep every s-th "
            "site with s a divisor of the size"
        )
    coarse = [n // step for n in x.shape[-2:]]
    series = torch.fft.fft2(x.double()) / (x.shape[-2] * x.shape[-1])
    differences = []
    for n, small in zip(x.shape[-2:], coarse, strict=True):
        here = torch.arange(n, device=x.device)
        differences.append(frequencies(small, x.device)[here % small] - frequencies(n, x.device))
    return series * (coarse[0] * coarse[1]) ** 0.5, [differences[0].unsqueeze(1), differences[1]]


def aliasing_error(x: Tensor, step: int, velocity: tuple[float, float]) -> Tensor:
    """``||L_v(A)(h)||^2`` of downsampling maps, summed over the coarse sites, [...].

        (2 pi)^2 sum_{n'm'} | sum_{(n,m) -> (n',m')} (v_x (n' - n) + v_y (m' - m)) H_nm |^2

    This is the line before A.13 of Gruver et al. (2023), in two dimensions, and holds for all maps.
    Theorem 4.1 and A.13 take each mode by itself. They agree with it where no two modes that move
    wrongly fall on the same coarse mode, and no mode moves wrongly along both axes. For step 2 this
    holds for translation along one axis of content that is band-limited along the other and has no
    waves at exactly half the coarse sampling rate, which fall together.

    Args:
        x: Maps [..., H, W].
        step: Every step-th site is kept.
        velocity: Translation (x, y), in widths and heights.

    Raises:
        ValueError: If the step does not divide the size.
    """
    series, (down, right) = _modes(x, step)
    weighted = series * (velocity[0] * right + velocity[1] * down)
    height, width = (n // step for n in x.shape[-2:])
    folded = weighted.unflatten(-1, (step, width)).unflatten(-3, (step, height)).sum((-4, -2))
    out: Tensor = (2 * torch.pi) ** 2 * folded.abs().square().sum((-2, -1))
    return out
