"""How well a network predicts data."""

from __future__ import annotations

import torch
from torch import nn

import curvature
from curvature import Data, Likelihood


@torch.no_grad()
def score(model: nn.Module, data: Data, likelihood: str | Likelihood) -> dict[str, float]:
    """Mean negative log likelihood in nats ("nll") and, for a categorical likelihood, "accuracy".

    Args:
        model: A network with outputs [N, K].
        data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        likelihood: Name or object.
    """
    likelihood = curvature.as_likelihood(likelihood)
    total, right, n = 0.0, 0, 0
    with curvature.evaluating(model):
        for x, y in curvature.batches(data, model, 512):
            outputs = curvature.outputs_of(model, x)
            y = likelihood.check(outputs, y)
            total -= float(likelihood.log_prob(outputs.double(), y))
            if likelihood.name == "categorical":
                right += int((outputs.argmax(1) == y).sum())
            n += len(x)
    scores = {"nll": total / n}
    if likelihood.name == "categorical":
        scores["accuracy"] = right / n
    return scores
