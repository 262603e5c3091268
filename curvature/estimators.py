"""Estimators: which vectors in output space are sent backward through the network.

Each yields tensors ``v [N, K]`` such that ``sum_v E[v v^T]`` is the output Hessian ``Lambda`` of
each sample (for ``empirical``: the outer product of the observed gradient instead).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from curvature.checking import check_count, seeded
from curvature.likelihoods import Likelihood
from curvature.reduce import Share


@dataclass(frozen=True)
class Sampling:
    """What an estimator sends exactly, and what it draws.

    Attributes:
        columns: Number of columns of the square-root Hessian that are sent exactly.
        draws: Number of draws of what is sampled.
        generator: Random numbers of the draws.
        share: The rows of a batch that the outputs are of; None for all. Draws are made for the
            whole batch, so that they do not depend on how it is divided.
    """

    columns: int
    draws: int
    generator: torch.Generator
    share: Share | None = None

    def signs(self, like: Tensor) -> Tensor:
        """Random signs, one for each element."""
        share = self.share or Share(0, len(like), len(like))
        device = self.generator.device
        shape = share.whole(like.shape)
        bits = torch.randint(0, 2, shape, generator=self.generator, device=device)
        return share.of(bits).to(like).mul_(2).sub_(1)

    def targets(self, likelihood: Likelihood, outputs: Tensor) -> Tensor:
        """Targets sampled from the likelihood at outputs [N, K]."""
        share = self.share or Share(0, len(outputs), len(outputs))
        return share.of(likelihood.sample(share.padded(outputs), self.generator))


Vectors = Callable[[Likelihood, Tensor, Tensor, Sampling], Iterator[Tensor]]


def _hessian(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, sampling: Sampling
) -> Iterator[Tensor]:
    """The largest columns of each sample's square-root Hessian S, then sketches of the rest.

    A sketch is ``S r`` with independent random signs r per sample and column: ``E[S r r^T S^T] =
    Lambda``. Unlike sampled labels it has no rare events: where the softmax is saturated a sampled
    label almost always gives a zero gradient, and once in a while a huge one.
    """
    root = likelihood.sqrt_hessian(outputs)
    yield from root.columns(sampling.columns)
    if root.masses.shape[1] <= sampling.columns:
        return
    for _ in range(sampling.draws):
        signs = sampling.signs(root.masses).to(outputs)
        signs[:, : sampling.columns] = 0
        yield root.times(signs) / sampling.draws**0.5


def _mc(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, sampling: Sampling
) -> Iterator[Tensor]:
    """Gradients at targets sampled from the model's own predictive distribution."""
    for _ in range(sampling.draws):
        sampled = sampling.targets(likelihood, outputs)
        yield likelihood.residual(outputs, sampled) / sampling.draws**0.5


def _empirical(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, sampling: Sampling
) -> Iterator[Tensor]:
    """The gradient at the observed target (the empirical Fisher; biased as a curvature)."""
    yield likelihood.residual(outputs, targets)


ESTIMATORS: dict[str, Vectors] = {
    "exact": _hessian,
    "truncated": _hessian,
    "sketch": _hessian,
    "mc": _mc,
    "empirical": _empirical,
}
"""Estimators by the name that `curvature.kronecker` takes."""


def output_vectors(estimator: str) -> Vectors:
    """Return the generator function of an estimator by name.

    Raises:
        ValueError: For an unknown name.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; choose one of {sorted(ESTIMATORS)}")
    return ESTIMATORS[estimator]


def sampling_of(estimator: str, columns: int, draws: int, seed: int) -> Sampling:
    """What an estimator sends exactly; ``columns`` is the choice of "truncated".

    Raises:
        ValueError: For fewer than no columns or fewer than one draw.
    """
    check_count("columns", columns, 0)
    check_count("draws", draws)
    exact = {"exact": sys.maxsize, "truncated": columns}.get(estimator, 0)
    return Sampling(exact, draws, seeded(seed))
