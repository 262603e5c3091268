"""Where an image is, by a Gaussian model of the training images: it is where it looks like them.

The model (probabilistic principal components; Tipping and Bishop 1999) has the mean image m, K
leading components u_k with variances l_k, and the residual variance v. An image shifted back by t
has the log likelihood, times v and up to terms that no shift changes,

    s(t) = <x_t, m> + 1/2 sum_k (1 - v/l_k) <x_t - m, u_k>^2        x_t = roll(x, -t)

With g_k = 1 - v/l_k, a = m - sum_k g_k <m, u_k> u_k and b_k = sqrt(g_k/2) u_k this is, up to a
constant, <x_t, a> + sum_k <x_t, b_k>^2: one Fourier transform of the image, and one back for a and
for each b_k, give s at all shifts. The position is the shift of largest s. Shifting an image by t0
shifts s by t0, so that the position moves with every image. The orientation under a finite group is
decided together with it, among all turned views of the image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from symlearn.pose import Pose, best_pose
from symlearn.position import Rule, correlate, fixed_pattern

_RANK = 16
# detail finer than that of so many pixels across says little about where an image is
_FINEST = 32
# images that are enough for a mean and a few components
_IMAGES = 1000
# share of the mean variance that is noise in any case
_FLOOR = 1e-3


class Template(Rule):
    """The shift, and the group element, under which an image is most likely.

    Before `calibrate` the score is the correlation with a fixed blob: positions move with the
    image, but say less about it.

    Args:
        size: Spatial size of the images.
        channels: Their channels C.
        dither: Probability, on each axis, of moving the position by one pixel while training.
    """

    linear: Tensor
    squared: Tensor

    def __init__(self, size: tuple[int, ...], channels: int, dither: float) -> None:
        super().__init__()
        self.size, self.dither = size, dither
        grid = tuple(s if s <= _FINEST else _FINEST - 1 for s in size)
        rank = min(_RANK, channels * math.prod(grid))
        # a and b_k above
        self.register_buffer("linear", _blob(grid, channels))
        self.register_buffer("squared", torch.zeros(rank, channels, *grid))

    def calibrate(self, x: Tensor) -> None:
        """Fit the model to images at the positions they have.

        Args:
            x: Images of the training set, [N, C, *size].
        """
        spectrum = self._spectrum(x[:_IMAGES].double())
        grid, space = self.linear.shape[1:], tuple(range(2, x.ndim))
        low = torch.fft.irfftn(spectrum, s=grid, dim=space, norm="ortho").flatten(1)
        mean = low.mean(0)
        variances, vectors = _principal(low - mean, len(self.squared))
        total = (low - mean).square().sum() / len(low)
        rest = (total - variances.sum()) / max(1, low.shape[1] - len(variances))
        noise = rest.clamp(min=_FLOOR * float(total) / low.shape[1])
        gains = (1 - noise / variances).nan_to_num(0).clamp(min=0)
        linear = mean - (gains * (vectors @ mean)) @ vectors
        self.linear.copy_(linear.reshape(self.linear.shape))
        self.squared.copy_(((gains / 2).sqrt()[:, None] * vectors).reshape(self.squared.shape))

    def locate(self, views: Tensor) -> Pose:
        """Pose of largest likelihood; of equally likely ones the best match of the fixed pattern.

        Poses that are equal in both have the same view, and any of them serves.
        """
        flat = views.flatten(0, 1).double()
        score, error = self._score(flat)
        poses = (*views.shape[:2], *views.shape[3:])
        second, tolerance = correlate(flat).reshape(poses), error.reshape(views.shape[:2]).amax(1)
        pose = best_pose(score.reshape(poses), second, tolerance)
        return self._dithered(pose) if self.training and self.dither else pose

    def _dithered(self, pose: Pose) -> Pose:
        """Shifts moved to the pixel before or after at random."""
        chance = torch.rand(pose.shift.shape, device=pose.shift.device)
        step = (chance < self.dither / 2).long() - (chance > 1 - self.dither / 2).long()
        size = torch.tensor(self.size, device=pose.shift.device)
        return Pose(pose.element, (pose.shift + step) % size)

    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s(t) of images [M, C, *size] at all shifts, [M, *size], and its rounding error, [M]."""
        linear, squared = self.linear.double(), self.squared.double()
        space = tuple(range(2, x.ndim))
        patterns = torch.fft.rfftn(torch.cat([linear[None], squared]), dim=space, norm="ortho")
        image = self._spectrum(x)
        score = self._correlate(image, patterns[0])
        for pattern in patterns[1:]:  # one at a time: all maps at once would fill the memory
            found = self._correlate(image, pattern)
            score.addcmul_(found, found)
        length = x.flatten(1).norm(dim=1)
        bound = length * linear.norm() + length.square() * squared.square().sum()
        return score, bound * torch.finfo(x.dtype).eps ** 0.5

    def _spectrum(self, x: Tensor) -> Tensor:
        """Low frequencies, without the constant one, of images [N, C, *size]."""
        space = tuple(range(2, x.ndim))
        found: Tensor = torch.fft.rfftn(x - x.mean(space, keepdim=True), dim=space, norm="ortho")
        for axis, length, kept in self._cut_axes():
            half = kept // 2 + 1
            parts = [found.narrow(axis, 0, half)]
            if axis != space[-1]:
                parts.append(found.narrow(axis, length - kept + half, kept - half))
            found = torch.cat(parts, axis)
        return found

    def _correlate(self, image: Tensor, pattern: Tensor) -> Tensor:
        """Cross-correlation [M, *size] of images with a pattern, from their low frequencies."""
        product = image * pattern.conj()
        for axis, length, kept in self._cut_axes():
            half = kept // 2 + 1
            parts = list(product.split(half, axis))
            gap = [*product.shape]
            gap[axis] = length - kept if len(parts) > 1 else length // 2 + 1 - half
            product = torch.cat([parts[0], product.new_zeros(gap), *parts[1:]], axis)
        space = tuple(range(1, product.ndim - 1))
        found: Tensor = torch.fft.irfftn(product.sum(1), s=self.size, dim=space, norm="forward")
        return found

    def _cut_axes(self) -> list[tuple[int, int, int]]:
        """Axes of images [N, C, *size] whose fine detail is left out, their length and the rest."""
        sizes = zip(self.size, self.linear.shape[1:], strict=True)
        return [(axis, n, kept) for axis, (n, kept) in enumerate(sizes, 2) if kept < n]


def _blob(grid: tuple[int, ...], channels: int) -> Tensor:
    """A wide blob, slightly irregular so that few images have several best positions."""
    blob = 0.1 * fixed_pattern(grid)
    for axis, length in enumerate(grid):
        wave = (torch.arange(length, dtype=blob.dtype) * (2 * math.pi / length)).cos()
        blob += wave.reshape(-1, *[1] * (len(grid) - 1 - axis))
    weights = torch.linspace(1, 2, channels).reshape(-1, *[1] * len(grid))
    return (weights * (blob - blob.mean())).float()


def _principal(centred: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Variances [rank] and directions [rank, D] of the leading components of samples [N, D]."""
    n, dim = centred.shape
    wide = n < dim
    gram = centred @ centred.T if wide else centred.T @ centred
    values, vectors = torch.linalg.eigh(gram / n)
    values, vectors = values[-rank:].clamp(min=0), vectors[:, -rank:]
    if wide:
        vectors = centred.T @ vectors
        vectors = vectors / vectors.norm(dim=0).clamp(min=torch.finfo(vectors.dtype).tiny)
    missing = rank - len(values)
    values = torch.nn.functional.pad(values, (missing, 0))
    return values, torch.nn.functional.pad(vectors, (missing, 0)).T
