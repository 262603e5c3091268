"""Growing and pruning: absent paths are tested for relevance, present ones that fail are removed.

An absent path contributes nothing, so all absent paths can be tested in one pass over the data: at
zero weights ``b = -g``, and the path pays locally iff ``sum b^2 > sum lambda``
(`priors.relevance`).
A factored path needs a direction first; it is found on one half of the data and tested on the
other, so that the choice of the direction does not inflate the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import curvature
import priors
from curvature import ALONE, Likelihood, Reduction
from symlearn.fit.config import FitConfig
from symlearn.fit.data import Counted, halves, until
from symlearn.fit.evidence import total_gradients
from symlearn.fit.shares import beyond
from symlearn.fit.state import PathKey
from symlearn.paths import Path
from symlearn.relaxed import relaxed_layers

Samples = Iterable[tuple[Tensor, Tensor]]
_SIZES = (1.0, 0.1, 0.01)  # of a start, relative to `FitConfig.seed_size`


@dataclass(frozen=True)
class Candidate:
    """An absent path and what the relevance test says about it.

    Attributes:
        layer: Qualified name of the relaxed layer.
        path: Name of the path.
        test: Result of the relevance test on the testing half of the data.
        n_data: Samples in that half.
        loss: Their negative log likelihood in nats, without the path.
        n_params: Weights the path would add.
        weights: The tested point: the path's weights by name, within the path.
        descent: Negative gradient of the tested weight.
    """

    layer: str
    path: str
    test: priors.Relevance
    n_data: int
    loss: float
    n_params: int
    weights: dict[str, Tensor]
    descent: Tensor


def absent_paths(model: nn.Module) -> dict[tuple[str, str], Path]:
    """Paths that are switched off, by (layer, path) name."""
    return {
        (layer_name, path_name): path
        for layer_name, layer in relaxed_layers(model).items()
        for path_name, path in layer.named_paths().items()
        if not path.enabled
    }


def switch_off_idle(model: nn.Module) -> list[tuple[str, str]]:
    """Switch off every path that contributes nothing; returns their (layer, path) names."""
    idle = []
    for layer_name, layer in relaxed_layers(model).items():
        for path_name, path in layer.named_paths().items():
            if path.enabled and not path.contributes():
                path.switch_off()
                idle.append((layer_name, path_name))
    return idle


def test_absent(
    model: nn.Module,
    batches: Samples,
    likelihood: Likelihood,
    *,
    bounds: tuple[float, float] = priors.BOUNDS,
    estimator: str = "sketch",
    max_samples: int = 2000,
    curvature_samples: int = 0,
    weight: float = 1.0,
    seed: int = 0,
    processes: Reduction = ALONE,
) -> list[Candidate]:
    """Test all absent paths at the model's current weights; best gain first.

    The model is left as it was: absent paths are switched on for the test only.

    Args:
        model: A relaxed network.
        batches: Data for the test; each batch is halved, one half to find directions.
        likelihood: The likelihood.
        bounds: Range of precisions considered.
        estimator: Curvature estimator.
        max_samples: Most samples kept in memory for finding directions.
        curvature_samples: About as many samples of the testing half for the curvature; 0 for all.
            The gradient is that of all: noise in it would look like relevance.
        weight: Weight of the likelihood.
        seed: Seed of the estimator.
        processes: Processes that share the work.
    """
    paths = absent_paths(model)
    finding, testing = halves(batches)
    if not paths or next(iter(testing), None) is None:
        return []
    with _proposed(model, paths, finding, likelihood, max_samples):
        names = {key: _tested_name(model, path) for key, path in paths.items()}
        only = list(names.values())
        some = list(until(testing, curvature_samples)) if curvature_samples else testing
        found = curvature.kronecker(
            model, some, likelihood, estimator, only=only, seed=seed, reduction=processes
        )
        counted = Counted(testing)
        grads, log_likelihood, *_ = total_gradients(model, counted, likelihood, only, processes)
        n_data = counted.n
        found = found.scaled(weight * n_data / found.n_data)
        tested = [
            _candidate(
                key,
                path,
                found,
                weight * beyond(relaxed_layers(model)[key[0]], path, grads[names[key]]),
                names[key],
                bounds,
                n_data,
                -log_likelihood,
            )
            for key, path in paths.items()
        ]
    return sorted(tested, key=lambda c: c.test.gain, reverse=True)


def _candidate(
    key: tuple[str, str],
    path: Path,
    found: curvature.KroneckerCurvature,
    gradient: Tensor,
    name: str,
    bounds: tuple[float, float],
    n_data: int,
    loss: float,
) -> Candidate:
    block = found[name]
    eigenvalues = priors.above_rounding(block.eigenvalues)
    test = priors.relevance(eigenvalues, block.rotate(gradient).double().square(), bounds)
    weights = {n: p.detach().clone() for n, p in path.named_parameters()}
    size = sum(w.numel() for w in weights.values())
    return Candidate(*key, test, n_data, loss, size, weights, -gradient)


def _tested_name(model: nn.Module, path: Path) -> str:
    tested = path.tested()
    return next(name for name, p in model.named_parameters() if p is tested)


@contextmanager
def _proposed(
    model: nn.Module,
    paths: dict[tuple[str, str], Path],
    finding: Samples,
    likelihood: Likelihood,
    max_samples: int,
) -> Iterator[None]:
    """Absent paths at their tested points inside; switched off again afterwards."""
    layers = {layer for (layer, _), path in paths.items() if path.needs_direction()}
    seen = _layer_samples(model, layers, finding, likelihood, max_samples)
    empty = torch.zeros(0)
    try:
        for (layer, _), path in paths.items():
            path.switch_on()
            path.propose(*seen.get(layer, (empty, empty)))
        yield
    finally:
        for path in paths.values():
            path.switch_off()


def _layer_samples(
    model: nn.Module, names: set[str], batches: Samples, likelihood: Likelihood, limit: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and output gradients of some layers, for the first ``limit`` samples."""
    layers = {layer: name for name, layer in relaxed_layers(model).items() if name in names}
    kept: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    seen = 0
    if not layers:
        return {}
    with curvature.evaluating(model):
        for x, y in batches:
            if seen >= limit:
                break
            calls: list[curvature.Call] = []
            # layers whose weights are all frozen still have gradients at their outputs
            x = x.detach().requires_grad_(x.is_floating_point())
            with curvature.watch(list(layers), calls.append):
                outputs = curvature.outputs_of(model, x)
            loss = -likelihood.log_prob(outputs, likelihood.check(outputs.detach(), y))
            grads = torch.autograd.grad(loss, [c.edge for c in calls], allow_unused=True)
            for call, g in zip(calls, grads, strict=True):
                g = call.zeros if g is None else g
                pair = call.inputs.to(outputs.dtype), g.to(outputs.dtype)
                kept[layers[call.module]].append(pair)  # type: ignore[index]
            seen += len(x)
    return {name: _joined(kept.pop(name)) for name in list(kept) if kept[name]}


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, gradients = zip(*pairs, strict=True)
    return torch.cat(inputs), torch.cat(gradients)


def start_best(
    model: nn.Module,
    candidates: Iterable[Candidate],
    config: FitConfig,
    batches: Samples,
    likelihood: Likelihood,
    processes: Reduction = ALONE,
) -> PathKey | None:
    """Start the tested path with the most gain, if it pays and its start lowers the loss.

    What was tested are the averaged weights. Where those that are trained lie far from them, the
    same direction may lead upwards, and a start of full ``seed_size`` would throw the network back:
    smaller ones are tried, and if none lowers the loss, the path stays absent until the next test.

    Args:
        model: The network at the weights that are trained.
        candidates: Absent paths, best gain first.
        config: What it takes to pay, and the size of a start.
        batches: Data of the loss.
        likelihood: The likelihood.
        processes: Processes that share the work.

    Returns:
        Names of its layer and of the path; None if no path was started.
    """

    def log_likelihood() -> float:
        return total_gradients(model, batches, likelihood, (), processes)[1]

    best = next((c for c in candidates if c.test.ratio > config.grow_ratio), None)
    if best is None or best.test.gain <= config.grow_gain:
        return None
    before = log_likelihood()
    for size in _SIZES:
        start_path(model, best, size * config.seed_size)
        if log_likelihood() > before:
            return best.layer, best.path
    relaxed_layers(model)[best.layer].path(best.path).switch_off()
    return None


def start_path(model: nn.Module, candidate: Candidate, size: float) -> list[str]:
    """Switch a tested path on, a small step in its descent direction; returns parameter names."""
    path = relaxed_layers(model)[candidate.layer].path(candidate.path)
    path.switch_on()
    own = dict(path.named_parameters())
    with torch.no_grad():
        for name, value in candidate.weights.items():
            own[name].copy_(value)
    path.seed(candidate.descent, size)
    ids = {id(p) for p in own.values()}
    return [name for name, p in model.named_parameters() if id(p) in ids]
