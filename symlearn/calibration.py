"""Calibration of class probabilities: do they mean what they say?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvature import Categorical
from curvature.checking import check_count
from symlearn.report.calibration import Calibration, CalibrationBin

N_BINS = 15
"""Bins of the calibration errors unless told (Guo et al. 2017)."""

_SUM = 1e-3  # by how much a row of probabilities may miss one: half precision's rounding


def calibration(
    probs: Tensor | np.ndarray[Any, Any],
    labels: Tensor | np.ndarray[Any, Any],
    *,
    n_bins: int = N_BINS,
    predictor: str = "probabilities",
) -> Calibration:
    """Accuracy, NLL, Brier score and expected calibration errors of class probabilities.

    Args:
        probs: Class probabilities [N, K]; rows sum to one.
        labels: Class indices [N].
        n_bins: Number of bins of both calibration errors.
        predictor: Name of what made the probabilities, for plots and reports.

    Raises:
        ValueError: If the probabilities are not finite, not in [0, 1], do not sum to one or are
            not [N, K] with N > 0 and K > 1; if the labels are no class indices; or if there is no
            bin.

    Example:
        >>> import torch, symlearn
        >>> probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.3, 0.7], [0.1, 0.9]])
        >>> found = symlearn.calibration(probs, torch.tensor([0, 1, 1, 1]), n_bins=5)
        >>> found.accuracy, round(found.ece, 3), round(found.brier, 3)
        (0.75, 0.15, 0.3)
    """
    probs, labels = _checked(torch.as_tensor(probs), torch.as_tensor(labels))
    check_count("n_bins", n_bins)
    picked = probs.gather(1, labels.unsqueeze(1)).squeeze(1)
    confidence, predicted = probs.max(1)
    right = (predicted == labels).double()
    bins = _bins(confidence, right, torch.linspace(0, 1, n_bins + 1, dtype=torch.float64))
    return Calibration(
        predictor=predictor,
        n_data=len(probs),
        accuracy=float(right.mean()),
        nll=float(-picked.log().mean()),
        brier=float((probs.square().sum(1) - 2 * picked + 1).mean()),
        ece=_error(bins),
        ece_equal_mass=_error(_bins(confidence, right, _quantiles(confidence, n_bins))),
        bins=bins,
    )


def _checked(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities in float64 and labels in int64, on the CPU."""
    if probs.ndim != 2 or len(probs) < 1 or probs.shape[1] < 2:
        raise ValueError(
            f"the probabilities have shape {list(probs.shape)}; give one row per sample and one "
            "column per class, [N, K] with N > 0 and K > 1"
        )
    probs = probs.detach().double().cpu()
    if not bool(torch.isfinite(probs).all()):
        raise ValueError("the probabilities contain NaN or infinite values")
    low, high, worst = probs.min(), probs.max(), (probs.sum(1) - 1).abs().max()
    if float(low) < 0 or float(high) > 1 + _SUM or float(worst) > _SUM:
        raise ValueError(
            f"the probabilities lie in [{float(low):.4g}, {float(high):.4g}] and a row misses the "
            f"sum one by {float(worst):.4g}; give probabilities, not logits"
        )
    return probs.clamp(max=1), Categorical().check(probs, labels.detach().cpu())


def _quantiles(confidence: Tensor, n_bins: int) -> Tensor:
    """Edges of bins of about equal numbers; equal confidences share a bin, whatever their order."""
    at = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    # numpy: torch.quantile refuses more than 2^24 numbers
    inner = torch.from_numpy(np.quantile(confidence.numpy(), at[1:-1].numpy()))
    return torch.cat([at[:1], inner, at[-1:]])


def _bins(confidence: Tensor, right: Tensor, edges: Tensor) -> tuple[CalibrationBin, ...]:
    """Bins ``(lower, upper]`` of confidences [N] in (0, 1] and of hits [N]."""
    index = torch.bucketize(confidence, edges[1:-1])  # a value on an edge goes below it
    size = len(edges) - 1
    counts = torch.bincount(index, minlength=size)
    sums = [torch.bincount(index, weights, size) for weights in (confidence, right)]
    means = [(total / counts).tolist() for total in sums]  # 0 / 0 is nan, and says so
    columns = (edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), *means)
    return tuple(CalibrationBin(*row) for row in zip(*columns, strict=True))


def _error(bins: tuple[CalibrationBin, ...]) -> float:
    """Expected calibration error over bins."""
    n = sum(part.n_data for part in bins)
    gaps = (part.n_data * abs(part.accuracy - part.confidence) for part in bins if part.n_data)
    return sum(gaps) / n
