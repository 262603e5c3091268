"""Where a network needs free paths: several starts, and refits with one path forced off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from curvature import Data
from curvature.checking import check_count, is_number
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.fit.state import PathKey
from symlearn.relaxed import relaxed_layers
from symlearn.report.rule import NOISE, tolerance
from symlearn.verdict.location import CONTROL, START, Location, Network
from symlearn.verdict.refit import MODES, exact, refit
from symlearn.verdict.several import best_of, continued
from symlearn.verdict.starts import STARTS, free_layers, on_in, started

REFIT_EPOCHS = 12


@dataclass(frozen=True)
class LocationResult:
    """Outcome of `locate`.

    Attributes:
        results: Name of the start -> its fit; "given" for a fit that was given.
        best: The fit with the largest log evidence, which the refits started from.
        report: Whether free paths are needed, and where.
    """

    results: dict[str, FitResult]
    best: FitResult
    report: Location

    def __str__(self) -> str:
        return str(self.report)


def locate(
    model: nn.Module | FitResult,
    train: Data,
    config: FitConfig | None = None,
    *,
    starts: Sequence[str] | None = None,
    refit_epochs: int = REFIT_EPOCHS,
    noise: float = NOISE,
    checkpoint_dir: str | Path | None = None,
    every: int = 1,
    keep: int = 3,
    resume: bool = False,
) -> LocationResult:
    """Say in which layers free paths are needed, and where that cannot be told.

    That a free path is needed is stable; in which layer it survives depends on how the free paths
    start. So the network is fitted from several starts, and the best of them (by exact evidence) is
    refitted without each of its free paths, once with all others as they are and once with others
    free to take over. What all networks share that are about as good as the best is decided.

    Args:
        model: A relaxed network; or a fit, which takes the place of the starts.
        train: The training data.
        config: Options of the fits; those of a fit that is given if None.
        starts: Names from `STARTS`; all by default, none for a fit that is given.
        refit_epochs: Epochs of each refit.
        noise: Nats per sample by which the evidences of two trainings of one network differ, such
            as the deviation over the number of data that `fit_seeds` reports.
        checkpoint_dir: Folder for checkpoints of the starts, in folders of their names.
        every: Epochs between checkpoints.
        keep: How many of a start are kept.
        resume: Go on from the checkpoints there are.

    Raises:
        ValueError: If no layer has both a strict path and a free one, starts are unknown or given
            along with a fit, or as `symlearn.fit`.
        TypeError: As `symlearn.fit`.
    """
    check_count("refit_epochs", refit_epochs)
    if not (is_number(noise) and noise >= 0):
        raise ValueError(f"noise is {noise!r}; give nats per sample, at least 0")
    fitted = isinstance(model, FitResult)
    _check_model(model.model if isinstance(model, FitResult) else model)
    _check_starts(starts, fitted)
    if isinstance(model, FitResult):
        config = _by_evidence(model.config if config is None else config)
        results = {"given": model}
    else:
        config = _by_evidence(FitConfig() if config is None else config)
        results = {}
        for name in STARTS if starts is None else starts:
            saving = {"every": every, "keep": keep, **continued(checkpoint_dir, name, resume)}
            start = started(model, name, config.seed)
            results[name] = fit(start, train, exact(config), **saving)
    best = best_of(results)
    networks = [
        _described(START, name, result, best.log_evidence)
        for name, result in results.items()
        if not fitted  # its evidence may not be exact
    ]
    networks += _refits(best, train, replace(config, epochs=refit_epochs))
    n_data = best.report.n_data
    limit = tolerance(n_data * config.likelihood_weight, noise)
    return LocationResult(results, best, Location.of(networks, n_data, limit))


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; give a relaxed network, or a fit")
    if not relaxed_layers(model):
        raise ValueError("the model has no relaxed layer; wrap it first: symlearn.wrap(model, x)")
    if not free_layers(model):
        raise ValueError(
            "no layer has a free path beside a stricter one, so there is nothing to locate; wrap "
            'with paths such as ("conv", "ffc")'
        )


def _check_starts(starts: Sequence[str] | None, fitted: bool) -> None:
    if starts is None:
        return
    if fitted:
        raise ValueError("a fit was given, which takes the place of the starts: leave starts out")
    if isinstance(starts, str):
        raise TypeError(f"starts is {starts!r}; give several, such as ({starts!r},)")
    unknown = [name for name in starts if name not in STARTS]
    if unknown or not starts or len(set(starts)) < len(starts):
        raise ValueError(
            f"starts are {list(starts)}; give some of {list(STARTS)}, none of them twice"
        )


def _by_evidence(config: FitConfig) -> FitConfig:
    if not isinstance(config, FitConfig):
        raise TypeError(f"config must be a FitConfig, got {type(config).__name__}")
    if config.objective != "evidence":
        raise ValueError(
            f"objective is {config.objective!r}; networks are compared by evidence: give a config "
            'with objective="evidence"'
        )
    return config


def _described(kind: str, name: str, result: FitResult, best: float) -> Network:
    behind = best - result.log_evidence
    return Network(kind, name, on_in(result.model), result.log_evidence, behind)


def _refits(best: FitResult, train: Data, config: FitConfig) -> list[Network]:
    """Refits without each free path, and without all of them, against one without any change."""
    on = [
        (layer, path)
        for layer, paths in free_layers(best.model).items()
        for path, found in paths.items()
        if found.enabled
    ]
    networks = []
    for mode in MODES:
        control = refit(best, train, config, (), mode)
        networks.append(_described(mode, CONTROL, control, control.log_evidence))
        taken: list[tuple[PathKey, ...]] = [(key,) for key in on]
        if len(on) > 1 and mode == "held":
            taken.append(tuple(on))
        for keys in taken:
            without = refit(best, train, config, keys, mode)
            name = "+".join(".".join(key).lstrip(".") for key in keys)
            networks.append(_described(mode, name, without, control.log_evidence))
    return networks
