"""A fit in progress: epochs of weights, evidence steps, growth, pruning, and the end."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

import curvature
import priors
from curvature import Data, Gaussian, Likelihood
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first, null_loss
from symlearn.fit.evidence import Measurement, active_groups, effective_of, evidence_of, measure
from symlearn.fit.facts import is_bias, layer_structures, path_groups
from symlearn.fit.grow import absent_paths, start_path, switch_off_idle, test_absent
from symlearn.fit.history import EpochRecord, agreement, plateaued, stable_for
from symlearn.fit.prune import Challenge, challenge, contested, prune_rejected
from symlearn.fit.result import FitResult, build_report, score
from symlearn.fit.state import State
from symlearn.fit.weights import ProximalAdam, WeightAverage, train_epoch
from symlearn.relaxed import relaxed_layers
from symlearn.report import LayerStructure
from symlearn.subsample import PhaseReference
from symlearn.wrap import prior_groups

# A network that predicts much better than the label frequencies is trained already; one that has
# almost no loss left has memorised its data, whose gradients then say nothing about absent paths.
_TRAINED, _MEMORISED = 0.5, 0.05
_FINAL_RATE = 0.02
# nats per sample by which two sketches of the same network's evidence differ (measured)
_EVIDENCE_NOISE = 0.02


class Fitting:
    """A fit in progress; callbacks see it after every epoch.

    Args:
        model: The relaxed network; it is trained in place.
        train: The training data.
        config: Options.
        resume: An earlier result to start from, or None.

    Attributes:
        state: Model, prior, optimiser and averages.
        history: One record per epoch so far.
        challenges: Paths removed on trial.
        epoch: Epochs done.
        total: Epochs planned.
    """

    def __init__(
        self, model: nn.Module, train: Data, config: FitConfig, resume: FitResult | None = None
    ) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.data = TrainData(train, model, config.batch_size)
        self.history: list[EpochRecord] = []
        self.challenges: list[Challenge] = []
        self.epoch, self.total = 0, config.epochs
        self.anneal_from = round(config.epochs * (1 - config.anneal))
        self._losses: list[float] = []
        self._since_test, self._started = config.grow_every - 1, time.perf_counter()
        self.state = self._start(model)
        if resume is not None:
            _resume(self.state, resume)
        self._calibrate()
        if self._grows:
            switch_off_idle(model)
        self.state.average = WeightAverage(model, config.average)
        self.state.sync_precisions()
        self._first_evidence_epoch = self._look_at_start()
        if self._first_evidence_epoch == 0:
            # a trained network may lack a path from the start: test before weights move
            self._grow()

    @property
    def model(self) -> nn.Module:
        """The network being trained."""
        return self.state.model

    @property
    def _grows(self) -> bool:
        return self.config.grow and self.config.objective == "evidence"

    def _start(self, model: nn.Module) -> State:
        config = self.config
        likelihood: Likelihood = curvature.as_likelihood(config.likelihood)
        if isinstance(likelihood, Gaussian):
            likelihood = Gaussian(config.noise)
        x, y = first(self.data.everything())
        with torch.no_grad(), curvature.evaluating(model):
            outputs = curvature.check_outputs(model(x), len(x))
        likelihood.check(outputs, y)
        self._outputs = outputs.shape[1]
        groups = prior_groups(model)
        start = [config.bias_precision if is_bias(g) else config.precision for g in groups]
        prior = priors.PathPrior(groups, start, config.precision_bounds)
        n_data = self.data.n * config.likelihood_weight
        optimiser = ProximalAdam(dict(model.named_parameters()), n_data, config.learning_rate)
        return State(model, prior, likelihood, optimiser, WeightAverage(model, config.average))

    def _calibrate(self) -> None:
        for module in self.model.modules():
            if isinstance(module, PhaseReference) and not bool(module.calibrated):
                batches = self.data.sample(self.config.grow_samples, self.generator)
                module.calibrate(torch.cat([x for x, _ in batches]))

    def _look_at_start(self) -> int:
        """First epoch with an evidence step; sets data aside if the network has memorised them."""
        config, base = self.config, null_loss(self.data, self.state.likelihood, self._outputs)
        loss = score(self.model, self.data.everything(), self.state.likelihood)["nll"]
        automatic = 0.1 if loss < _MEMORISED * base else 0.0
        fraction = automatic if isinstance(config.holdout, str) else config.holdout
        if self._grows and fraction:
            self._set_aside(fraction)
        return 0 if loss < _TRAINED * base else round(config.burn_in * config.epochs)

    def _set_aside(self, fraction: float) -> None:
        """Hold data out; the weights and the evidence see the same N."""
        self.data.hold_out(fraction, self.generator)
        for group in self.state.optimiser.param_groups:
            group["n_data"] = len(self.data.indices) * self.config.likelihood_weight

    def advance(self) -> None:
        """One epoch of weights, then an evidence step where one is due."""
        rate = self.learning_rate()
        lost = self._before_annealing() if self.epoch == self.anneal_from else ()
        self.state.optimiser.set_lr(rate)
        self._losses.append(self._train(self.state))
        self.epoch += 1
        facts: dict[str, Any] = {"pruned": lost}
        if self._evidence_due():
            facts = self._evidence_step()
        prior = self.state.prior
        self.history.append(
            EpochRecord(
                self.epoch,
                time.perf_counter() - self._started,
                rate,
                self._losses[-1],
                precision=dict(zip(prior.groups, prior.precision.tolist(), strict=True)),
                noise=getattr(self.state.likelihood, "noise", 1.0),
                **facts,
            )
        )
        self._decide_early()

    def _train(self, state: State) -> float:
        batches = self.data.epoch(self.generator)
        return train_epoch(state.model, batches, state.likelihood, state.optimiser, state.average)

    def learning_rate(self) -> float:
        """Step size of the coming epoch: constant, then falling linearly to 2 %."""
        length = max(1, self.total - self.anneal_from)
        done = max(0, self.epoch + 1 - self.anneal_from) / length
        return self.config.learning_rate * (1 - (1 - _FINAL_RATE) * min(1.0, done))

    def _evidence_due(self) -> bool:
        past = self.epoch - self._first_evidence_epoch
        wanted = self.config.objective == "evidence" and self.epoch <= self.anneal_from
        return wanted and past >= 0 and past % self.config.evidence_every == 0

    def _measure(self, state: State, samples: int, estimator: str, **options: Any) -> Measurement:
        """Curvature and gradients at a state's current weights."""
        return measure(
            state.model,
            self.data.sample(samples, self.generator),
            self.data.everything(),
            state.likelihood,
            estimator=estimator,
            ekfac=self.config.ekfac,
            sharing=self.config.sharing,
            weight=self.config.likelihood_weight,
            fallback=self.config.fallback,
            seed=self._seed(),
            **options,
        )

    def _seed(self) -> int:
        return int(torch.randint(2**31, (), generator=self.generator))

    def _update_precisions(
        self, state: State
    ) -> tuple[Measurement, float, dict[str, priors.Relevance]]:
        """Measure at the averaged weights and move precisions and noise."""
        config = self.config
        with state.average.applied():
            found = self._measure(state, config.curvature_samples, config.estimator)
        value = evidence_of(state.prior, found)
        learned = [g for g in active_groups(state.prior, found.curvature) if not is_bias(g)]
        tests = state.prior.update(
            found.curvature,
            found.params,
            found.gradients,
            groups=learned,
            method=config.method,
            step=config.step,
            max_change=config.max_change,
        )
        self._update_noise(state, found)
        state.sync_precisions()
        return found, value, tests

    def _update_noise(self, state: State, found: Measurement) -> None:
        if isinstance(state.likelihood, Gaussian) and self.config.learn_noise:
            gamma = math.fsum(effective_of(state.prior, found).values())
            noise = priors.update_noise(
                found.residual_sq,
                found.n_targets,
                min(gamma / self.config.likelihood_weight, 0.9 * found.n_targets),
                state.likelihood.noise,
                step=0.5,
            )
            state.likelihood = Gaussian(noise)

    def _evidence_step(self) -> dict[str, Any]:
        found, value, tests = self._update_precisions(self.state)
        pruned = prune_rejected(self.state, tests, self.config.off_after)
        facts = layer_structures(self.model, self.state.prior, found, {})
        verdicts = {name: LayerStructure.of(name, paths).verdict for name, paths in facts.items()}
        grown = self._grow() if self.epoch < self.anneal_from and self._test_due() else ()
        return {"log_evidence": value, "verdicts": verdicts, "grown": grown, "pruned": pruned}

    def _test_due(self) -> bool:
        """Whether absent paths are to be tested at this evidence step.

        While the paths that are present still learn fast, an absent one always seems to pay: it
        would speed up what they are about to do. So tests wait until the loss has slowed down.
        """
        every = self.config.evidence_every
        losses = self._losses[-every - 1 :]
        if len(losses) > every and losses[-1] < self.config.grow_when_slow * losses[0]:
            return False
        self._since_test = (self._since_test + 1) % self.config.grow_every
        return self._since_test == 0

    def _grow(self) -> tuple[str, ...]:
        """Test absent paths at the averaged weights and start the best one that pays."""
        config, state = self.config, self.state
        if not self._grows or not absent_paths(state.model):
            return ()
        with state.average.applied():
            candidates = test_absent(
                state.model,
                self.data.held_out() or self.data.sample(0, self.generator),
                state.likelihood,
                bounds=state.prior.bounds,
                estimator=config.estimator,
                max_samples=config.grow_samples,
                weight=config.likelihood_weight,
                seed=self._seed(),
            )
        best = next((c for c in candidates if c.test.ratio > config.grow_ratio), None)
        if best is None or best.test.gain <= config.grow_gain:
            return ()
        key = (best.layer, best.path)
        start_path(state.model, best, config.seed_size)
        state.restart(key)
        for group in path_groups(state.prior, *key):
            state.prior.set_precision(group, config.precision)
        state.sync_precisions()
        return (".".join(key),)

    def _decide_early(self) -> None:
        """Begin the final annealing now if verdicts and evidence have settled."""
        config = self.config
        settled = stable_for(self.history) >= config.patience and plateaued(
            self.history, config.patience, _EVIDENCE_NOISE * self.data.n
        )
        if config.early_stop and settled and self.epoch < self.anneal_from:
            length = self.total - self.anneal_from
            self.anneal_from, self.total = self.epoch, self.epoch + length

    def _before_annealing(self) -> tuple[str, ...]:
        """Take held-out data back, and challenge the paths of layers that have several.

        Returns:
            The paths that lost their challenge, as "layer.path".
        """
        if len(self.data.held):
            self._set_aside(0.0)
        if not self._grows or not self.config.challenge_epochs:
            return ()
        for layer, paths in contested(self.model).items():
            self.state, found = challenge(self.state, layer, paths, self._evidence, self._train_on)
            self.challenges += found
        return tuple(trial.path for trial in self.challenges if trial.removed)

    def _evidence(self, state: State) -> float:
        with state.average.applied():
            found = self._measure(state, self.config.curvature_samples, self.config.estimator)
        return evidence_of(state.prior, found)

    def _train_on(self, state: State) -> None:
        for epoch in range(self.config.challenge_epochs):
            self._train(state)
            if epoch % self.config.evidence_every == 0:
                self._update_precisions(state)

    def finish(self, validation: Data | None = None) -> FitResult:
        """Put the averaged weights into the model, measure it once more, and report."""
        config, state = self.config, self.state
        state.average.copy_to_model()
        self.data.hold_out(0.0, self.generator)
        state.model.eval()
        found = self._measure(
            state,
            config.report_samples,
            config.report_estimator,
            draws=config.report_draws,
        )
        report = build_report(
            state.model,
            state.prior,
            found,
            self.data.sample(config.report_samples, self.generator),
            lambda layer, verdict: agreement(self.history, layer, verdict, config.patience),
            config.objective,
            self._meta(validation),
        )
        return FitResult(
            state.model, state.prior, report, config, tuple(self.history), state.likelihood
        )

    def _meta(self, validation: Data | None) -> dict[str, str | float | int | None]:
        meta: dict[str, str | float | int | None] = {
            "epochs": self.epoch,
            "seed": self.config.seed,
            "n_data": self.data.n,
            "seconds": round(time.perf_counter() - self._started, 2),
            "likelihood": self.state.likelihood.name,
            "torch": torch.__version__,
        }
        for trial in self.challenges:
            change = trial.without_path - trial.with_path
            decision = "removed" if trial.removed else "kept"
            meta[f"without {trial.path}"] = (
                f"{change:+.0f} nats of evidence after refit, {decision}"
            )
        if validation is not None:
            scores = score(self.model, validation, self.state.likelihood)
            meta.update({f"validation_{name}": value for name, value in scores.items()})
        return meta


def _resume(state: State, earlier: FitResult) -> None:
    """Start from an earlier result's weights, switched-on paths, precisions and noise."""
    if list(earlier.prior.groups) != list(state.prior.groups):
        raise ValueError("resume belongs to another model: its prior groups differ")
    state.model.load_state_dict(earlier.model.state_dict())
    mine = relaxed_layers(state.model)
    for name, layer in relaxed_layers(earlier.model).items():
        for key, path in layer.named_paths().items():
            own = mine[name].path(key)
            if path.enabled:
                own.switch_on()
            else:
                own.switch_off()
    state.prior.log_precision = earlier.prior.log_precision.clone()
    if isinstance(state.likelihood, Gaussian):
        state.likelihood = Gaussian(earlier.noise)
