"""A fit without numbers: every kind of work of a fit once, to see what memory it takes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from curvature import Data, KroneckerCurvature
from symlearn.fit.autocast import autocast
from symlearn.fit.challenge import contested
from symlearn.fit.config import FitConfig
from symlearn.fit.evidence import active_groups, evidence_of
from symlearn.fit.facts import is_bias
from symlearn.fit.fitting import Fitting
from symlearn.fit.precisions import Step
from symlearn.fit.state import PathKey, State
from symlearn.fit.tree import split
from symlearn.fit.weights import train_epoch
from symlearn.memory.live import OTHER, LiveBytes, Peak
from symlearn.memory.numberless import numberless, without_numbers
from symlearn.relaxed import relaxed_layers

_BATCHES = 2  # the first makes the sums, the second is added to them
WEIGHTS, FACTORS = "weights", "factors"


@dataclass(frozen=True)
class Samples:
    """What the training data look like.

    Attributes:
        x: Inputs of some samples on the model's device, [N', C, *size].
        y: Their targets.
        n: Number of all samples.
        batch_size: Samples in a batch of a loader; None where `FitConfig.batch_size` decides.
    """

    x: Tensor
    y: Tensor
    n: int
    batch_size: int | None

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """That many samples, or all there are, without numbers."""
        count = min(size, self.n)
        x, y = (t.new_empty((count, *t.shape[1:])) for t in (self.x, self.y))
        return x, y

    @property
    def bytes_each(self) -> int:
        """Bytes of one sample."""
        return sum(t[:1].numel() * t.element_size() for t in (self.x, self.y))


def idle_paths(model: nn.Module, config: FitConfig) -> list[PathKey]:
    """Paths that a fit would switch off at its start, and test now and then."""
    if not (config.grow and config.objective == "evidence"):
        return []
    return [
        (layer_name, path_name)
        for layer_name, layer in relaxed_layers(model).items()
        for path_name, path in layer.named_paths().items()
        if not (path.enabled and path.contributes())
    ]


def rehearse(
    model: nn.Module, samples: Samples, config: FitConfig, checkpoints: bool = False
) -> dict[str, Peak]:
    """Peaks of memory by phase of a fit; all paths are taken to be on.

    Args:
        model: The relaxed network.
        samples: The training data.
        config: Options of the fit.
        checkpoints: Whether checkpoints are written.
    """
    idle = idle_paths(model, config)
    with numberless() as mode, torch.random.fork_rng(), LiveBytes() as live:
        stage = _Stage(live, without_numbers(mode, model), samples, _short(config))
        stage.weights()
        if config.objective == "evidence":
            stage.evidence()
        if idle:
            stage.growth(idle)
        if config.objective == "evidence":
            stage.trials()
        if checkpoints:
            stage.checkpoint()
        stage.report()
    return stage.peaks


def _short(config: FitConfig) -> FitConfig:
    """Options with the same peaks that take less time."""
    estimators: dict[str, Any] = {
        name: "truncated" if getattr(config, name) == "exact" else getattr(config, name)
        for name in ("estimator", "report_estimator")
    }
    draws = min(2, config.report_draws)  # a graph is kept for one more, or it is not
    return replace(config, **estimators, report_draws=draws, holdout=0.0)


@dataclass
class _Stage:
    """A fit without numbers, the peaks of its phases so far, and what an evidence step leaves."""

    live: LiveBytes
    model: nn.Module
    samples: Samples
    config: FitConfig
    peaks: dict[str, Peak] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.phase("start"):
            self.run = self.fitting(_BATCHES)
            self.label(self.run.state)

    def fitting(self, batches: int) -> Fitting:
        """A fit on that many of the largest batches that are passed through the network."""
        config, size = self.config, self.samples.batch_size
        with self.live.paused():
            data: Data
            if size is None:
                data = self.samples.take(batches * config.pass_size)
            else:
                data = [self.samples.take(size) for _ in range(batches)]
        return Fitting(self.model, data, replace(config, grow=False))

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Note the peak inside."""

        def note(peak: Peak) -> None:
            self.peaks[name] = peak

        return self.live.phase(note)

    def label(self, state: State, found: KroneckerCurvature | None = None) -> None:
        """Say what the tensors of a state and a curvature are."""
        params = list(state.model.parameters())
        moments = [value for values in state.optimiser.state.values() for value in values.values()]
        kept = [
            *params,
            *state.model.buffers(),
            *(p.grad for p in params if p.grad is not None),
            *(value for value in moments if isinstance(value, Tensor)),
            *state.average.values.values(),
        ]
        self.live.label(WEIGHTS, kept)
        if found is not None:
            factors = [f for block in found.values() for f in block.factors]
            self.live.label(FACTORS, (f.unscaled for f in factors))

    def train(self, state: State, batches: int) -> None:
        """A few weight steps."""
        run = self.run
        some = itertools.islice(run.data.epoch(run.generator), batches)
        parts = (state.likelihood, state.optimiser, state.average, run.processes)
        with autocast(state.model, self.config.autocast):
            train_epoch(state.model, some, *parts, self.config.micro_batch)

    def measure(self, state: State) -> Step:
        """An evidence step, in which one group of weights stands for all: the largest."""
        run, config = self.run, self.config
        with state.average.applied():
            found = run.precisions.measure(state, config.curvature_samples, config.estimator)
        before = evidence_of(state.prior, found)
        groups = [g for g in active_groups(state.prior, found.curvature) if not is_bias(g)]
        sizes = {g: sum(found.params[n].numel() for n in state.prior.groups[g]) for g in groups}
        largest = sorted(groups, key=lambda group: sizes[group])[-1:]
        tests = state.prior.update(found.curvature, found.params, found.gradients, groups=largest)
        self.label(state, found.curvature)
        return Step(found, before, before, tests)

    def weights(self) -> None:
        """Weight steps."""
        with self.phase("weight step"):
            self.train(self.run.state, _BATCHES)
            self.label(self.run.state)

    def evidence(self) -> None:
        """An evidence step; what it leaves is there while paths are tested, or removed on trial."""
        before = self.live.kinds()
        with self.phase("evidence step"):
            step = self.measure(self.run.state)
        self.left = dict(Counter(self.live.kinds()) - Counter(before))
        del step

    def growth(self, idle: list[PathKey]) -> None:
        """An evidence step and a test of the paths that are absent at the start.

        The test keeps samples, so that its memory grows with their number: it is looked at for two
        numbers, and the rest is on the line through both.
        """
        for layer, path in idle:
            relaxed_layers(self.model)[layer].path(path).switch_off()
        step = self.measure(self.run.state)
        sizes = self._tested_batches()
        found: list[Peak] = []
        for batches in sizes:
            run = self.fitting(batches)
            run.config = replace(self.config, grow=True)
            with self.live.phase(found.append):
                run.grow()
            self.label(run.state, step.found.curvature)
        del step
        self.peaks["growth"] = _extrapolated(found, sizes, self._most_tested())
        for layer, path in idle:
            relaxed_layers(self.model)[layer].path(path).switch_on()

    def _tested_batches(self) -> list[int]:
        """Numbers of batches for which growth is looked at."""
        most = self._most_tested()
        return [most] if most <= 2 * _BATCHES else [_BATCHES, 2 * _BATCHES]

    def _most_tested(self) -> int:
        """Batches that are read to find directions for absent paths."""
        size = self.samples.batch_size or self.config.pass_size
        samples = min(2 * self.config.grow_samples, self.samples.n)  # half of each batch is kept
        return max(1, math.ceil(samples / size))

    def trials(self) -> None:
        """A path removed on trial: an evidence step beside two more networks and what one left."""
        config = self.config
        if not (contested(self.model) and config.challenge_epochs and config.grow):
            return
        peak = self.peaks["evidence step"]
        kinds = Counter(peak.kinds)
        state = kinds[WEIGHTS]
        kinds.update({**self.left, WEIGHTS: 2 * state})
        self.peaks["trials"] = Peak(sum(kinds.values()), dict(kinds))

    def checkpoint(self) -> None:
        """The state of the fit, copied to the CPU and encoded."""
        with self.phase("checkpoint"):
            _, tensors = split(self.run.state.state_dict())
            # safetensors turns tensors into bytes, and all bytes into those of a file
            encoded = [t.clone() for t in (*tensors.values(), *tensors.values())]
            self.live.label(WEIGHTS, encoded)

    def report(self) -> None:
        """The last evidence step and what is told of the layers."""
        with self.phase("report"):
            result = self.run.finish(brief=True)
            self.label(self.run.state, result.curvature)


def _extrapolated(found: list[Peak], sizes: list[int], size: int) -> Peak:
    """The peak at a size, on the line through those at two others (or the one there is)."""
    if len(found) == 1:
        return found[0]
    steps = (size - sizes[1]) / (sizes[1] - sizes[0])
    more = round(steps * (found[1].total - found[0].total))
    kinds = {**found[1].kinds, OTHER: found[1].kinds.get(OTHER, 0) + more}
    return Peak(found[1].total + more, kinds)
