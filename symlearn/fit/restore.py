"""A saved result back in memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import curvature
import priors
from curvature.checking import check_module, check_weights
from symlearn import architecture
from symlearn.fit import saving
from symlearn.fit.config import FitConfig
from symlearn.fit.history import EpochRecord
from symlearn.fit.result import FitResult
from symlearn.relaxed import check_layers, enable_paths
from symlearn.report import StructureReport

_WANTED = {"config", "noise", "prior_groups", "enabled", "architecture", "history"}


def load(folder: str | Path, model: nn.Module | None = None) -> FitResult:
    """Read a result written by `FitResult.save`.

    Args:
        folder: The folder.
        model: A relaxed network of the same architecture, needed where the saved network holds
            modules that are not standard ones; it is copied.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or foreign, the model is of another architecture, the
            network cannot be rebuilt and no model is given, or it is over a group of your own that
            is not registered (`symlearn.groups.register`), or is registered as another one.
        TypeError: If the folder is no path, or the model not a module.
    """
    if model is not None:
        check_module(model)
    facts, report, tensors = saving.read(folder, _WANTED)
    try:
        return _result(facts, report, tensors, model)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{Path(folder) / saving.FACTS} is damaged: {error!r}") from error


def _result(
    facts: dict[str, Any], report: Path, tensors: dict[str, Tensor], model: nn.Module | None
) -> FitResult:
    """The result of facts that have the right names."""
    config = FitConfig.from_dict(facts["config"])
    if model is not None:
        net = copy.deepcopy(model)
    elif facts["architecture"] is not None:
        net = architecture.build(facts["architecture"])
    else:
        raise ValueError(
            "the saved network holds modules that cannot be rebuilt from their names; pass a "
            "relaxed network of the same architecture: load(folder, model=wrap(...))"
        )
    _load_weights(net, facts["enabled"], _part(tensors, "model."))
    prior = priors.PathPrior(facts["prior_groups"], bounds=config.precision_bounds)
    prior.load_state_dict(_part(tensors, "prior."))
    likelihood = curvature.as_likelihood(config.likelihood)
    if isinstance(likelihood, curvature.Gaussian):
        likelihood = curvature.Gaussian(facts["noise"])
    history = tuple(EpochRecord.from_dict(record) for record in facts["history"])
    structure = StructureReport.from_json(report)
    return FitResult(net.eval(), prior, structure, config, history, likelihood)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load_weights(
    net: nn.Module, enabled: dict[str, list[str]], weights: dict[str, Tensor]
) -> None:
    check_layers(net, enabled)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the model does not fit the saved weights: {error}") from error
    check_weights(net)
    enable_paths(net, enabled)
    net.to(device)
