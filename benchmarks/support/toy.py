"""The toy problem for benchmarks of the loop: since when are its verdicts right for good?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

import symlearn
from symlearn import FitConfig, FitResult, demo
from symlearn.datasets import ImageSet
from symlearn.fit import Fitting
from symlearn.models import small_cnn

Steps = Sequence[tuple[float, Mapping[str, str]]]
"""CPU seconds and verdict by layer of each evidence step."""


def is_right(task: str, verdicts: Mapping[str, str]) -> bool:
    """Whether the verdicts are those the task asks for.

    *digit* is the same wherever the digit is: every layer is strictly equivariant. *quadrant* needs
    positions somewhere, and a network that reads them in every layer has found no symmetry at all.
    """
    found = list(verdicts.values())
    if task == "digit":
        return bool(found) and all(verdict == "conv" for verdict in found)
    return any("ffc" in verdict for verdict in found) and any(v == "conv" for v in found)


def right_since(task: str, steps: Steps) -> float | None:
    """Seconds to the first evidence step from which on all verdicts are right, or None."""
    since = None
    for seconds, verdicts in steps:
        if not is_right(task, verdicts):
            since = None
        elif since is None:
            since = seconds
    return since


def relaxed(train: ImageSet, seed: int, **options: Any) -> nn.Module:
    """The demo's network for a task, with both paths in every layer."""
    cnn = small_cnn(train.classes, in_channels=train.x.shape[1], seed=seed)
    return symlearn.wrap(cnn, train.x[:2], boundary="circular", seed=seed, **options)


def fit_for(
    model: nn.Module, train: ImageSet, config: FitConfig, most_seconds: float
) -> tuple[FitResult, list[tuple[float, dict[str, str]]], float]:
    """A fit of at most so many CPU seconds: the result, its evidence steps, and all its seconds.

    The verdicts of the final report are the last step, if the fit has come to its end.
    """
    start = time.process_time()
    steps: list[tuple[float, dict[str, str]]] = []
    ended = True

    def note(run: Fitting) -> bool:
        nonlocal ended
        seconds = time.process_time() - start
        if run.history[-1].verdicts:
            steps.append((seconds, run.history[-1].verdicts))
        ended = seconds <= most_seconds or run.epoch == run.total
        return not ended

    result = symlearn.fit(model, train.pair, config, callbacks=[note])
    seconds = time.process_time() - start
    if ended:
        steps.append((seconds, {layer.name: layer.verdict for layer in result.report}))
    return result, steps, seconds


def load(source: str, task: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a task."""
    return demo.make_task(task, *demo.load(source, seed), seed)


def one_thread() -> None:
    """Let torch use one thread, as all figures of the loop are for."""
    torch.set_num_threads(1)
