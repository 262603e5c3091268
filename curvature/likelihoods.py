"""Likelihoods as the curvature sees them: square-root Hessians, samplers and residuals.

Index letters: ``N`` samples, ``K`` network outputs. For outputs ``f`` the Hessian of ``-log p(y |
f)`` in ``f`` is ``Lambda = S S^T``
(Martens 2020, "New insights and perspectives on the natural gradient method", Sec. 9).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from curvature.root import DiagonalRoot, HessianRoot, SoftmaxRoot


class Likelihood(ABC):
    """An observation model ``p(y | f)`` with an ``f``-Hessian that does not depend on ``y``."""

    name: str

    @abstractmethod
    def check(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the targets in the shape and dtype the maths needs.

        Args:
            outputs: Network outputs [N, K].
            targets: Targets as the user's data gave them.

        Raises:
            ValueError: For targets of the wrong dtype, shape or range.
        """

    @abstractmethod
    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch of ``log p(y | f)`` in nats, [] (differentiable)."""

    @abstractmethod
    def sqrt_hessian(self, outputs: Tensor) -> HessianRoot:
        """Square root ``S`` of the outputs' Hessian for each sample, ``S S^T = Lambda``."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Targets drawn from ``p(y | f)``, in the form `check` returns."""

    @abstractmethod
    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient of ``-log p(y | f)`` in the outputs, [N, K]."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Mean of ``p(y | f)``, [N, K]: class probabilities, or the regression mean."""


def _rand(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    # drawn where the generator lives (the CPU, unless a user brings one), so that a seed means the
    # same numbers on every device
    device = generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=device).to(like)


class Categorical(Likelihood):
    """Softmax classification; outputs are logits [N, K], targets class indices [N]."""

    name = "categorical"

    def check(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return class indices [N] (int64); see `Likelihood.check`."""
        classes = outputs.shape[1]
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ValueError(
                f"targets of the categorical likelihood are {targets.dtype}; give integer class "
                f"indices in 0..{classes - 1}, or use likelihood='gaussian' or 'bernoulli'"
            )
        if targets.shape != outputs.shape[:1]:
            raise ValueError(
                f"targets have shape {list(targets.shape)}; the categorical likelihood takes one "
                f"class index per sample, [{outputs.shape[0]}]"
            )
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"class indices run from {low} to {high}, but the network has {classes} outputs; "
                f"give indices in 0..{classes - 1}"
            )
        return targets.long()

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum of log softmax probabilities of the targets, []."""
        return -F.cross_entropy(outputs, targets, reduction="sum")

    def sqrt_hessian(self, outputs: Tensor) -> HessianRoot:
        """Cholesky factor of ``diag(p) - p p^T``, K - 1 columns."""
        return SoftmaxRoot(outputs)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Class indices drawn from the softmax, [N]."""
        u = _rand(outputs.shape[:1], generator, outputs)
        index = (outputs.softmax(-1).cumsum(-1) <= u.unsqueeze(1)).sum(1)
        return index.clamp(max=outputs.shape[1] - 1)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``softmax(f) - onehot(y)``, [N, K]."""
        return outputs.softmax(-1) - F.one_hot(targets, outputs.shape[1]).to(outputs)

    def predict(self, outputs: Tensor) -> Tensor:
        """Class probabilities [N, K]."""
        return outputs.softmax(-1)


def _same_shape(outputs: Tensor, targets: Tensor, name: str) -> Tensor:
    if targets.ndim == 1 and outputs.shape[1] == 1:
        targets = targets.unsqueeze(1)
    if targets.shape != outputs.shape:
        raise ValueError(
            f"targets have shape {list(targets.shape)}; the {name} likelihood takes one value per "
            f"network output, {list(outputs.shape)}"
        )
    targets = targets.to(outputs)
    if not bool(torch.isfinite(targets).all()):
        raise ValueError(f"targets of the {name} likelihood contain NaN or infinite values")
    return targets


class Gaussian(Likelihood):
    """Regression with homoscedastic noise: ``y = f + sigma * eps``.

    Args:
        noise: Standard deviation sigma of the observations, in units of the targets; positive.

    Raises:
        ValueError: If the noise is not positive and finite.
    """

    name = "gaussian"

    def __init__(self, noise: float = 1.0) -> None:
        if not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"noise is {noise}; give a positive, finite standard deviation")
        self.noise = float(noise)

    def check(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return real targets [N, K]; see `Likelihood.check`."""
        return _same_shape(outputs, targets, self.name)

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum of Gaussian log densities, []."""
        scaled = (outputs - targets) / self.noise
        return -0.5 * scaled.square().sum() - outputs.numel() * (
            math.log(self.noise) + 0.5 * math.log(2 * math.pi)
        )

    def sqrt_hessian(self, outputs: Tensor) -> HessianRoot:
        """``S = I / sigma``, K columns."""
        return DiagonalRoot(torch.full_like(outputs, 1 / self.noise))

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Targets drawn from the Gaussian, [N, K]."""
        size, device = outputs.shape, generator.device
        eps = torch.randn(size, generator=generator, dtype=torch.float64, device=device)
        return outputs + self.noise * eps.to(outputs)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``(f - y) / sigma^2``, [N, K]."""
        return (outputs - targets) / self.noise**2

    def predict(self, outputs: Tensor) -> Tensor:
        """The mean, which is the output itself, [N, K]."""
        return outputs


class Bernoulli(Likelihood):
    """Independent binary outputs; outputs are logits [N, K], targets 0/1 [N, K]."""

    name = "bernoulli"

    def check(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return targets in {0, 1}, [N, K]; see `Likelihood.check`."""
        targets = _same_shape(outputs, targets, self.name)
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise ValueError("targets of the bernoulli likelihood must be 0 or 1")
        return targets

    def log_prob(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum of Bernoulli log probabilities, []."""
        return -F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")

    def sqrt_hessian(self, outputs: Tensor) -> HessianRoot:
        """``S = diag(sqrt(p (1 - p)))``, K columns."""
        # sigmoid(-f) rather than 1 - p, which rounds to zero long before the curvature does
        return DiagonalRoot((outputs.sigmoid() * (-outputs).sigmoid()).sqrt())

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros and ones drawn from the Bernoulli, [N, K]."""
        return (_rand(outputs.shape, generator, outputs) < outputs.sigmoid()).to(outputs)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``sigmoid(f) - y``, [N, K]."""
        return outputs.sigmoid() - targets

    def predict(self, outputs: Tensor) -> Tensor:
        """Probabilities of a one, [N, K]."""
        return outputs.sigmoid()


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "categorical": Categorical,
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
}
"""Likelihoods by the name that `curvature.kronecker` and `FitConfig` take."""


def as_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Return the likelihood object for a name, or the object itself.

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}; choose one of {sorted(LIKELIHOODS)}")
    return LIKELIHOODS[likelihood]()
