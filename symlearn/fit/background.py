"""What a report keeps of the fit that made it: history, coverage, pictures, options, setting."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from typing import Any

import torch

from curvature import Coverage
from symlearn.fit.checkpoint import versions
from symlearn.fit.history import EpochRecord
from symlearn.fit.pictures import pictures_of
from symlearn.fit.result import FitResult
from symlearn.report.background import CoveredParameters, Epoch


def with_background(result: FitResult) -> FitResult:
    """The result of a fit, its report with all that its page shows beside the layers.

    Args:
        result: A result that has its curvature.
    """
    covered = () if result.curvature is None else _grouped(result.curvature.coverage)
    report = replace(
        result.report,
        history=tuple(map(_epoch, result.history)),
        coverage=covered,
        pictures=pictures_of(result.model),
        config={name: _plain(value) for name, value in result.config.to_dict().items()},
        environment={**versions(), **_machine(result)},
    )
    return replace(result, report=report)


def _epoch(record: EpochRecord) -> Epoch:
    numbers = (record.log_evidence, record.log_likelihood)
    evidence, likelihood = (math.nan if number is None else number for number in numbers)
    changes = (record.grown, record.pruned)
    return Epoch(record.epoch, record.train_nll, evidence, likelihood, *changes)


def _grouped(table: Coverage) -> tuple[CoveredParameters, ...]:
    """Parameters covered alike, in the order of the model."""
    rows: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in table:
        rows.setdefault((row.kind, row.reason), []).append((row.name, math.prod(row.shape)))
    return tuple(
        CoveredParameters(*key, sum(n for _, n in members), tuple(name for name, _ in members))
        for key, members in rows.items()
    )


def _plain(value: Any) -> str | float | int | None:
    """An option as one value; several numbers as a text."""
    return value if value is None or isinstance(value, (str, float, int)) else str(value)


def _machine(result: FitResult) -> dict[str, str]:
    weight = next(result.model.parameters())
    device = str(weight.device)
    if weight.device.type == "cuda":
        device = f"{device} ({torch.cuda.get_device_name(weight.device)})"
    return {
        "platform": platform.platform(),
        "device": device,
        "numbers": str(weight.dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }
