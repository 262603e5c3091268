"""Every option of a fit, documented once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from curvature import ESTIMATORS, LIKELIHOODS
from curvature.checking import check_count, is_count, is_number, is_seed
from curvature.coverage import FALLBACKS
from priors import METHODS
from symlearn.fit.data import PASS_SIZE
from symlearn.fit.optimisers import OPTIMISERS
from symlearn.memory.size import as_bytes

OBJECTIVES = ("evidence", "map")
SHARINGS = ("expand", "reduce")
ANNEAL_SHAPES = ("linear", "cosine")

_COUNTS = (
    *("epochs", "batch_size", "evidence_every", "evidence_pause", "hyper_steps", "grow_every"),
    *("patience", "report_draws"),
)
_SIZES = (
    *("challenge_epochs", "off_after", "curvature_samples", "report_samples", "grow_samples"),
    *("check_images", "micro_batch"),
)
_POSITIVE = (
    *("likelihood_weight", "noise", "learning_rate", "precision", "bias_precision"),
    *("step", "max_change", "seed_size"),
)
_FRACTIONS = ("burn_in", "anneal", "when_slow")
_FLAGS = (
    *("learn_noise", "anneal_precisions", "early_start", "ekfac", "grow", "early_stop"),
    "autocast",
)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_number, value))


@dataclass(frozen=True)
class FitConfig:
    """Options of `symlearn.fit`.

    Attributes:
        epochs: Passes over the training data; fewer are made when ``early_stop`` decides early.
        seed: Seed of everything random in a fit.
        objective: "evidence" learns the prior precisions; "map" keeps them (the baseline).
        likelihood: "categorical", "gaussian" or "bernoulli".
        likelihood_weight: Power of the likelihood (one over the temperature); weights and
            precisions see the same one.
        noise: Standard deviation of gaussian observations, in units of the targets; the start
            value when it is learned.
        learn_noise: Learn the noise by evidence (gaussian only).
        batch_size: Samples per step where the data do not decide it.
        micro_batch: Most samples that pass through the network at once; 0 for whole batches in
            weight steps and 250 samples in other passes. Sums over the parts of a batch are those
            of the batch; only batch statistics (batch normalisation in weight steps) differ.
        memory_budget: Bytes that the fit may take beyond what is in use at its start: a number, or
            text such as "2GiB"; None for no limit. See `symlearn.memory_plan`.
        optimiser: Steps of the weights: "proximal" (an Adam whose prior term is a proximal step),
            "adam" or "sgd" with the prior's gradient added to the data's.
        learning_rate: Step size of the weights.
        anneal: Last fraction of the epochs, in which step sizes fall and paths are held.
        anneal_shape: "linear" to 2 %, or half a "cosine" to zero.
        anneal_precisions: Learn precisions in the annealing as well, rather than hold them; a
            gradient method's steps fall like those of the weights.
        average: Decay per step of the running average of the weights; evidence is measured at the
            average, and the average is what the fit returns. 0 turns it off.
        precision: Prior precision all groups start from.
        bias_precision: Prior precision of biases, which is not learned.
        precision_bounds: Smallest and largest precision that evidence may choose.
        burn_in: First fraction of the epochs without evidence steps; none for a network that is
            trained already. Evidence measured at a hardly trained network drives precisions up.
        early_start: End the burn-in, after a third of it at the earliest, once a classifier is
            better than guessing by the label frequencies and its loss has slowed down.
        evidence_every: Epochs between evidence steps while precisions or verdicts move.
        evidence_pause: Most epochs between evidence steps: the pause doubles with every step that
            changed little. At most ``evidence_every`` turns this off.
        hyper_steps: Updates of the precisions from the curvature of one evidence step.
        method: "fixed_point" or "gradient"; see `priors.PathPrior.update`.
        step: Step of the precisions: a fraction of the way, or Adam's step size.
        max_change: Largest change of a log precision in one evidence step.
        estimator: Curvature estimator of evidence steps.
        ekfac: Correct the eigenvalues of evidence steps by the projected diagonal. Plain Kronecker
            factors over-estimate log-determinants, and with them what a path costs.
        sharing: Treatment of shared positions, "expand" or "reduce".
        curvature_samples: Training samples in one evidence step's curvature; 0 for all.
        grow: Test absent paths for relevance, and start the best one that pays.
        grow_every: Evidence steps between tests.
        when_slow: The training loss has slowed down when it does not fall below this fraction of
            itself in ``evidence_every`` epochs; no test before that.
        grow_ratio: Least ``sum b^2 / sum lambda`` of a path to be started.
        grow_gain: Least gain in nats of a path to be started.
        grow_samples: Most samples kept in memory to find directions for factored paths.
        seed_size: Largest size of a started path relative to a full-size initialisation.
        off_after: Evidence steps in a row that must prefer a path's absence to switch it off; 0 to
            leave all paths on.
        challenge_epochs: Epochs of training without a path that is removed on trial, just before
            the final annealing, and as many with it, which count as epochs of the fit; 0 for no
            trials.
        holdout: Share of the training data on which absent paths are tested while the network has
            memorised the rest; "auto" is 0.1 when the first training loss shows memorisation.
        early_stop: Go to the final annealing once verdicts and evidence have settled.
        patience: Epochs with equal verdicts and without a gain in evidence that count as settled.
        report_estimator: Curvature estimator of the final report.
        report_draws: Draws of that estimator, where it is a sampling one.
        report_samples: Training samples in the report's curvature; 0 for all.
        check_images: Training images on which an evidence fit's verdicts are checked by independent
            measurements (`FitResult.check`); 0 for no check.
        fallback: Kind of curvature for trainable parameters that no rule covers.
        autocast: Run the network in bfloat16 (`torch.autocast`) in the steps of the weights and in
            passes over the data. Weights, curvature factors and evidence keep their precision.
        progress: Show a progress bar; None decides by whether the output is a terminal.

    Raises:
        ValueError: For values out of range or unknown names; all of them are named.
    """

    epochs: int = 60
    seed: int = 0
    objective: str = "evidence"
    likelihood: str = "categorical"
    likelihood_weight: float = 1.0
    noise: float = 1.0
    learn_noise: bool = True
    batch_size: int = 32
    micro_batch: int = 0
    memory_budget: int | str | None = None
    optimiser: str = "proximal"
    learning_rate: float = 8e-3
    anneal: float = 0.4
    anneal_shape: str = "linear"
    anneal_precisions: bool = False
    average: float = 0.97
    precision: float = 1.0
    bias_precision: float = 0.01
    precision_bounds: tuple[float, float] = (1e-3, 1e6)
    burn_in: float = 0.25
    early_start: bool = True
    evidence_every: int = 2
    evidence_pause: int = 8
    hyper_steps: int = 1
    method: str = "fixed_point"
    step: float = 0.5
    max_change: float = 2.0
    estimator: str = "sketch"
    ekfac: bool = True
    sharing: str = "expand"
    curvature_samples: int = 1000
    grow: bool = True
    grow_every: int = 2
    when_slow: float = 0.9
    grow_ratio: float = 1.5
    grow_gain: float = 3.0
    grow_samples: int = 2000
    seed_size: float = 0.1
    off_after: int = 3
    challenge_epochs: int = 5
    holdout: float | str = "auto"
    early_stop: bool = True
    patience: int = 12
    report_estimator: str = "sketch"
    report_draws: int = 4
    report_samples: int = 2000
    check_images: int = 64
    fallback: str = "error"
    autocast: bool = False
    progress: bool | None = None

    @classmethod
    def published(cls, epochs: int = 1000, **changes: Any) -> FitConfig:
        """The published schedule (paper, App. F.6, the MNIST settings).

        Adam on the weights at 0.01 and, every five epochs after ten, one Adam step of 0.1 on the
        log precisions with the exact curvature of all data, both annealed by a cosine; batches of
        128, unit precisions at the start. Nothing is grown, pruned, averaged or decided early: all
        paths are to be there, at full size (``wrap(..., init="fresh", tie="tensor")``).

        Args:
            epochs: Passes over the training data.
            changes: Other options, by name.
        """
        check_count("epochs", epochs)
        options: dict[str, Any] = {
            **{"batch_size": 128, "optimiser": "adam", "learning_rate": 0.01, "average": 0.0},
            **{"anneal": 1.0, "anneal_shape": "cosine", "anneal_precisions": True},
            **{"burn_in": min(1.0, 10 / epochs), "early_start": False},
            **{"evidence_every": 5, "evidence_pause": 5},
            **{"method": "gradient", "step": 0.1, "bias_precision": 1.0},
            **{"estimator": "exact", "ekfac": False, "curvature_samples": 0},
            **{"grow": False, "off_after": 0, "challenge_epochs": 0, "early_stop": False},
        }
        return cls(epochs=epochs, **{**options, **changes})

    @property
    def pass_size(self) -> int:
        """Most samples in a batch of a pass without weight steps, where the data do not decide."""
        return self.micro_batch or max(self.batch_size, PASS_SIZE)

    def __post_init__(self) -> None:
        """Check all values at once."""
        problems = [*self._unknown_names(), *self._out_of_range()]
        if problems:
            raise ValueError("invalid FitConfig: " + "; ".join(problems))

    def _unknown_names(self) -> Iterator[str]:
        choices = {
            "objective": OBJECTIVES,
            "likelihood": tuple(LIKELIHOODS),
            "optimiser": tuple(OPTIMISERS),
            "anneal_shape": ANNEAL_SHAPES,
            "method": METHODS,
            "estimator": tuple(ESTIMATORS),
            "report_estimator": tuple(ESTIMATORS),
            "sharing": SHARINGS,
            "fallback": FALLBACKS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                yield f"{name}={getattr(self, name)!r}, choose one of {list(allowed)}"

    def _out_of_range(self) -> Iterator[str]:
        kinds: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
            "a whole number of at least 1": (_COUNTS, is_count),
            "a whole number of at least 0": (_SIZES, lambda v: is_count(v, 0)),
            "a whole number of 64 bits": (("seed",), is_seed),
            "a positive number": (_POSITIVE, lambda v: is_number(v) and v > 0),
            "a fraction in [0, 1]": (_FRACTIONS, lambda v: is_number(v) and 0 <= v <= 1),
            "a decay in [0, 1)": (("average",), lambda v: is_number(v) and 0 <= v < 1),
            "True or False": (_FLAGS, lambda v: isinstance(v, bool)),
            "True, False or None": (("progress",), lambda v: v is None or isinstance(v, bool)),
            "'auto' or a fraction in [0, 1)": (
                ("holdout",),
                lambda v: v == "auto" or (is_number(v) and 0 <= v < 1),
            ),
            "two numbers, the smallest and the largest": (("precision_bounds",), _is_pair),
        }
        wrong = set[str]()
        for wanted, (names, accepts) in kinds.items():
            for name in names:
                if not accepts(getattr(self, name)):
                    wrong.add(name)
                    yield f"{name}={getattr(self, name)!r}, give {wanted}"
        if self.memory_budget is not None:
            try:
                as_bytes(self.memory_budget)
            except ValueError as error:
                yield f"memory_budget={self.memory_budget!r}: {error}"
        yield from self._at_odds(wrong)

    def _at_odds(self, wrong: set[str]) -> Iterator[str]:
        """Options that are fine one by one, but not together; not of those that are wrong."""
        times_fit = {"burn_in", "anneal"}.isdisjoint(wrong) and not self.anneal_precisions
        if times_fit and self.burn_in + self.anneal > 1:
            yield f"burn_in={self.burn_in!r} and anneal={self.anneal!r} leave no epoch for evidence"
        if {"precision", "bias_precision", "precision_bounds"} & wrong:
            return
        low, high = self.precision_bounds
        starts = (self.precision, self.bias_precision)
        if not 0 < low <= min(starts) <= max(starts) <= high < math.inf:
            yield (
                f"precision_bounds={self.precision_bounds}, give positive, finite bounds around "
                f"the start precisions {starts}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The options as a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> FitConfig:
        """Inverse of `to_dict`.

        Raises:
            ValueError: For options that this version does not know, or values out of range.
        """
        unknown = sorted(set(options) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"this version does not know the saved options {unknown}")
        return cls(**{**options, "precision_bounds": tuple(options["precision_bounds"])})
