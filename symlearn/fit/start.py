"""The state that a fit starts from."""

from __future__ import annotations

import torch
from torch import nn

import curvature
import priors
from curvature import Gaussian, Likelihood
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first
from symlearn.fit.facts import is_bias
from symlearn.fit.optimisers import OPTIMISERS
from symlearn.fit.state import State
from symlearn.fit.weights import WeightAverage
from symlearn.subsample import PhaseReference
from symlearn.wrap import prior_groups


def fresh_state(model: nn.Module, config: FitConfig, data: TrainData) -> tuple[State, int]:
    """Prior, likelihood, optimiser and average for a model, and the number of its outputs.

    Raises:
        ValueError: If outputs or targets of the first batch do not suit the likelihood.
    """
    likelihood: Likelihood = curvature.as_likelihood(config.likelihood)
    if isinstance(likelihood, Gaussian):
        likelihood = Gaussian(config.noise)
    x, y = first(data.everything())
    with torch.no_grad(), curvature.evaluating(model):
        outputs = curvature.outputs_of(model, x)
    likelihood.check(outputs, y)
    groups = prior_groups(model)
    start = [config.bias_precision if is_bias(g) else config.precision for g in groups]
    prior = priors.PathPrior(groups, start, config.precision_bounds)
    n_data = data.n * config.likelihood_weight
    optimiser = OPTIMISERS[config.optimiser](
        dict(model.named_parameters()), n_data, config.learning_rate
    )
    average = WeightAverage(model, config.average)
    return State(model, prior, likelihood, optimiser, average), outputs.shape[1]


def calibrate(
    model: nn.Module, config: FitConfig, data: TrainData, generator: torch.Generator
) -> None:
    """Let a circular network learn from training images where images are, if it has not yet.

    Raises:
        ValueError: If images differ in shape.
    """
    for module in model.modules():
        if isinstance(module, PhaseReference) and not bool(module.calibrated):
            images = [x for x, _ in data.sample(config.grow_samples, generator)]
            sizes = sorted({tuple(x.shape[1:]) for x in images})
            if len(sizes) > 1:
                raise ValueError(
                    f"batches have samples of shapes {[list(size) for size in sizes]}; a relaxed "
                    "network takes those of one shape"
                )
            module.calibrate(torch.cat(images))
