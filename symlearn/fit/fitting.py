"""A fit in progress: epochs of weights, evidence steps, growth, pruning, and the end."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

from curvature import ALONE, Data, Reduction, check_rules
from symlearn.extract import extracted_after_fit
from symlearn.fit import randomness
from symlearn.fit.autocast import autocast
from symlearn.fit.challenge import Challenge, Refit, Rival, challenge, contested
from symlearn.fit.check import checked_after_fit
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first, null_loss
from symlearn.fit.facts import layer_structures, path_groups
from symlearn.fit.grow import absent_paths, start_best, switch_off_idle, test_absent
from symlearn.fit.history import EpochRecord, agreement, falls, plateaued, stable_for
from symlearn.fit.identity import check_same, identity
from symlearn.fit.posterior import map_calibration
from symlearn.fit.precisions import PrecisionSteps, Step
from symlearn.fit.processes import join, together
from symlearn.fit.prune import prune_rejected
from symlearn.fit.result import FitResult, build_report
from symlearn.fit.schedule import Schedule
from symlearn.fit.start import calibrate, fresh_state
from symlearn.fit.state import PathKey, State
from symlearn.fit.weights import WeightAverage, train_epoch
from symlearn.report import GUESSING, LayerStructure
from symlearn.scoring import score

# A network that predicts much better than the label frequencies is trained already; one that has
# almost no loss left has memorised its data, whose gradients then say nothing about absent paths.
# In between, it has learned enough for its curvature to mean something.
_LEARNED, _TRAINED, _MEMORISED = 0.75, 0.5, 0.05
# nats per sample by which two sketches of the same network's evidence differ (measured)
_EVIDENCE_NOISE = 0.02
_VOTES = 10  # evidence steps that a verdict's agreement is counted over
# plain attributes of a fit that change
_COUNTERS = ("epoch", "stopped", "_since_test", "_null_loss")


class Fitting:
    """A fit in progress; callbacks see it after every epoch.

    Args:
        model: The relaxed network; it is trained in place.
        train: The training data.
        config: Options.
        resume: An earlier result to start from, or the `state_dict` of a fit to go on with.
        processes: Processes that fit the network together.

    Attributes:
        state: Model, prior, optimiser and averages.
        history: One record per epoch so far.
        challenges: Paths removed on trial.
        precisions: Evidence steps.
        epoch: Epochs done.
        stopped: Whether a callback has ended the fit.
        schedule: When things happen.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Data,
        config: FitConfig,
        resume: FitResult | dict[str, Any] | None = None,
        processes: Reduction = ALONE,
    ) -> None:
        self.config, self.processes = config, processes
        self.generator = torch.Generator().manual_seed(config.seed)
        self.data = TrainData(train, model, config.batch_size, config.pass_size)
        self.precisions = PrecisionSteps(config, self.data, self.generator, processes)
        self.history: list[EpochRecord] = []
        self.challenges: list[Challenge] = []
        self.epoch = 0
        self.stopped = False
        self._losses: list[float] = []
        self._challenged: set[PathKey] = set()
        self._null_loss = float("nan")
        self._since_test, self._started = config.grow_every - 1, time.perf_counter()
        self._identity = identity(model)
        self.state, self._outputs = fresh_state(model, config, self.data)
        self.schedule = Schedule(config, round(config.burn_in * config.epochs))
        if isinstance(resume, dict):
            with together(processes, "resume the fit"):
                self.load_state_dict(resume)
        else:
            self._begin(resume)

    def _begin(self, earlier: FitResult | None) -> None:
        """Get ready for the first epoch, from an earlier result if there is one."""
        if earlier is not None:
            self.state.start_from(earlier.model, earlier.prior, earlier.likelihood)
        join(self)
        calibrate(self.model, self.config, self.data, self.generator)
        check_rules(self.model, first(self.data.everything())[0][:2])
        if self._grows:
            switch_off_idle(self.model)
        self.state.average = WeightAverage(self.model, self.config.average)
        self.state.sync_precisions()
        if self._look_at_start():
            self.schedule = Schedule(self.config, 0)
            # a trained network may lack a path from the start: test before weights move
            self.grow()

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the fit depends on, between two epochs: plain values and tensors.

        No curvature is among them: each evidence step measures its own.
        """
        return {
            "config": self.config.to_dict(),
            "identity": self._identity,
            "samples": self.data.fingerprint(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "seconds": time.perf_counter() - self._started,
            "losses": list(self._losses),
            "history": [record.to_dict() for record in self.history],
            "challenges": [trial.to_dict() for trial in self.challenges],
            "challenged": [list(key) for key in self._challenged],
            "schedule": self.schedule.state_dict(),
            "data": self.data.state_dict(),
            "state": self.state.state_dict(),
            "generator": self.generator.get_state(),
            "random": randomness.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the same model, data and config.

        Raises:
            ValueError: If it is of another model, other data or another config.
        """
        check_same(saved, self.config, self._identity, self.data.fingerprint())
        for name in _COUNTERS:
            setattr(self, name, saved["counters"][name])
        self._started = time.perf_counter() - saved["seconds"]
        self._losses = list(saved["losses"])
        self.history = [EpochRecord.from_dict(record) for record in saved["history"]]
        self.challenges = [Challenge.from_dict(trial) for trial in saved["challenges"]]
        self._challenged = {(layer, path) for layer, path in saved["challenged"]}
        self.schedule.load_state_dict(saved["schedule"])
        self.state.load_state_dict(saved["state"])
        self.data.load_state_dict(saved["data"])
        self.generator.set_state(saved["generator"])
        randomness.load_state_dict(saved["random"])

    @property
    def ended(self) -> bool:
        """Whether no epoch is left, or a callback has ended the fit."""
        return self.stopped or self.epoch >= self.total

    @property
    def model(self) -> nn.Module:
        """The network being trained."""
        return self.state.model

    @property
    def total(self) -> int:
        """Epochs planned."""
        return self.schedule.total

    @property
    def _grows(self) -> bool:
        return self.config.grow and self.config.objective == "evidence"

    def _look_at_start(self) -> bool:
        """Whether the network is trained already; sets data aside if it has memorised them."""
        config = self.config
        base = self._null_loss = null_loss(self.data, self.state.likelihood, self._outputs)
        loss = score(self.model, self.data.everything(), self.state.likelihood)["nll"]
        automatic = 0.1 if loss < _MEMORISED * base else 0.0
        fraction = automatic if isinstance(config.holdout, str) else config.holdout
        if self._grows and fraction:
            self._set_aside(fraction)
        return loss < _TRAINED * base

    def _set_aside(self, fraction: float) -> None:
        """Hold data out; the weights and the evidence see the same N."""
        self.data.hold_out(fraction, self.generator)
        self.state.optimiser.set_n_data(self._n_data())

    def _n_data(self) -> float:
        """Samples that the weights see, times the likelihood weight."""
        return len(self.data.indices) * self.config.likelihood_weight

    def advance(self) -> None:
        """One epoch of weights and an evidence step where one is due, or the epochs of trials."""
        if self.schedule.trials_due(self.epoch):
            if len(self.data.held):
                self._set_aside(0.0)
            paths = self._unchallenged()
            if paths:
                self._challenge(paths)
                return
        self.state.optimiser.set_lr(self.config.learning_rate * self.schedule.rate(self.epoch))
        self._losses.append(self._train(self.state))
        self.epoch += 1
        learned = self._losses[-1] < _LEARNED * self._null_loss
        seen = len(self._losses) > self.config.evidence_every  # enough to see the loss slow down
        if learned and seen and self.schedule.early_start_due(self.epoch) and self._slow():
            self.schedule.start_evidence(self.epoch)
        self._record(**self._evidence_step() if self.schedule.evidence_due(self.epoch) else {})
        self._decide_early()

    def _record(self, **facts: Any) -> None:
        """Add a record of the epoch that has just ended."""
        prior = self.state.prior
        self.history.append(
            EpochRecord(
                self.epoch,
                time.perf_counter() - self._started,
                self.config.learning_rate * self.schedule.rate(self.epoch - 1),
                self._losses[-1],
                precision=dict(zip(prior.groups, prior.precision.tolist(), strict=True)),
                noise=getattr(self.state.likelihood, "noise", 1.0),
                **facts,
            )
        )

    def _train(self, state: State) -> float:
        config, batches = self.config, self.data.epoch(self.generator)
        parts = (state.likelihood, state.optimiser, state.average, self.processes)
        with autocast(state.model, config.autocast):
            return train_epoch(state.model, batches, *parts, config.micro_batch)

    def _evidence_step(self) -> dict[str, Any]:
        """Move precisions, switch paths off and on; returns the facts for the record."""
        step = self.precisions.take(self.state, self.schedule.precision_step(self.epoch))
        pruned = prune_rejected(self.state, step.tests, self.config.off_after)
        verdicts = self._verdicts(step)
        moved = abs(step.after - step.before) >= _EVIDENCE_NOISE * self.data.n
        doubted = bool(pruned) or any(self.state.rejected.values())
        grown = self.grow() if self.epoch < self.schedule.anneal_from and self._test_due() else ()
        same = verdicts == next((r.verdicts for r in reversed(self.history) if r.verdicts), None)
        self.schedule.measured(self.epoch, settled=same and not (moved or doubted or grown))
        return {
            "log_evidence": step.before,
            "log_likelihood": step.found.log_likelihood,
            "verdicts": verdicts,
            "grown": grown,
            "pruned": pruned,
        }

    def _test_due(self) -> bool:
        """Whether absent paths are to be tested at this evidence step.

        While the paths that are present still learn fast, an absent one always seems to pay: it
        would speed up what they are about to do. So tests wait until the loss has slowed down.
        """
        if not self._slow():
            return False
        self._since_test = (self._since_test + 1) % self.config.grow_every
        return self._since_test == 0

    def _slow(self) -> bool:
        """Whether the training loss does not fall quickly."""
        outputs = self._outputs if self.state.likelihood.name == "gaussian" else None
        return not falls(self._losses, self.config.evidence_every, self.config.when_slow, outputs)

    def grow(self) -> tuple[str, ...]:
        """Test absent paths at the averaged weights and start the best one that pays."""
        config, state = self.config, self.state
        if not self._grows or not absent_paths(state.model):
            return ()
        batches = self.data.held_out() or self.data.sample(0, self.generator)
        with autocast(state.model, config.autocast):
            with state.average.applied():
                candidates = test_absent(
                    state.model,
                    batches,
                    state.likelihood,
                    bounds=state.prior.bounds,
                    estimator=config.estimator,
                    max_samples=config.grow_samples,
                    curvature_samples=config.curvature_samples,
                    weight=config.likelihood_weight,
                    seed=self.precisions.seed(),
                    processes=self.processes,
                )
            shared = (state.likelihood, self.processes)
            key = start_best(state.model, candidates, config, batches, *shared)
        if key is None:
            return ()
        state.restart(key)
        for group in path_groups(state.prior, *key):
            state.prior.set_precision(group, config.precision)
        state.sync_precisions()
        return (".".join(key),)

    def _decide_early(self) -> None:
        """Begin the final annealing now if verdicts and evidence have settled."""
        config = self.config
        if (
            config.early_stop
            and self.epoch < self.schedule.anneal_from
            and stable_for(self.history) >= config.patience
            and plateaued(self.history, config.patience, _EVIDENCE_NOISE * self.data.n)
        ):
            self.schedule.anneal_now(self.epoch)

    def _unchallenged(self) -> list[PathKey]:
        """Paths that are still to be removed on trial."""
        if not self._grows or not self.config.challenge_epochs:
            return []
        return [key for key in contested(self.model) if key not in self._challenged]

    def _challenge(self, paths: list[PathKey]) -> None:
        """Remove paths on trial, round by round until no removal pays; then the annealing."""
        self._challenged.update(paths)
        while paths:
            refit, found = challenge(
                self.state, paths, self._refit, self._n_data(), _EVIDENCE_NOISE
            )
            self.state = refit.state
            self.challenges += found
            self.generator.manual_seed(self.precisions.seed())  # other batches from here on
            for left, loss in zip(range(len(refit.losses))[::-1], refit.losses, strict=True):
                self._losses.append(loss)
                self.epoch += 1
                self._record(**{} if left else self._after_trials(refit.last, found))
            better = [c.key for c in found if c.without_path > c.with_path and not c.removed]
            paths = [key for key in contested(self.model) if key in better]
        self.schedule.anneal_now(self.epoch)

    def _verdicts(self, step: Step) -> dict[str, str]:
        facts = layer_structures(self.model, self.state.prior, step.found, {}).items()
        return {name: LayerStructure.of(name, paths).by_shares for name, paths in facts}

    def _after_trials(self, step: Step, found: list[Challenge]) -> dict[str, Any]:
        return {
            "log_evidence": step.after,
            "log_likelihood": step.found.log_likelihood,
            "verdicts": self._verdicts(step),
            "pruned": tuple(trial.path for trial in found if trial.removed),
        }

    def _refit(self, state: State, rival: Rival | None) -> Refit:
        """Train a state on for a trial; every call sees the same batches and sketches."""
        last, losses = self.schedule.trial_epochs - 1, list[float]()
        start = self.generator.get_state()
        with torch.random.fork_rng():
            for epoch in range(last + 1):
                losses.append(self._train(state))
                over = epoch == last or (rival is not None and rival.out_of_reach(losses))
                if over or epoch % self.config.evidence_every == 0:
                    step = self.precisions.take(state, self.config.step)
                if over:
                    break
        self.generator.set_state(start)
        return Refit(state, tuple(losses), step)

    def finish(self, validation: Data | None = None, *, brief: bool = False) -> FitResult:
        """Put the averaged weights into the model, and report on it (``brief``: `check_report`)."""
        config, state = self.config, self.state
        state.average.copy_to_model()
        self.data.hold_out(0.0, self.generator)
        state.model.eval()
        found = self.precisions.measure(
            state, config.report_samples, config.report_estimator, draws=config.report_draws
        )
        batches = self.data.sample(config.report_samples, self.generator)
        report = build_report(
            state.model,
            state.prior,
            found,
            batches,
            lambda layer, verdict: agreement(self.history, layer, verdict, _VOTES),
            config.objective,
            self.data.n,
            {**self._meta(validation), "clamped_mass": found.curvature.clamped_mass},
        )
        report = checked_after_fit(report, state.model, batches, config.check_images, brief)
        if validation is not None and state.likelihood.name == "categorical":
            calibrated = map_calibration(state.model, validation, state.likelihood)
            report = report.with_calibration(calibrated)
        parts = (config, tuple(self.history), state.likelihood, found.curvature)
        return extracted_after_fit(FitResult(state.model, state.prior, report, *parts), batches)

    def _meta(self, validation: Data | None) -> dict[str, str | float | int | None]:
        meta: dict[str, str | float | int | None] = {
            "epochs": self.epoch,
            "seed": self.config.seed,
            "seconds": round(time.perf_counter() - self._started, 2),
            "likelihood": self.state.likelihood.name,
            "torch": torch.__version__,
        }
        if not math.isnan(self._null_loss):
            meta[GUESSING] = -self._null_loss * self._n_data()
        meta |= {f"without {trial.path}": trial.outcome for trial in self.challenges}
        if validation is not None:
            scores = score(self.model, validation, self.state.likelihood)
            meta |= {f"validation_{name}": value for name, value in scores.items()}
        return meta
