"""The evidence score test for any absent path in any layer of a trained network."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

import curvature
from curvature import Data, Likelihood
from curvature.checking import check_count, check_module, seeded
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first, null_loss
from symlearn.fit.grow import Candidate, absent_paths, switch_off_idle, test_absent
from symlearn.paths import Conv, PathSpec, as_specs
from symlearn.relaxed import relaxed_layers
from symlearn.wrap import Selection, wrap

SAMPLES = 2000
"""Samples used, unless told otherwise."""

MEMORISED = 0.05
"""Mean loss, relative to predicting label frequencies, below which a test on the data is blind."""


@dataclass(frozen=True)
class ScreenRow:
    """One absent path in one layer.

    Attributes:
        layer: Name of the layer.
        path: Name of the path.
        gain: Nats by which the quadratic model of the evidence prefers the path to its absence, on
            the half of the data it was tested on. It ranks; it is not a Bayes factor.
        ratio: ``sum b^2 / sum lambda``; the path pays locally iff it exceeds one.
        precision: Prior precision at which the gain is reached (inf when there is none).
        n_params: Weights the path would add.
        n_data: Samples tested on.
    """

    layer: str
    path: str
    gain: float
    ratio: float
    precision: float
    n_params: int
    n_data: int

    @property
    def pays(self) -> bool:
        """Whether the evidence prefers the path."""
        return self.gain > 0


class Screen(tuple[ScreenRow, ...]):
    """Ranked table of absent paths, best gain first."""

    __slots__ = ()

    def _lines(self) -> Iterator[tuple[str, ...]]:
        yield "layer", "path", "gain (nats)", "ratio", "precision", "weights", "pays"
        for row in self:
            yield (
                row.layer,
                row.path,
                f"{row.gain:.1f}",
                f"{row.ratio:.2f}",
                f"{row.precision:.3g}",
                f"{row.n_params:,}",
                "yes" if row.pays else "no",
            )

    def __str__(self) -> str:
        lines = list(self._lines())
        wide = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, wide, strict=True))
            ).rstrip()
            for line in lines
        )

    def to_markdown(self) -> str:
        """The table as Markdown."""
        head, *rows = self._lines()
        rule = ("---", "---", *["---:"] * (len(head) - 2))
        return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def screen(
    model: nn.Module,
    data: Data,
    *,
    paths: str | PathSpec | Iterable[str | PathSpec] = ("ffc",),
    layers: Selection = None,
    likelihood: str | Likelihood = "categorical",
    estimator: str = "sketch",
    samples: int = SAMPLES,
    seed: int = 0,
) -> Screen:
    """Rank absent paths by the evidence, without training any of them.

    Every absent path is tested at zero weights: with gradient g and Kronecker eigenvalues lambda
    there, ``b = -g`` and the gain is ``max_delta [1/2 sum b^2/(lambda + delta) - 1/2 sum log(1 +
    lambda/delta)]``. Factored paths are given a direction on one half of the data and tested on
    the other. Precisions are those that a fit may choose by default. The model is not changed.

    Args:
        model: A trained network, plain or relaxed. In a relaxed one, its own absent paths with the
            given names are tested.
        data: Labelled data, best held out from training: on memorised data the test is blind.
        paths: Paths to test. A plain network's convolutions stand in "conv", beside which the paths
            are tested; if "conv" is among them, in the strictest path that can hold them, as in
            `symlearn.wrap`.
        layers: Which convolutions of a plain network to test; as for `symlearn.wrap`.
        likelihood: Name or object.
        estimator: Curvature estimator.
        samples: Samples used, half of them for directions; 0 for all.
        seed: Seed of the random choices.

    Raises:
        ValueError: As for `symlearn.wrap`; or if no layer lacks any of the paths.

    Warns:
        UserWarning: If the network has memorised the data, or if a gain is larger than a path could
            make it at best.

    Example:
        >>> import torch, symlearn
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 2))
        >>> x, y = torch.randn(60, 1, 4, 4), torch.arange(60) % 2
        >>> table = symlearn.screen(net, (x, y), paths=("ffc", "fc"))
        >>> sorted((row.layer, row.path) for row in table)
        [('0', 'fc'), ('0', 'ffc')]
    """
    likelihood = curvature.as_likelihood(likelihood)
    check_module(model)
    check_count("samples", samples, 0)
    generator = seeded(seed)
    source = TrainData(data, model, 256)
    specs = as_specs(paths)
    relaxed = _with_absent(model, source, specs, layers)
    if _memorised(relaxed, source, likelihood):
        warnings.warn(
            "the network has almost no loss on these data, as when it has memorised them, and "
            "gradients there say little about absent paths; give held-out data",
            stacklevel=2,
        )
    found = test_absent(
        relaxed,
        source.sample(samples, generator),
        likelihood,
        bounds=FitConfig.precision_bounds,
        estimator=estimator,
        max_samples=samples or source.n,
        seed=seed,
    )
    names = {spec.name for spec in specs}
    _check_gains(found, likelihood)
    return Screen(_row(candidate) for candidate in found if candidate.path in names)


def _check_gains(found: list[Candidate], likelihood: Likelihood) -> None:
    """Probabilities of labels are at most one: no path can gain more than the loss there is."""
    most = max((candidate.test.gain for candidate in found), default=0.0)
    if isinstance(likelihood, curvature.Categorical) and most > 2 * found[0].loss:
        warnings.warn(
            f"a gain of {most:.0f} nats is more than the loss of {found[0].loss:.0f} nats that the "
            "tested samples have: the quadratic model does not hold so far from a minimum, and the "
            "ranking is not to be trusted; train the network for longer, or give more samples",
            stacklevel=3,
        )


def _row(found: Candidate) -> ScreenRow:
    test = found.test
    precision = math.exp(test.log_precision) if test.gain > 0 else math.inf
    return ScreenRow(
        found.layer, found.path, test.gain, test.ratio, precision, found.n_params, found.n_data
    )


def _memorised(model: nn.Module, source: TrainData, likelihood: Likelihood) -> bool:
    x, y = first(source.everything())
    with torch.no_grad(), curvature.evaluating(model):
        outputs = curvature.outputs_of(model, x)
        loss = -float(likelihood.log_prob(outputs, likelihood.check(outputs, y))) / len(x)
    return loss < MEMORISED * null_loss(source, likelihood, outputs.shape[1])


def _with_absent(
    model: nn.Module, source: TrainData, specs: tuple[PathSpec, ...], layers: Selection
) -> nn.Module:
    """A relaxed copy in which the paths to test, and no others, are absent."""
    names = [spec.name for spec in specs]
    plain = not relaxed_layers(model)
    relaxed = _wrapped(model, source, specs, layers) if plain else copy.deepcopy(model)
    switch_off_idle(relaxed)
    if not any(path in names for _, path in absent_paths(relaxed)):
        raise ValueError(
            f"no layer of the {'plain' if plain else 'relaxed'} network has an absent path among "
            f"{names}: those that it has are not tested; name others"
        )
    return relaxed


def _wrapped(
    model: nn.Module, source: TrainData, specs: tuple[PathSpec, ...], layers: Selection
) -> nn.Module:
    """A plain network wrapped; it stays in "conv" unless that is to be tested beside the others."""
    x, _ = first(source.everything())
    if any(spec.name == Conv.name for spec in specs):
        return wrap(model, x[:2], paths=specs, layers=layers)
    relaxed = wrap(model, x[:2], paths=(Conv(), *specs), layers=layers)
    generator = torch.Generator().manual_seed(0)
    for name, layer in relaxed_layers(relaxed).items():
        # wrap gave the filters to a stricter path where one can hold them, as all do with 1x1
        for path in layer.named_paths().values():
            path.start_at_zero(generator)
        layer.path(Conv.name).adopt(model.get_submodule(name))
    return relaxed
