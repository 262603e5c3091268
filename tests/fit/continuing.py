"""Fits that are interrupted and go on: the cases, and when two outcomes are the same."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import symlearn
from curvature import Data
from symlearn import FitConfig, FitResult
from tests.fit.problems import blobs, both_on, tiny_cnn, tiny_relaxed

Case = tuple[nn.Module, Data, FitConfig]

QUICK = FitConfig(
    epochs=6,
    progress=False,
    burn_in=0.2,
    anneal=0.4,
    evidence_every=1,
    grow_every=1,
    challenge_epochs=0,
    curvature_samples=60,
    report_samples=60,
)


def eventful() -> Case:
    """A path grows, others are challenged, one is removed."""
    config = replace(QUICK, epochs=14, burn_in=0.15, challenge_epochs=2)
    return both_on().model, blobs(120, place=True), config


def noisy() -> Case:
    """Learned noise, descent with momentum, no averaging, a dataset instead of arrays."""
    x, y = blobs(60)
    options = {"likelihood": "gaussian", "optimiser": "sgd", "learning_rate": 0.01}
    data = TensorDataset(x, y.float())
    return tiny_relaxed(classes=1), data, replace(QUICK, average=0.0, **options)  # type: ignore[arg-type]


def published() -> Case:
    """Adam on the precisions, all paths on."""
    model = tiny_relaxed(init="fresh", tie="tensor")
    often = {"burn_in": 0.2, "evidence_every": 1, "evidence_pause": 1, "progress": False}
    return model, blobs(40), FitConfig.published(8, **often)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Images that are changed by numpy's and by Python's random numbers whenever they are read."""

    def __init__(self) -> None:
        self.x, self.y = blobs(60)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * np.random.randn(8, 8) + 0.01 * random.gauss(0, 1)
        return self.x[index] + torch.as_tensor(noise, dtype=torch.float32), self.y[index]


def drawn() -> Case:
    """Dropout, batch statistics, channels last, and a loader with a generator and random images."""
    random.seed(1)
    np.random.seed(1)
    plain = tiny_cnn()
    net = nn.Sequential(plain[0], nn.BatchNorm2d(4), nn.Dropout(0.2), *plain[1:])
    model = symlearn.wrap(net.to(memory_format=torch.channels_last), torch.zeros(1, 1, 8, 8))
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Augmented(), batch_size=16, shuffle=True, generator=generator)
    return model, loader, replace(QUICK, optimiser="adam")


def memorised() -> Case:
    """A network that has memorised its data, so that some are set aside; a calibrated template."""
    x, y = blobs(80)
    model = tiny_relaxed(boundary=symlearn.Circular("template"))
    config = FitConfig(epochs=25, objective="map", progress=False, batch_size=16, precision=0.01)
    start = symlearn.fit(model, (x, y), config).model
    return start, (x, y), replace(QUICK, holdout=0.2)


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case for case in (eventful, noisy, published, drawn, memorised)
}


def outcome(result: FitResult) -> dict[str, Any]:
    """All of a result but wall-clock times: tensors as bytes, history and report as plain data."""
    report = json.loads(result.report.to_json())
    report["meta"].pop("seconds")
    tensors = {**result.model.state_dict(), "precisions": result.prior.log_precision}
    return {
        "tensors": {k: v.contiguous().numpy().tobytes().hex() for k, v in tensors.items()},
        "history": [{**record.to_dict(), "seconds": 0.0} for record in result.history],
        "report": report,
        "noise": result.noise,
    }


def run(case: str, folder: str, out: str, resume: bool, crash: str) -> None:
    """Body of a process that fits with checkpoints, and writes the outcome.

    Args:
        case: Name of the case.
        folder: Folder for checkpoints.
        out: File for the outcome.
        resume: Whether to go on from the folder.
        crash: "where:count" to die by SIGKILL at a certain write, or empty.
    """
    torch.set_num_threads(1)
    model, data, config = CASES[case]()
    if crash:
        where, count = crash.split(":")
        _KILLERS[where](int(count))
    result = symlearn.fit(
        model, data, config, checkpoint_dir=folder, resume=folder if resume else None
    )
    Path(out).write_text(json.dumps(outcome(result)))


def _die_in_write(count: int) -> None:
    """Die when the count-th checkpoint is half written."""
    write, seen = Path.write_bytes, [0]

    def half(path: Path, data: bytes) -> int:
        seen[0] += 1
        if seen[0] == count:
            write(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, data)

    Path.write_bytes = half  # type: ignore[method-assign,assignment]


def _die_around_rename(count: int, after: bool) -> None:
    """Die just before or just after the count-th checkpoint gets its name."""
    rename, seen = Path.replace, [0]

    def dying(path: Path, target: str | Path) -> Path:
        seen[0] += 1
        if seen[0] == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        moved = rename(path, target)
        if seen[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = dying  # type: ignore[method-assign,assignment]


_KILLERS: dict[str, Callable[[int], None]] = {
    "write": _die_in_write,
    "before-rename": lambda count: _die_around_rename(count, after=False),
    "after-rename": lambda count: _die_around_rename(count, after=True),
}
