"""The outer loop: MAP steps on the weights, evidence steps on the precisions, growth and pruning."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import curvature
import priors
from curvature import Data, Gaussian, Likelihood
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first, null_loss
from symlearn.fit.evidence import (
    Measurement,
    active_groups,
    effective_of,
    evidence_of,
    measure,
)
from symlearn.fit.facts import is_bias, layer_structures, path_groups
from symlearn.fit.grow import absent_paths, start_path, switch_off_idle, test_absent
from symlearn.fit.history import EpochRecord, agreement, stable_for
from symlearn.fit.progress import Progress
from symlearn.fit.result import FitResult, build_report, score
from symlearn.fit.weights import ProximalAdam, WeightAverage, train_epoch
from symlearn.relaxed import relaxed_layers
from symlearn.report import LayerStructure
from symlearn.subsample import PhaseReference
from symlearn.wrap import prior_groups

Callback: TypeAlias = Callable[["Fitting"], object]

# A network that predicts much better than the label frequencies is trained already; one that has
# almost no loss left has memorised its data, whose gradients then say nothing about absent paths.
_TRAINED, _MEMORISED = 0.5, 0.05
_FINAL_RATE = 0.02


def fit(
    model: nn.Module,
    train: Data,
    config: FitConfig | None = None,
    *,
    validation: Data | None = None,
    callbacks: Sequence[Callback] = (),
    resume: FitResult | None = None,
) -> FitResult:
    """Learn weights and prior precisions from training data alone.

    The given model is not changed. Paths that contribute nothing at the start are switched off;
    they are tested every few evidence steps and started, one at a time, when the evidence says
    that they pay (``config.grow``).

    Args:
        model: A relaxed network (`symlearn.wrap`).
        train: ``(X, y)``, a Dataset or a DataLoader.
        config: Options; `FitConfig` documents them.
        validation: Data whose loss and accuracy are recorded in the report; never used to learn.
        callbacks: Called with the running `Fitting` after every epoch; one that returns True ends
            the fit after this epoch.
        resume: An earlier result on the same architecture, whose weights and precisions are the
            start.

    Raises:
        ValueError: If the model is not relaxed, the data are empty or malformed, targets do not
            suit the likelihood, or ``resume`` belongs to another model.
        TypeError: If the data or the config are of an unknown kind.
        NonFiniteLossError: If the loss becomes NaN or infinite.

    Example:
        >>> import torch, symlearn
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(),
        ...     torch.nn.Flatten(), torch.nn.Linear(32, 2))
        >>> x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % 2
        >>> result = symlearn.fit(symlearn.wrap(net, x[:1]), (x, y),
        ...     symlearn.FitConfig(epochs=2, burn_in=0, progress=False))
        >>> result.predict_proba(x).shape
        torch.Size([40, 2])
    """
    config = FitConfig() if config is None else config
    if not isinstance(config, FitConfig):
        raise TypeError(f"config must be a FitConfig, got {type(config).__name__}")
    if not relaxed_layers(model):
        raise ValueError("the model has no relaxed layer; wrap it first: symlearn.wrap(model, x)")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        run = Fitting(copy.deepcopy(model), train, config, resume)
        with Progress(config.progress, run.total) as bar:
            while run.epoch < run.total:
                run.advance()
                bar.show(run)
                if any([callback(run) is True for callback in callbacks]):
                    break
        return run.finish(validation)


class Fitting:
    """A fit in progress: what callbacks see.

    Attributes:
        model: The relaxed network being trained.
        prior: Precisions of all groups.
        average: Running average of the weights.
        history: One record per epoch so far.
        epoch: Epochs done.
        total: Epochs planned.
        likelihood: The likelihood, with the current noise.
    """

    def __init__(
        self, model: nn.Module, train: Data, config: FitConfig, resume: FitResult | None
    ) -> None:
        self.model, self.config = model, config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.data = TrainData(train, model, config.batch_size)
        self.likelihood: Likelihood = curvature.as_likelihood(config.likelihood)
        if isinstance(self.likelihood, Gaussian):
            self.likelihood = Gaussian(config.noise)
        groups = prior_groups(model)
        start = [config.bias_precision if is_bias(g) else config.precision for g in groups]
        self.prior = priors.PathPrior(groups, start, config.precision_bounds)
        self.history: list[EpochRecord] = []
        self.epoch, self.total = 0, config.epochs
        self.anneal_from = round(config.epochs * (1 - config.anneal))
        self._rejected: dict[tuple[str, str], int] = {}
        self._evidence_steps, self._started = 0, time.perf_counter()
        if resume is not None:
            self._resume(resume)
        self._check_first_batch()
        self._calibrate()
        if config.objective == "evidence" and config.grow:
            switch_off_idle(model)
        self._first_evidence_epoch = self._look_at_start()
        named = dict(model.named_parameters())
        self.optimiser = ProximalAdam(
            named, self.data.n * config.likelihood_weight, config.learning_rate
        )
        self.optimiser.set_precisions(self.prior.precisions_by_parameter())
        self.average = WeightAverage(model, config.average)
        if self._first_evidence_epoch == 0:
            # a trained network may lack a path from the start: test before weights move
            self._grow(self.data.held_out() or self.data.sample(0, self.generator))

    def _resume(self, earlier: FitResult) -> None:
        if list(earlier.prior.groups) != list(self.prior.groups):
            raise ValueError("resume belongs to another model: its prior groups differ")
        self.model.load_state_dict(earlier.model.state_dict())
        for name, layer in relaxed_layers(earlier.model).items():
            mine = relaxed_layers(self.model)[name].named_paths()
            for key, path in layer.named_paths().items():
                if path.enabled:
                    mine[key].switch_on()
                else:
                    mine[key].switch_off()
        self.prior.log_precision = earlier.prior.log_precision.clone()
        if isinstance(self.likelihood, Gaussian):
            self.likelihood = Gaussian(earlier.noise)

    def _check_first_batch(self) -> None:
        x, y = first(self.data.everything())
        with torch.no_grad(), curvature.evaluating(self.model):
            outputs = curvature.check_outputs(self.model(x), len(x))
        self.likelihood.check(outputs, y)
        self.outputs = outputs.shape[1]

    def _calibrate(self) -> None:
        for module in self.model.modules():
            if isinstance(module, PhaseReference) and not bool(module.calibrated):
                batches = self.data.sample(self.config.grow_samples, self.generator)
                module.calibrate(torch.cat([x for x, _ in batches]))

    def _look_at_start(self) -> int:
        """First epoch with an evidence step; sets data aside if the network has memorised them."""
        config, base = self.config, null_loss(self.data, self.likelihood, self.outputs)
        loss = self._mean_loss()
        memorised = loss < _MEMORISED * base
        fraction = config.holdout if isinstance(config.holdout, float) else 0.1 * memorised
        if config.objective == "evidence" and config.grow and fraction:
            self.data.hold_out(fraction, self.generator)
        return 0 if loss < _TRAINED * base else config.burn_in

    @torch.no_grad()
    def _mean_loss(self) -> float:
        total = 0.0
        with curvature.evaluating(self.model):
            for x, y in self.data.everything():
                outputs = curvature.check_outputs(self.model(x), len(x))
                total -= float(self.likelihood.log_prob(outputs, self.likelihood.check(outputs, y)))
        return total / self.data.n

    def advance(self) -> None:
        """One epoch of weights, then an evidence step where one is due."""
        rate = self.learning_rate()
        self.optimiser.set_lr(rate)
        batches = self.data.epoch(self.generator)
        nll = train_epoch(self.model, batches, self.likelihood, self.optimiser, self.average)
        self.epoch += 1
        facts: dict[str, Any] = self._evidence_step() if self._evidence_due() else {}
        self.history.append(
            EpochRecord(
                self.epoch,
                time.perf_counter() - self._started,
                rate,
                nll,
                precision=dict(
                    zip(self.prior.groups, self.prior.precision.tolist(), strict=True)
                ),
                noise=getattr(self.likelihood, "noise", 1.0),
                **facts,
            )
        )
        self._decide_early()

    def learning_rate(self) -> float:
        """Step size of the coming epoch: constant, then falling linearly to 2 %."""
        length = max(1, self.total - self.anneal_from)
        done = max(0, self.epoch + 1 - self.anneal_from) / length
        return self.config.learning_rate * (1 - (1 - _FINAL_RATE) * min(1.0, done))

    def _evidence_due(self) -> bool:
        past = self.epoch - self._first_evidence_epoch
        return (
            self.config.objective == "evidence"
            and past >= 0
            and past % self.config.evidence_every == 0
            and self.epoch < self.total
        )

    def measurement(self, samples: int, estimator: str, ekfac: bool = False) -> Measurement:
        """Curvature and gradients at the model's current weights."""
        return measure(
            self.model,
            self.data.sample(samples, self.generator),
            self.data.everything(),
            self.likelihood,
            estimator=estimator,
            sharing=self.config.sharing,
            ekfac=ekfac,
            weight=self.config.likelihood_weight,
            fallback=self.config.fallback,
            seed=int(torch.randint(2**31, (), generator=self.generator)),
        )

    def _evidence_step(self) -> dict[str, Any]:
        config = self.config
        with self.average.applied():
            found = self.measurement(config.curvature_samples, config.estimator)
        value = evidence_of(self.prior, found)
        learned = [g for g in active_groups(self.prior, found.curvature) if not is_bias(g)]
        tests = self.prior.update(
            found.curvature,
            found.params,
            found.gradients,
            groups=learned,
            method=config.method,
            step=config.step,
            max_change=config.max_change,
        )
        self._update_noise(found)
        pruned = self._prune(tests)
        structures = layer_structures(self.model, self.prior, found, {})
        verdicts = {n: LayerStructure.of(n, paths).verdict for n, paths in structures.items()}
        self._evidence_steps += 1
        grown: tuple[str, ...] = ()
        may_grow = config.grow and self.epoch <= config.grow_until * self.total
        if may_grow and self._evidence_steps % config.grow_every == 1 % config.grow_every:
            grown = self._grow(self.data.held_out() or self.data.sample(0, self.generator))
        if not may_grow and len(self.data.held):
            self.data.hold_out(0.0, self.generator)
        self.optimiser.set_precisions(self.prior.precisions_by_parameter())
        return {
            "log_evidence": value,
            "verdicts": verdicts,
            "grown": grown,
            "pruned": pruned,
        }

    def _update_noise(self, found: Measurement) -> None:
        if isinstance(self.likelihood, Gaussian) and self.config.learn_noise:
            gamma = math.fsum(effective_of(self.prior, found).values())
            gamma /= self.config.likelihood_weight
            noise = priors.update_noise(
                found.residual_sq,
                found.n_targets,
                min(gamma, 0.9 * found.n_targets),
                self.likelihood.noise,
                self.config.step if self.config.method == "fixed_point" else 0.5,
            )
            self.likelihood = Gaussian(noise)

    def _prune(self, tests: dict[str, priors.Relevance]) -> tuple[str, ...]:
        """Switch off paths whose absence the evidence has preferred several times in a row."""
        pruned = []
        for layer_name, layer in relaxed_layers(self.model).items():
            for path_name, path in layer.named_paths().items():
                mine = path_groups(self.prior, layer_name, path_name)
                if not path.enabled or not all(g in tests for g in mine):
                    continue
                key = (layer_name, path_name)
                rejected = all(tests[g].absent for g in mine)
                self._rejected[key] = self._rejected.get(key, 0) + 1 if rejected else 0
                if self._rejected[key] >= self.config.off_after:
                    self._rejected[key] = 0
                    path.switch_off()
                    self._forget(path)
                    pruned.append(".".join(key))
        return tuple(pruned)

    def _forget(self, path: nn.Module) -> list[str]:
        """Restart average and moments of a path's weights at their present values."""
        ids = {id(p) for p in path.parameters()}
        names = [n for n, p in self.model.named_parameters() if id(p) in ids]
        self.average.reset(names)
        for p in path.parameters():
            self.optimiser.restart(p)
        return names

    def _grow(self, batches: list[tuple[Tensor, Tensor]]) -> tuple[str, ...]:
        """Test absent paths at the averaged weights and start the best one that pays."""
        config = self.config
        if config.objective != "evidence" or not config.grow or not absent_paths(self.model):
            return ()
        with self.average.applied():
            candidates = test_absent(
                self.model,
                batches,
                self.likelihood,
                bounds=self.prior.bounds,
                estimator=config.estimator,
                max_samples=config.grow_samples,
                weight=config.likelihood_weight,
                seed=int(torch.randint(2**31, (), generator=self.generator)),
            )
        best = next((c for c in candidates if c.test.ratio > config.grow_ratio), None)
        if best is None or best.test.gain <= config.grow_gain:
            return ()
        start_path(self.model, best, config.seed_size)
        self._forget(relaxed_layers(self.model)[best.layer].path(best.path))
        for group in path_groups(self.prior, best.layer, best.path):
            self.prior.set_precision(group, config.precision)
        return (f"{best.layer}.{best.path}",)

    def _decide_early(self) -> None:
        """Begin the final annealing now if the verdicts have been the same for long enough."""
        config = self.config
        settled = stable_for(self.history) >= config.patience
        if config.early_stop and settled and self.epoch < self.anneal_from:
            length = self.total - self.anneal_from
            self.anneal_from, self.total = self.epoch, self.epoch + length

    def finish(self, validation: Data | None) -> FitResult:
        """Put the averaged weights into the model, measure it once more, and report."""
        config = self.config
        self.average.copy_to_model()
        self.data.hold_out(0.0, self.generator)
        self.model.eval()
        found = self.measurement(
            config.report_samples, config.report_estimator, config.report_ekfac
        )
        report = build_report(
            self.model,
            self.prior,
            found,
            self.data.sample(config.report_samples, self.generator),
            lambda layer, verdict: agreement(self.history, layer, verdict, config.patience),
            config.objective,
            self._meta(validation),
        )
        return FitResult(
            self.model, self.prior, report, config, tuple(self.history), self.likelihood
        )

    def _meta(self, validation: Data | None) -> dict[str, str | float | int | None]:
        meta: dict[str, str | float | int | None] = {
            "epochs": self.epoch,
            "seed": self.config.seed,
            "n_data": self.data.n,
            "seconds": round(time.perf_counter() - self._started, 2),
            "likelihood": self.likelihood.name,
            "torch": torch.__version__,
        }
        if validation is not None:
            scores = score(self.model, validation, self.likelihood)
            meta.update({f"validation_{name}": value for name, value in scores.items()})
        return meta
