"""Estimators: which vectors in output space are sent backward through the network.

Each yields tensors ``v [N, K]`` such that ``sum_v E[v v^T]`` is the output Hessian ``Lambda`` of
each sample (for ``empirical``: the outer product of the observed gradient instead).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from curvature.likelihoods import Likelihood

Vectors = Callable[[Likelihood, Tensor, Tensor, torch.Generator, int], Iterator[Tensor]]
_CHUNK = 2**25  # numbers in one piece of the square-root Hessian


def _exact(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, generator: torch.Generator, draws: int
) -> Iterator[Tensor]:
    """One vector per column of the square-root Hessian: no sampling error."""
    yield from likelihood.sqrt_hessian(outputs)


def _sketch(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, generator: torch.Generator, draws: int
) -> Iterator[Tensor]:
    """``S r`` with independent random signs r per sample and column: E[S r r^T S^T] = Lambda.

    Unlike sampled labels it has no rare events: where the softmax is saturated a sampled label
    almost always gives a zero gradient, and once in a while a huge one.
    """
    rows = max(1, _CHUNK // outputs.shape[1] ** 2)
    for _ in range(draws):
        parts = [_signed(likelihood.sqrt_hessian(f), generator) for f in outputs.split(rows)]
        yield torch.cat(parts) / draws**0.5


def _signed(columns: Tensor, generator: torch.Generator) -> Tensor:
    """Sum of the columns [C, N, K] with random signs, [N, K]."""
    size = columns.shape[:2]
    bits = torch.randint(0, 2, size, generator=generator, device=generator.device)
    return torch.einsum("cn,cnk->nk", bits.to(columns).mul_(2).sub_(1), columns)


def _mc(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, generator: torch.Generator, draws: int
) -> Iterator[Tensor]:
    """Gradients at targets sampled from the model's own predictive distribution."""
    for _ in range(draws):
        yield likelihood.residual(outputs, likelihood.sample(outputs, generator)) / draws**0.5


def _empirical(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, generator: torch.Generator, draws: int
) -> Iterator[Tensor]:
    """The gradient at the observed target (the empirical Fisher; biased as a curvature)."""
    yield likelihood.residual(outputs, targets)


ESTIMATORS: dict[str, Vectors] = {
    "exact": _exact,
    "sketch": _sketch,
    "mc": _mc,
    "empirical": _empirical,
}


def output_vectors(estimator: str) -> Vectors:
    """Return the generator function of an estimator by name.

    Raises:
        ValueError: For an unknown name.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; choose one of {sorted(ESTIMATORS)}")
    return ESTIMATORS[estimator]
