"""The outer loop: steps on weights and on precisions, growth and pruning, in one call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from curvature import Data
from symlearn.fit.config import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.fit.progress import Progress
from symlearn.fit.result import FitResult
from symlearn.relaxed import relaxed_layers

Callback: TypeAlias = Callable[[Fitting], object]


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
        callbacks: Called with the running `Fitting` after every epoch (after trials, once for all
            their epochs); one that returns True ends the fit.
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
        ...     symlearn.FitConfig(epochs=2, burn_in=0.0, progress=False))
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
