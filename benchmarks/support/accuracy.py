"""What an estimator's error costs: in the log evidence, and in the precisions learned from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import curvature
import priors
from benchmarks.support import nets
from benchmarks.support.harness import Cell, median

COLUMNS = (
    *("moment", "train NLL", "exact log evidence", "estimator", "mass not sent exactly"),
    *("evidence error, nats", "worst", "log precision error", "worst"),
)
_LOW, _HIGH = math.log(1e-8), math.log(1e12)


@dataclass(frozen=True)
class Learned:
    """The precisions that maximise the evidence at given weights, one per layer.

    Attributes:
        log_evidence: The evidence at its maximum, in nats.
        log_precisions: ``log delta`` [G].
    """

    log_evidence: float
    log_precisions: Tensor


def learn(net: nn.Module, found: curvature.KroneckerCurvature) -> Learned:
    """Maximise the evidence over one precision per layer; the weights stay."""
    params = dict(net.named_parameters())
    groups: dict[str, list[str]] = {}
    for name in found:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    logs = []
    for members in groups.values():
        lam = torch.cat([found[name].eigenvalues.double() for name in members])
        norm = sum(float(params[name].detach().double().square().sum()) for name in members)
        logs.append(log_precision(lam, norm))
    prior = priors.PathPrior(groups, torch.tensor(logs, dtype=torch.float64).exp())
    value = priors.log_evidence(found.log_likelihood, found, params, prior)
    return Learned(value, prior.log_precision)


def log_precision(eigenvalues: Tensor, norm: float) -> float:
    """``log delta`` at the maximum of the evidence, by bisection.

    It solves ``delta ||theta||^2 = sum lambda / (lambda + delta)`` (MacKay 1992), whose left side
    rises and whose right side falls in delta: there is one solution.

    Args:
        eigenvalues: Curvature lambda [P].
        norm: ``||theta||^2``.
    """
    low, high = _LOW, _HIGH
    for _ in range(60):
        middle = 0.5 * (low + high)
        delta = math.exp(middle)
        falls = delta * norm > float((eigenvalues / (eigenvalues + delta)).sum())
        low, high = (low, middle) if falls else (middle, high)
    return 0.5 * (low + high)


def moment(
    net: nn.Module,
    batches: nets.Batches,
    when: str,
    estimators: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> list[list[Cell]]:
    """Errors of estimators against the exact pass at the present weights: rows for `COLUMNS`.

    Args:
        net: The network.
        batches: Its training data.
        when: What to call the moment.
        estimators: Name to the settings of `curvature.kronecker`.
        seeds: Seeds of the sampling estimators.
    """
    loss = nets.loss_of(net, batches)
    exact = learn(net, nets.decomposed(net, batches, "exact"))
    rows: list[list[Cell]] = []
    for name, settings in estimators.items():
        found = [nets.decomposed(net, batches, **settings, seed=seed) for seed in seeds]
        learned = [learn(net, one) for one in found]
        nats = [abs(one.log_evidence - exact.log_evidence) for one in learned]
        logs = [float((one.log_precisions - exact.log_precisions).abs().max()) for one in learned]
        row: list[Cell] = [when, loss, exact.log_evidence, name, found[0].residual_mass]
        rows.append([*row, median(nats), max(nats), median(logs), max(logs)])
    return rows
