"""The same fit from several seeds: is the verdict the data's, or the seed's?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from torch import nn

from curvature import Data
from curvature.checking import is_seed
from symlearn.atomic import as_folder
from symlearn.fit import FitConfig, FitResult, fit
from symlearn.fit.loop import Callback
from symlearn.verdict.seedsreport import SeedsReport
from symlearn.verdict.several import best_of, continued

SEEDS = (0, 1, 2)
SUMMARY = "seeds.json"

Factory: TypeAlias = Callable[[int], nn.Module]


@dataclass(frozen=True)
class SeedsResult:
    """Outcome of `fit_seeds`.

    Attributes:
        results: Seed -> its fit.
        report: Mean, spread and verdict of each layer.
    """

    results: dict[int, FitResult]
    report: SeedsReport

    @property
    def best(self) -> FitResult:
        """The fit with the largest log evidence."""
        return best_of(self.results)

    def save(self, folder: str | Path) -> None:
        """Write each fit to a folder "seed-<seed>" (`symlearn.load`), and the report as JSON.

        Raises:
            FileExistsError: If one of these folders holds something other than a result.
        """
        folder = as_folder(folder, "folder")
        for seed, result in self.results.items():
            result.save(folder / f"seed-{seed}")
        self.report.to_json(folder / SUMMARY)

    def __str__(self) -> str:
        return str(self.report)


def fit_seeds(
    model: nn.Module | Factory,
    train: Data,
    config: FitConfig | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
    validation: Data | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: str | Path | None = None,
    every: int = 1,
    keep: int = 3,
    resume: bool = False,
) -> SeedsResult:
    """Fit the same network from several seeds, and say which verdicts hold whatever the seed.

    A verdict is "undecided" where seeds differ too much, where their checks disagree with the
    evidence, or where there are too few of them: three that agree are the fewest.

    Args:
        model: A relaxed network, whose weights all seeds start from; or a function from a seed to
            one, so that initial weights differ as well.
        train: Training data, as for `symlearn.fit`.
        config: Options; its seed is replaced.
        seeds: Different whole numbers.
        validation: As for `symlearn.fit`.
        callbacks: As for `symlearn.fit`.
        checkpoint_dir: Folder for checkpoints; those of a seed are in its folder "seed-<seed>".
        every: Epochs between checkpoints.
        keep: How many of a seed are kept.
        resume: Go on from the checkpoints there are: seeds that are done are measured again only.

    Raises:
        ValueError: If there is no seed, one is given twice or is no whole number, the networks of
            the seeds differ in their layers, or as `symlearn.fit`.
        TypeError: If the model is neither a network nor a function that returns one, or as
            `symlearn.fit`.
        FileExistsError: If there are checkpoints of another fit and ``resume`` is not given.

    Example:
        >>> import torch, symlearn
        >>> def relaxed(seed):
        ...     torch.manual_seed(seed)
        ...     net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(),
        ...         torch.nn.Flatten(), torch.nn.Linear(32, 2))
        ...     return symlearn.wrap(net, torch.zeros(1, 1, 4, 4))
        >>> x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % 2
        >>> config = symlearn.FitConfig(epochs=2, burn_in=0.0, progress=False)
        >>> seeds = symlearn.fit_seeds(relaxed, (x, y), config, seeds=(0, 1))
        >>> seeds.report["0"].verdict  # two seeds never decide
        'undecided'
    """
    _check(model, seeds)
    if config is None:
        config = FitConfig()
    elif not isinstance(config, FitConfig):
        raise TypeError(f"config must be a FitConfig, got {type(config).__name__}")
    results = {}
    for seed in seeds:
        results[seed] = fit(
            _network(model, seed),
            train,
            replace(config, seed=seed),
            validation=validation,
            callbacks=callbacks,
            every=every,
            keep=keep,
            **continued(checkpoint_dir, f"seed-{seed}", resume),
        )
    report = SeedsReport.of({seed: result.report for seed, result in results.items()})
    return SeedsResult(results, report)


def _check(model: object, seeds: Sequence[int]) -> None:
    if not callable(model):
        raise TypeError(
            f"model is a {type(model).__name__}; give a relaxed network, or a function from a seed "
            "to one"
        )
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        raise TypeError(f"seeds is {seeds!r}; give several, such as range(3)")
    wrong = [seed for seed in seeds if not is_seed(seed)]
    if wrong or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; give different whole numbers, at least one")


def _network(model: nn.Module | Factory, seed: int) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    made = model(seed)
    if not isinstance(made, nn.Module):
        raise TypeError(
            f"the function returned a {type(made).__name__} for seed {seed}; it must return a "
            "relaxed network"
        )
    return made
