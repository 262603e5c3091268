"""Predictions with uncertainty: the linearised network under the Laplace posterior of its weights.

The posterior covariance of the outputs (`curvature.functional_covariance`) makes the logits of one
input Gaussian, ``f ~ N(mu, C)``. Labels are then predicted by the mean of ``p(y | f)`` over f,
and the entropy of that prediction splits into what the labels keep to themselves and what more
training data would tell:

    H[E p(y | f)] = E H[p(y | f)] + I[y; f]        total = aleatoric + epistemic

(Depeweg et al. 2018, "Decomposition of uncertainty in Bayesian deep learning"). Index letters:
``N`` inputs, ``K`` outputs, ``S`` draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from curvature import Block, Gaussian, Likelihood
from curvature.checking import check_count, seeded

LINKS = ("mc", "probit")
_CHUNK = 2**24  # numbers in one piece of the draws


@dataclass(frozen=True)
class Predictive:
    """Predicted labels of N inputs; a label is one of K classes, or K independent bits (bernoulli).

    Entropies are in nats, of the label, [N]; of each bit, [N, K], for a bernoulli likelihood. They
    are averages over draws of the logits, whichever link made `probs`.

    Attributes:
        probs: Probabilities [N, K] with the uncertainty of the weights.
        logits_mean: Logits at the fitted weights, [N, K].
        logits_covariance: Posterior covariance of the linearised logits, [N, K, K].
        total: Entropy of the mean prediction.
        aleatoric: Mean entropy of the prediction at given weights.
        epistemic: Mutual information between label and weights; never negative.
    """

    probs: Tensor
    logits_mean: Tensor
    logits_covariance: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @property
    def logits_variance(self) -> Tensor:
        """Posterior variance of each logit, [N, K]."""
        return self.logits_covariance.diagonal(dim1=1, dim2=2)


@dataclass(frozen=True)
class GaussianPredictive:
    """Predicted targets of N inputs under a gaussian likelihood; exact for the linearised network.

    Attributes:
        mean: Outputs at the fitted weights, [N, K], in units of the targets.
        covariance: Posterior covariance of the outputs, without the noise, [N, K, K].
        noise: Standard deviation of the observations.
    """

    mean: Tensor
    covariance: Tensor
    noise: float

    @property
    def epistemic(self) -> Tensor:
        """Variance by the uncertainty of the weights, [N, K]."""
        return self.covariance.diagonal(dim1=1, dim2=2)

    @property
    def variance(self) -> Tensor:
        """Variance of an observation, ``epistemic + noise^2``, [N, K]."""
        return self.epistemic + self.noise**2


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of a network's weights, by the curvature at them.

    Attributes:
        model: The network at the posterior's mean.
        blocks: Curvature of the log likelihood summed over the training data, by parameter name.
        precision: Prior precision by parameter name.
        likelihood: The likelihood.
    """

    model: nn.Module
    blocks: Mapping[str, Block]
    precision: Mapping[str, float]
    likelihood: Likelihood

    def predictive(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        link: str = "mc",
        samples: int = 256,
        seed: int = 0,
    ) -> Predictive | GaussianPredictive:
        """Predict labels or targets with uncertainty.

        Args:
            x: Inputs [N, ...].
            link: How logits become probabilities: "mc" (the mean over draws) or "probit" (each
                logit shrunk by its own variance). Logits that share much of their variance, which
                changes no probability, are shrunk too far by the latter.
            samples: Draws of the logits, at least two; the same for every input, so that a
                prediction does not depend on what else is predicted.
            seed: Seed of the draws.

        Raises:
            ValueError: For an unknown link, too few samples, or inputs that are empty, not finite
                or not what the network takes.
        """
        _check_options(link, samples)
        x = as_inputs(x)
        with torch.no_grad():
            mean, covariance = curvature.functional_covariance(
                self.model, self.blocks, x, self.precision
            )
            if isinstance(self.likelihood, Gaussian):
                return GaussianPredictive(mean, covariance, self.likelihood.noise)
            size = max(1, _CHUNK // (samples * mean.shape[1]))
            eps = _draws(samples, mean, seed)
            parts = [
                _averages(self.likelihood, part, spread, eps)
                for part, spread in zip(mean.split(size), covariance.split(size), strict=True)
            ]
            sampled, total, aleatoric = (torch.cat(column) for column in zip(*parts, strict=True))
            by_probit = link == "probit"
            probs = _probit(self.likelihood, mean, covariance) if by_probit else sampled
        epistemic = (total - aleatoric).clamp(min=0)  # by Jensen, but for rounding
        return Predictive(probs, mean, covariance, total, aleatoric, epistemic)


def _check_options(link: str, samples: int) -> None:
    if link not in LINKS:
        raise ValueError(f"unknown link {link!r}; choose one of {list(LINKS)}")
    check_count("samples", samples, 2)


def as_inputs(x: object) -> Tensor:
    """Inputs as a tensor.

    Raises:
        ValueError: If they cannot be read as one.
    """
    try:
        tensor = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(x).__name__
        raise ValueError(f"X ({kind}) cannot be read as a tensor [N, ...]: {error}") from error
    if tensor.ndim < 1:
        raise ValueError("X is a single number; give inputs [N, ...]")
    return tensor


def _draws(samples: int, like: Tensor, seed: int) -> Tensor:
    """Standard normal numbers [S, K], drawn on the CPU so that a seed means the same everywhere."""
    generator = seeded(seed)
    size = (samples, like.shape[1])
    return torch.randn(size, generator=generator, dtype=torch.float64).to(like)


def _averages(
    likelihood: Likelihood, mean: Tensor, covariance: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean probabilities [N, K], their entropy, and the mean entropy, over draws of the logits."""
    values, vectors = torch.linalg.eigh(covariance)
    # the symmetric root: unlike other roots it does not depend on the signs of eigenvectors
    root = vectors * values.clamp(min=0).sqrt().unsqueeze(1) @ vectors.mT
    probs = likelihood.predict((mean.unsqueeze(1) + eps @ root).flatten(0, 1))
    entropy = _ENTROPIES[likelihood.name]
    aleatoric = entropy(probs).unflatten(0, (len(mean), len(eps))).mean(1)
    probs = probs.unflatten(0, (len(mean), len(eps))).mean(1)
    return probs, entropy(probs), aleatoric


def _of_classes(p: Tensor) -> Tensor:
    """Entropy [...] of class probabilities [..., K], in nats."""
    return -torch.xlogy(p, p).sum(-1)


def _of_bits(p: Tensor) -> Tensor:
    """Entropy of each probability of a one, in nats."""
    return _of_classes(torch.stack([p, (1 - p).clamp(min=0)], dim=-1))


_ENTROPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "categorical": _of_classes,
    "bernoulli": _of_bits,
}


def _probit(likelihood: Likelihood, mean: Tensor, covariance: Tensor) -> Tensor:
    """``p(mu / sqrt(1 + pi/8 C_kk))``: MacKay (1992) for bits, Gibbs (1998) for classes."""
    variance = covariance.diagonal(dim1=1, dim2=2)
    return likelihood.predict(mean / (1 + math.pi / 8 * variance).sqrt())
