"""What happened in a fit, epoch by epoch, and when its verdicts have settled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a fit.

    Attributes:
        epoch: Number of the epoch, from 1.
        seconds: Wall-clock time since the start of the fit.
        learning_rate: Step size of the weights.
        train_nll: Mean negative log likelihood of the training batches, in nats.
        log_evidence: Log evidence in nats at the evidence step after this epoch, or None.
        log_likelihood: ``log p(D | theta)`` at that step, the part of the log evidence that is the
            fit to the data, or None; the difference is the Occam factor.
        precision: Prior precision by group, after the evidence step.
        verdicts: Verdict by layer at the evidence step, by shares alone; or empty.
        grown: Paths started after this epoch, as "layer.path".
        pruned: Paths switched off after this epoch.
        noise: Standard deviation of gaussian noise.
    """

    epoch: int
    seconds: float
    learning_rate: float
    train_nll: float
    log_evidence: float | None = None
    precision: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    grown: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    noise: float = 1.0
    log_likelihood: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON-ready dict."""
        return {**asdict(self), "grown": list(self.grown), "pruned": list(self.pruned)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Inverse of `to_dict`."""
        return cls(**{**data, "grown": tuple(data["grown"]), "pruned": tuple(data["pruned"])})


def stable_for(history: list[EpochRecord]) -> int:
    """Epochs at the end of the history over which verdicts and paths have been the same."""
    steps = [record for record in history if record.verdicts]
    since = history[-1].epoch if history else 0
    for record in reversed(steps):
        if record.verdicts != steps[-1].verdicts:
            break
        since = record.epoch
        if record.grown or record.pruned:
            break
    return history[-1].epoch - since if history else 0


def agreement(history: list[EpochRecord], layer: str, verdict: str, last: int) -> float:
    """Share of a layer's last evidence steps that had the given verdict; nan if there is none.

    Only steps since the layer's paths last changed count: earlier ones speak of another layer.
    """
    seen: list[str] = []
    for record in reversed(history):
        if _names(record.grown, layer) or len(seen) == last:
            break
        if layer in record.verdicts:
            seen.append(record.verdicts[layer])
        if _names(record.pruned, layer):
            break
    return seen.count(verdict) / len(seen) if seen else float("nan")


def _names(paths: tuple[str, ...], layer: str) -> bool:
    """Whether any "layer.path" belongs to the layer."""
    return any(path.rpartition(".")[0] == layer for path in paths)


def plateaued(history: list[EpochRecord], epochs: int, tolerance: float) -> bool:
    """Whether the last epochs did not raise the best log evidence by the tolerance, in nats."""
    values = [(r.epoch, r.log_evidence) for r in history if r.log_evidence is not None]
    recent = [value for epoch, value in values if epoch > history[-1].epoch - epochs]
    before = [value for epoch, value in values if epoch <= history[-1].epoch - epochs]
    return bool(recent and before) and max(recent) - max(before) < tolerance


def falls(losses: Sequence[float], every: int, share: float, outputs: int | None = None) -> bool:
    """Whether the training loss has fallen below a share of itself in some epochs.

    The loss of a density may be negative. What is compared then is the residual that it stands for:
    a fall by ``log r`` nats per output is one of the residual to the share r.

    Args:
        losses: Mean negative log likelihood of each epoch, in nats.
        every: Epochs.
        share: The share.
        outputs: Number of outputs of a density; None for probabilities of classes.
    """
    if len(losses) <= every:
        return False
    now, then = losses[-1], losses[-every - 1]
    return now < share * then if outputs is None else now - then < outputs * math.log(share)
