"""The posterior of a fitted network's weights, and the calibration of what it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from curvature import Data, KroneckerCurvature, Likelihood
from symlearn.calibration import N_BINS, calibration
from symlearn.predictive import LINKS, Posterior, Predictive
from symlearn.report import Calibration

if TYPE_CHECKING:
    from symlearn.fit.result import FitResult

MAP = "map"
"""Name of the prediction at the fitted weights alone, beside the links of `symlearn.predictive`."""


def posterior_of(result: FitResult, train: Data | None) -> Posterior:
    """See `FitResult.posterior`."""
    found = result.curvature if train is None else _measured(result, train)
    if found is None:
        raise ValueError(
            "a result from disk does not keep the curvature of its training data, on which "
            "uncertainty rests; pass them: train=(X, y), a Dataset or a DataLoader"
        )
    precision = result.prior.precisions_by_parameter()
    return Posterior(result.model, found, precision, result.likelihood)


def _measured(result: FitResult, train: Data) -> KroneckerCurvature:
    """Curvature as for the report of a fit, scaled to the number of its training samples."""
    config = result.config
    found = curvature.kronecker(
        result.model,
        train,
        result.likelihood,
        config.report_estimator,
        sharing=config.sharing,
        ekfac=config.ekfac,
        fallback=config.fallback,
        draws=config.report_draws,
        seed=config.seed,
    )
    return found.scaled(config.likelihood_weight * result.report.n_data / found.n_data)


def calibration_of(
    result: FitResult,
    x: Tensor | np.ndarray[Any, Any],
    y: Tensor | np.ndarray[Any, Any],
    link: str,
    n_bins: int,
    train: Data | None,
) -> Calibration:
    """See `FitResult.calibration`."""
    if result.likelihood.name != "categorical":
        raise ValueError(
            f"calibration is for class probabilities, not for a {result.likelihood.name} "
            "likelihood; its predictive states how uncertain it is"
        )
    if link == MAP:
        return map_calibration(result.model, (x, y), result.likelihood, n_bins)
    if link not in LINKS:
        raise ValueError(f"unknown link {link!r}; choose one of {[MAP, *LINKS]}")
    found = cast(Predictive, posterior_of(result, train).predictive(x, link=link))
    return calibration(found.probs, y, n_bins=n_bins, predictor=link)


@torch.no_grad()
def map_calibration(
    model: nn.Module, data: Data, likelihood: Likelihood, n_bins: int = N_BINS
) -> Calibration:
    """Calibration of a classifier at its weights, without their uncertainty.

    Args:
        model: A network with logits [N, K].
        data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        likelihood: The categorical likelihood.
        n_bins: Bins of the calibration errors.
    """
    probs, labels = [], []
    with curvature.evaluating(model):
        for x, y in curvature.batches(data, model, 512):
            outputs = curvature.outputs_of(model, x)
            labels.append(likelihood.check(outputs, y))
            # double: a probability that underflows would make the loss infinite
            probs.append(likelihood.predict(outputs.double()))
    return calibration(torch.cat(probs), torch.cat(labels), n_bins=n_bins, predictor=MAP)
