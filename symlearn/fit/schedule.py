"""When things happen in a fit: step sizes, evidence steps, and the start of the final annealing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from symlearn.fit.config import FitConfig

_FINAL_RATE = 0.02
_PARTS = 3  # a burn-in lasts at least one part of so many
_MOVED = ("total", "anneal_from", "pause", "_first", "_next")


class Schedule:
    """Times of a fit, in epochs; evidence steps get rarer while nothing moves.

    Args:
        config: Options of the fit.
        first_evidence: Most epochs before the first evidence step; 0 for a network that is trained.

    Attributes:
        total: Epochs planned.
        anneal_from: Epochs before the final annealing.
        pause: Epochs from the last evidence step to the next one.
    """

    def __init__(self, config: FitConfig, first_evidence: int) -> None:
        self.config = config
        self.total = config.epochs
        self.anneal_from = round(config.epochs * (1 - config.anneal))
        self.pause = config.evidence_every
        self._first = self._next = first_evidence or config.evidence_every

    @property
    def trial_epochs(self) -> int:
        """Epochs of training without a path that is removed on trial."""
        return min(self.config.challenge_epochs, max(1, self.anneal_from - self._first))

    def early_start_due(self, epoch: int) -> bool:
        """Whether the burn-in may end after the epoch: not before a third of it."""
        return self.config.early_start and epoch < self._first <= _PARTS * epoch

    def start_evidence(self, epoch: int) -> None:
        """End the burn-in: the first evidence step follows the epoch."""
        self._first = self._next = epoch

    def rate(self, epoch: int) -> float:
        """Share of the step sizes in the epoch after ``epoch`` ones: 1, then falling.

        Linearly to 2 % in the last epoch, or by half a cosine to zero after it.
        """
        length = max(1, self.total - self.anneal_from)
        if self.config.anneal_shape == "cosine":
            done = min(1.0, max(0, epoch - self.anneal_from) / length)
            return 0.5 * (1 + math.cos(math.pi * done))
        done = min(1.0, max(0, epoch + 1 - self.anneal_from) / length)
        return 1 - (1 - _FINAL_RATE) * done

    def evidence_due(self, epoch: int) -> bool:
        """Whether an evidence step follows the epoch."""
        config = self.config
        learning = epoch <= self.anneal_from or config.anneal_precisions
        return config.objective == "evidence" and learning and epoch >= self._next

    def trials_due(self, epoch: int) -> bool:
        """Whether paths of layers that have several are to be removed on trial."""
        start = max(self._first, self.anneal_from - self.trial_epochs)
        return start <= epoch <= self.anneal_from

    def precision_step(self, epoch: int) -> float:
        """Step of the precisions; after a longer pause a larger part of the way."""
        if self.config.method == "fixed_point":
            return 1.0 - math.pow(1 - self.config.step, self.pause / self.config.evidence_every)
        return self.config.step * self.rate(epoch - 1)

    def measured(self, epoch: int, settled: bool) -> None:
        """Note an evidence step after the epoch; if it changed little, the next is further off."""
        config = self.config
        pause = 2 * self.pause if settled else config.evidence_every
        pause = max(config.evidence_every, min(pause, config.evidence_pause))
        left = self.anneal_from - epoch
        if 0 < left < pause + config.evidence_every and not config.anneal_precisions:
            pause = left  # the last step just before precisions are held
        self.pause, self._next = pause, epoch + pause

    def anneal_now(self, epoch: int) -> None:
        """Begin the final annealing after the epoch, at its full length."""
        self.total += epoch - self.anneal_from
        self.anneal_from = epoch

    def state_dict(self) -> dict[str, int]:
        """The times that have been moved since the start."""
        return {name: getattr(self, name) for name in _MOVED}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` returned."""
        for name in _MOVED:
            setattr(self, name, state[name])
