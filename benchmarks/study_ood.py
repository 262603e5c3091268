"""Claim: mutual information by all layers tells MNIST from Fashion-MNIST best, for every seed.

A small CNN is wrapped and fitted to 5,000 images of Fashion-MNIST. 2,000 test images of
Fashion-MNIST are to be told from 2,000 of MNIST, standardised alike: the area under the ROC curve
of three scores, from

* MAP: the fitted weights alone;
* all layers: `FitResult.predictive`, with the precisions that the fit learned;
* last layer (laplace-torch): the same weights, ``KronLaplace`` on the last layer with the precision
  of the largest marginal likelihood, and its GLM predictive.

The last two with probabilities by draws ("mc") and by the probit approximation. For each, also how
well it predicts the Fashion-MNIST test images, where the posterior of all layers is not the best
calibrated. Mean and standard deviation over seeds (of the split, the network and the draws);
seconds are of one thread. Some seeds: ``python benchmarks/study_ood.py --seeds 0``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symlearn
from benchmarks.support.harness import RESULTS, Cell, Missing, Report, peer
from benchmarks.support.toy import one_thread
from symlearn import FitConfig, FitResult
from symlearn.datasets import ImageSet, fashion_mnist, mnist
from symlearn.predictive import LINKS

N_TRAIN, N_TEST, SAMPLES = 5000, 2000, 256
EPOCHS = 12


@dataclass(frozen=True)
class Predicted:
    """What a method says of some images.

    Attributes:
        probs: Class probabilities [N, K].
        epistemic: Mutual information of label and weights, [N]; zero for fixed weights.
    """

    probs: Tensor
    epistemic: Tensor


Method = Callable[[Tensor], Predicted]
OURS, PEER = "all layers, mc", "last layer (laplace-torch)"
ENTROPY, INFORMATION = "AUROC, entropy", "AUROC, mutual information"


def problem(seed: int) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training images, test images, and images of another kind."""
    everything, test = fashion_mnist()
    train, _ = everything.split(N_TRAIN, len(everything) - N_TRAIN, seed=seed)
    _, other = mnist()
    parts = [s.split(N_TEST, len(s) - N_TEST, seed=seed)[0] for s in (test, other)]
    inside, outside = (part.standardised(train) for part in parts)
    return train.standardised(), inside, outside


def fitted(train: ImageSet, seed: int) -> FitResult:
    """A small CNN, relaxed and fitted."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cnn = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, train.classes)),
        )
    config = FitConfig(epochs=EPOCHS, seed=seed, progress=False)
    return symlearn.fit(symlearn.wrap(cnn, train.x[:2], seed=seed), train.pair, config)


def methods(result: FitResult, train: ImageSet, seed: int) -> dict[str, Method | Missing]:
    """Each method as a function of images."""
    found: dict[str, Method | Missing] = {"MAP": partial(by_map, result)}
    posterior = result.posterior()
    for link in LINKS:
        found[f"all layers, {link}"] = partial(by_all, posterior, link, seed)
    laplace = peer(["laplace"], lambda: last_layer(result, train))
    for link in LINKS:
        missing = isinstance(laplace, Missing)
        found[f"{PEER}, {link}"] = laplace if missing else partial(by_last, laplace, link)
    return found


def by_map(result: FitResult, x: Tensor) -> Predicted:
    """The fitted weights alone."""
    return Predicted(result.predict_proba(x).double(), torch.zeros(len(x)))


def by_all(posterior: symlearn.Posterior, link: str, seed: int, x: Tensor) -> Predicted:
    """The library's predictive."""
    found = posterior.predictive(x, link=link, samples=SAMPLES, seed=seed)
    found = cast(symlearn.Predictive, found)
    return Predicted(found.probs, found.epistemic)


def last_layer(result: FitResult, train: ImageSet) -> Any:
    """laplace-torch on the last layer of the fitted network, precision by marginal likelihood."""
    from laplace import Laplace

    plain = result.collapse().eval()
    found: Any = Laplace(
        plain, "classification", subset_of_weights="last_layer", hessian_structure="kron"
    )
    found.fit(DataLoader(TensorDataset(*train.pair), batch_size=250))
    found.optimize_prior_precision(method="marglik")
    return found


def by_last(laplace: Any, link: str, x: Tensor) -> Predicted:
    """laplace-torch's GLM predictive."""
    parts = []
    for part in x.split(250):
        draws = laplace.predictive_samples(part, pred_type="glm", n_samples=SAMPLES).double()
        probs = draws.mean(0)
        epistemic = entropy(probs) - entropy(draws).mean(0)
        if link == "probit":
            probs = laplace(part, pred_type="glm", link_approx="probit")
        parts.append((probs, epistemic))
    return Predicted(*(torch.cat(column) for column in zip(*parts, strict=True)))


def entropy(probs: Tensor) -> Tensor:
    """Entropy [...] of probabilities [..., K], in nats."""
    return -torch.xlogy(probs, probs).sum(-1)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Probability that a score [N] of the other kind is larger than one of the known kind.

    Raises:
        ValueError: If a score is NaN or infinite.
    """
    scores = torch.cat([inside, outside]).detach().numpy()
    labels = [0] * len(inside) + [1] * len(outside)
    return float(roc_auc_score(labels, scores))


def figures(method: Method, inside: ImageSet, outside: ImageSet) -> dict[str, float]:
    """AUROC of each score, quality of prediction, and seconds."""
    start = time.process_time()
    known, other = method(inside.x), method(outside.x)
    seconds = time.process_time() - start
    found = symlearn.calibration(known.probs, inside.y)
    return {
        "AUROC, 1 - max p": auroc(-known.probs.max(1).values, -other.probs.max(1).values),
        ENTROPY: auroc(entropy(known.probs), entropy(other.probs)),
        INFORMATION: auroc(known.epistemic, other.epistemic),
        **{"accuracy": found.accuracy, "NLL": found.nll, "ECE": found.ece},
        "CPU s": seconds,
    }


Row = Mapping[str, float | Missing]


def study(seed: int) -> tuple[dict[str, Row], float]:
    """Figures of each method, and the seconds of the fit."""
    train, inside, outside = problem(seed)
    start = time.process_time()
    result = fitted(train, seed)
    seconds = time.process_time() - start
    torch.manual_seed(seed)  # the peer's draws
    rows: dict[str, Row] = {}
    for name, method in methods(result, train, seed).items():
        if isinstance(method, Missing):
            rows[name] = dict.fromkeys(rows["MAP"], method)
        else:
            rows[name] = figures(method, inside, outside)
        print(seed, name, {key: str(value)[:6] for key, value in rows[name].items()}, flush=True)
    return rows, seconds


def less(value: float | Missing, other: float | Missing) -> float | Missing:
    """The difference, or whichever of the two is missing."""
    if isinstance(value, Missing):
        return value
    return other if isinstance(other, Missing) else value - other


def max_over_seeds(values: Sequence[float | Missing]) -> float | Missing:
    """The largest value, or what is missing."""
    numbers = [value for value in values if not isinstance(value, Missing)]
    return max(numbers) if len(numbers) == len(values) else values[0]


def over_seeds(values: Sequence[float | Missing]) -> Cell:
    """Mean and standard deviation.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    numbers = []
    for value in values:
        if isinstance(value, Missing):
            return value
        numbers.append(value)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean needs finite numbers; given: {numbers}")
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{statistics.mean(numbers):.3f} +- {spread:.3f}"


def report(found: Sequence[tuple[Mapping[str, Row], float]], seeds: Sequence[int]) -> Report:
    """The tables: means over seeds, then each seed."""
    written = Report.described("ood", __doc__)
    columns = list(found[0][0]["MAP"])
    for rival, score in (("MAP", ENTROPY), (f"{PEER}, mc", INFORMATION)):
        lead = max_over_seeds([less(r[rival][score], r[OURS][INFORMATION]) for r, _ in found])
        written.goal(f"{score} by {rival}, less ours, worst seed", lead, 0)
    names = list(found[0][0])
    means: list[list[Cell]] = [
        [name, *(over_seeds([rows[name][column] for rows, _ in found]) for column in columns)]
        for name in names
    ]
    written.table(f"Mean over {len(seeds)} seeds", ["", *columns], means)
    runs: list[list[Cell]] = [
        [f"{name}, seed {seed}", *rows[name].values()]
        for seed, (rows, _) in zip(seeds, found, strict=True)
        for name in names
    ]
    written.table("Each seed", ["", *columns], runs)
    fits: list[list[Cell]] = [
        [f"seed {seed}", seconds] for seed, (_, seconds) in zip(seeds, found, strict=True)
    ]
    written.table("Fits", ["", "CPU s"], fits)
    return written


def main() -> None:
    """Run all seeds and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    one_thread()
    report([study(seed) for seed in given.seeds], given.seeds).write(given.out)


if __name__ == "__main__":
    main()
