"""One evidence step on a state: measure at the averaged weights, then move precisions and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

import priors
from curvature import ALONE, Gaussian, Reduction
from symlearn.fit.autocast import autocast
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData
from symlearn.fit.evidence import Measurement, active_groups, effective_of, evidence_of, measure
from symlearn.fit.facts import is_bias
from symlearn.fit.shares import share_out
from symlearn.fit.state import State


@dataclass(frozen=True)
class Step:
    """What an evidence step found and did.

    Attributes:
        found: The measurement.
        before: Log evidence in nats at the precisions before.
        after: Log evidence in nats of the same weights at the precisions after.
        tests: Relevance test of every updated group, at the precision before.
    """

    found: Measurement
    before: float
    after: float
    tests: dict[str, priors.Relevance]


class PrecisionSteps:
    """Evidence steps with the options of a fit.

    Args:
        config: The options.
        data: The training data.
        generator: Random numbers for subsets and sketches.
        processes: Processes that share the work.
    """

    def __init__(
        self,
        config: FitConfig,
        data: TrainData,
        generator: torch.Generator,
        processes: Reduction = ALONE,
    ) -> None:
        self.config, self.data, self.generator = config, data, generator
        self.processes = processes

    def measure(self, state: State, samples: int, estimator: str, **options: Any) -> Measurement:
        """Curvature and gradients at a state's current weights."""
        config = self.config
        with autocast(state.model, config.autocast):
            return measure(
                state.model,
                self.data.sample(samples, self.generator),
                self.data.everything(),
                state.likelihood,
                estimator=estimator,
                ekfac=config.ekfac,
                sharing=config.sharing,
                weight=config.likelihood_weight,
                fallback=config.fallback,
                seed=self.seed(),
                processes=self.processes,
                **options,
            )

    def seed(self) -> int:
        """A seed for whatever is random in one pass."""
        return int(torch.randint(2**31, (), generator=self.generator))

    def take(self, state: State, size: float) -> Step:
        """Measure at the averaged weights and move precisions and noise.

        Args:
            state: The state; its prior, likelihood and optimiser are changed.
            size: Step of the precisions; see `priors.PathPrior.update`.
        """
        config = self.config
        with state.average.applied():
            found = self.measure(state, config.curvature_samples, config.estimator)
        before = evidence_of(state.prior, found)
        learned = [g for g in active_groups(state.prior, found.curvature) if not is_bias(g)]
        # later updates start where the first left off, at the same curvature
        tests, *_ = [
            state.prior.update(
                found.curvature,
                found.params,
                found.gradients,
                groups=learned,
                method=config.method,
                step=size,
                max_change=config.max_change,
            )
            for _ in range(config.hyper_steps)
        ]
        self._update_noise(state, found)
        state.sync_precisions()
        share_out(state)
        return Step(found, before, evidence_of(state.prior, found), tests)

    def _update_noise(self, state: State, found: Measurement) -> None:
        learned = isinstance(state.likelihood, Gaussian) and self.config.learn_noise
        # a network that fits all targets exactly says nothing of the noise: it stays
        if isinstance(state.likelihood, Gaussian) and learned and found.residual_sq > 0:
            gamma = math.fsum(effective_of(state.prior, found).values())
            noise = priors.update_noise(
                found.residual_sq,
                found.n_targets,
                min(gamma / self.config.likelihood_weight, 0.9 * found.n_targets),
                state.likelihood.noise,
                step=0.5,
            )
            state.likelihood = Gaussian(noise)
