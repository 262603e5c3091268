"""Options of a certificate: what is searched, how it is trained, and what is fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from curvature.checking import is_count, is_number, is_seed
from symlearn.certify.bounds import BOUNDS
from symlearn.certify.projectors import PROJECTORS
from symlearn.certify.quantise import INITS

PRIORS = ("fresh", "weights", "split")


@dataclass(frozen=True)
class Choice:
    """One point of the search.

    Attributes:
        dimension: Dimensions d of the subspace; 0 is the network that the prior is centred on.
        levels: Quantisation levels L.
        learning_rate: First learning rate of the quantisation-aware training.
        init: How the levels start.
    """

    dimension: int
    levels: int
    learning_rate: float
    init: str


@dataclass(frozen=True)
class CertifyConfig:
    """Options of `symlearn.certify`.

    All of them have to be fixed before the training data are looked at; the message pays for the
    choice among `grid`, and among so many `alternatives`.

    Attributes:
        prior: What the network starts from. "fresh": weights drawn from the seed. "weights": the
            weights of the given network, which the training data must not have influenced
            (transfer). "split": fresh weights, trained on a random part of the training data; the
            bound is formed on the rest.
        split: Share of the training data that a prior of kind "split" is trained on.
        dimensions: Dimensions of the subspace to search over.
        levels: Numbers of quantisation levels to search over.
        quantise_rates: First learning rates of the quantisation-aware training to search over.
        inits: Starts of the levels to search over: "uniform", "kmeans".
        projector: Name of the random projector.
        bound: Bound that the certificate states: "catoni", "maurer", "mcallester" or "occam".
        delta: Probability that the bound does not hold.
        epochs: Passes over the data in the subspace.
        quantise_epochs: Passes with quantised coefficients.
        prior_epochs: Passes over its part of the data for a prior of kind "split".
        learning_rate: First learning rate of Adam in the subspace; it falls to zero as a cosine.
        prior_rate: First learning rate of Adam for a prior of kind "split".
        batch_size: Samples in a step.
        alternatives: Number of set-ups (architectures, seeds, learning rates, ...) that were tried
            on these training data by hand, this one included; the message pays for naming it.
        seed: Of the fresh weights, the projector, the split and the order of the batches.
        progress: Whether to show progress; None on terminals only.

    Raises:
        ValueError: For options out of range; all are named.
    """

    prior: str = "fresh"
    split: float = 0.5
    dimensions: tuple[int, ...] = (250, 500, 1000)
    levels: tuple[int, ...] = (5,)
    quantise_rates: tuple[float, ...] = (0.05,)
    inits: tuple[str, ...] = ("kmeans",)
    projector: str = "kronecker"
    bound: str = "catoni"
    delta: float = 0.05
    epochs: int = 20
    quantise_epochs: int = 10
    prior_epochs: int = 20
    learning_rate: float = 0.1
    prior_rate: float = 1e-3
    batch_size: int = 128
    alternatives: int = 1
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name in ("dimensions", "levels", "quantise_rates", "inits"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        problems = [*self._name_problems(), *self._grid_problems(), *self._number_problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def grid(self) -> tuple[Choice, ...]:
        """All points of the search; those of dimension 0 differ in nothing and are one."""
        points = [
            Choice(dimension, *rest)
            for dimension in self.dimensions
            if dimension
            for rest in product(self.levels, self.quantise_rates, self.inits)
        ]
        return (*([Choice(0, 0, 0.0, "")] if 0 in self.dimensions else []), *points)

    def _name_problems(self) -> list[str]:
        closed = {
            "prior": (self.prior, PRIORS),
            "projector": (self.projector, tuple(PROJECTORS)),
            "bound": (self.bound, tuple(BOUNDS)),
        }
        return [
            f"{name} is {given!r}; choose one of {list(known)}"
            for name, (given, known) in closed.items()
            if given not in known
        ]

    def _grid_problems(self) -> list[str]:
        searched: dict[str, tuple[object, Callable[[Any], bool], str]] = {
            "dimensions": (self.dimensions, partial(is_count, least=0), "whole numbers, 0 or more"),
            "levels": (self.levels, is_count, "whole numbers, 1 or more"),
            "quantise_rates": (self.quantise_rates, _is_positive, "positive numbers"),
            "inits": (self.inits, INITS.__contains__, f"names out of {list(INITS)}"),
        }
        return [
            f"{name} is {given!r}; give a tuple of {accepted}, each once"
            for name, (given, accepts, accepted) in searched.items()
            if not (isinstance(given, tuple) and given and all(map(accepts, given)))
            or len(set(given)) < len(given)
        ]

    def _number_problems(self) -> list[str]:
        counts = dict.fromkeys(("epochs", "prior_epochs", "batch_size", "alternatives"), 1)
        counts["quantise_epochs"] = 0
        problems = [
            f"{name} is {getattr(self, name)!r}; give a whole number of at least {least}"
            for name, least in counts.items()
            if not is_count(getattr(self, name), least)
        ]
        problems += [
            f"{name} is {getattr(self, name)!r}; give a positive number"
            for name in ("learning_rate", "prior_rate")
            if not _is_positive(getattr(self, name))
        ]
        problems += [
            f"{name} is {getattr(self, name)!r}; give a number between 0 and 1"
            for name in ("split", "delta")
            if not (_is_positive(getattr(self, name)) and getattr(self, name) < 1)
        ]
        if not is_seed(self.seed):
            problems.append(f"seed is {self.seed!r}; give a whole number of 64 bits")
        return problems


def _is_positive(value: object) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]
