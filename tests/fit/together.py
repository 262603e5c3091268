"""What groups of processes do in tests of fits over several processes."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import curvature
import symlearn
from symlearn import FitConfig, FitResult
from symlearn.cli import main
from symlearn.fit import Fitting
from tests.fit.continuing import CASES, QUICK
from tests.fit.problems import blobs, tiny_cnn, tiny_relaxed

SHORT = replace(QUICK, epochs=4, check_images=0)


def facts(result: FitResult) -> dict[str, Any]:
    """What fits over several processes are compared by."""
    return {
        "log_evidence": result.log_evidence,
        "precisions": result.prior.log_precision.tolist(),
        "losses": [record.train_nll for record in result.history],
        "weights": [float(p.detach().norm()) for p in result.model.parameters()],
        "n_data": result.report.n_data,
        "verdicts": {layer.name: layer.verdict for layer in result.report.layers},
        "grown": [list(record.grown) for record in result.history],
        "pruned": [list(record.pruned) for record in result.history],
    }


def assert_agree(found: Any, expected: Any, rel: float, where: str = "") -> None:
    """Numbers agree to a relative tolerance (NaN with nothing), all else is equal."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_agree(found[key], value, rel, f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            assert_agree(found[i], value, rel, f"{where}/{i}")
    elif isinstance(expected, float):
        assert abs(found - expected) <= rel * max(abs(expected), 1e-6), (where, found, expected)
    else:
        assert found == expected, (where, found, expected)


def fitted(folder: Path, case: str, dtype: str, epochs: int = 0) -> dict[str, Any]:
    """Facts of a fit of one of the cases."""
    model, data, config = CASES[case]()
    config = replace(config, epochs=epochs or config.epochs, check_images=0)
    return facts(symlearn.fit(model.to(getattr(torch, dtype)), data, config))


def measured(folder: Path) -> dict[str, Any]:
    """Curvature passes whose last piece has fewer rows than there are processes."""
    torch.manual_seed(0)
    x, y = torch.randn(19, 1, 6, 6).double(), torch.arange(19) % 3
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, groups=1), nn.Tanh(), nn.Flatten(), _Own(), nn.Linear(32, 3)
    ).double()
    group = curvature.Reduction(dist.group.WORLD)
    found = {}
    data = [(x[:18], y[:18]), (x[18:], y[18:])]
    corrected, reduced = {"ekfac": True}, {"sharing": "reduce"}
    for estimator, options in (("truncated", corrected), ("mc", reduced), ("exact", reduced)):
        given: dict[str, Any] = {"draws": 2, "columns": 1, **options}
        for fallback in ("dense", "diagonal"):
            h = curvature.kronecker(
                *(net, data, "categorical", estimator),
                fallback=fallback,
                reduction=group,
                **given,
            )
            numbers = [h.log_likelihood, h.output_trace, h.sampled_trace, float(h.n_data)]
            numbers += [float(v) for b in h.values() for v in b.to_dense().diagonal()]
            found[f"{estimator} {fallback}"] = [*numbers, *(float(b.logdet(1)) for b in h.values())]
    return found


class _Own(nn.Module):
    """A scale without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def everything(folder: Path) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    cut = DataLoader(TensorDataset(*blobs(61)), batch_size=16, drop_last=True)
    return {
        "curvature": measured(folder),
        # batch statistics, dropout, augmentation, a moving grid, growth
        "drawn": fitted(folder, "drawn", "float64", 4),
        "drop_last": facts(symlearn.fit(tiny_relaxed().double(), cut, replace(SHORT, epochs=2))),
        "few": facts(symlearn.fit(tiny_relaxed().double(), blobs(3), replace(SHORT, epochs=2))),
    }


def message(act: Callable[[], Any]) -> str:
    """Type and text of the error, or of the warning, that something ends with."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            act()
        except (Exception, KeyboardInterrupt) as error:
            return f"{type(error).__name__}: {error}"
    drifted = [str(w.message) for w in told if "drifted" in str(w.message)]
    return "; ".join(drifted) or "nothing"


def refusals(folder: Path) -> dict[str, str]:
    """What processes that do not fit together are told."""
    rank, (x, y) = dist.get_rank(), blobs(40)
    parted = DistributedSampler(range(40))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, sampler=parted)
    batches = list(zip(x.split(10), y.split(10), strict=True))

    def fit(data: Any = (x, y), config: FitConfig = SHORT, **options: Any) -> Callable[[], Any]:
        return lambda: symlearn.fit(tiny_relaxed(), data, config, **options)

    found = {
        "data": message(fit((x[rank:], y[rank:]))),
        "config": message(fit(config=replace(SHORT, epochs=3 + rank))),
        "batches": message(fit(batches[::-1] if rank else batches)),
        "sampler": message(fit(loader)),
        "no checkpoint": message(fit(resume=folder / "nowhere")),
    }
    if rank == 0:
        write = Path.write_bytes
        Path.write_bytes = _full  # type: ignore[method-assign]
    found["disk full"] = message(fit(checkpoint_dir=folder / "full"))
    if rank == 0:
        Path.write_bytes = write  # type: ignore[method-assign]
    return found


def _full(path: Path, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def one_goes_first(folder: Path) -> dict[str, Any]:
    """What one process does or finds, and all must follow."""
    rank, data = dist.get_rank(), blobs(40)

    def astray(run: Fitting) -> None:
        if rank and run.epoch == 1:
            with torch.no_grad():
                next(run.model.parameters()).add_(1e-3)

    def stops(run: Fitting) -> bool:
        return rank == 1 and run.epoch == 2

    def interrupted(run: Fitting) -> None:
        if rank == 1 and run.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    own = tiny_relaxed(seed=rank)  # the first process's weights are taken
    kept: list[FitResult] = []

    def strayed() -> None:
        kept.append(symlearn.fit(own, data, SHORT, callbacks=[astray]))

    alone = symlearn.fit(
        tiny_relaxed(seed=rank), data, replace(SHORT, epochs=2 + rank), processes=curvature.ALONE
    )
    folder /= "c"
    return {
        "alone": len(alone.history),
        "drift": message(strayed),
        "after drift": facts(kept[0]),
        "stopped": len(symlearn.fit(own, data, SHORT, callbacks=[stops]).history),
        "interrupted": message(
            lambda: symlearn.fit(own, data, SHORT, callbacks=[interrupted], checkpoint_dir=folder)
        ),
        "checkpoints": sorted(path.name for path in folder.iterdir()),
    }


def dying(folder: Path, checkpoints: str) -> dict[str, Any]:
    """The last process is killed after two epochs."""

    def die(run: Fitting) -> None:
        if run.epoch == 2 and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    model = tiny_relaxed().double()
    return facts(symlearn.fit(model, blobs(50), SHORT, callbacks=[die], checkpoint_dir=checkpoints))


def resumed(folder: Path, checkpoints: str) -> dict[str, Any]:
    """The fit of `dying` goes on, or is made without interruption where there is no checkpoint."""
    start = checkpoints if Path(checkpoints).is_dir() else None
    return facts(symlearn.fit(tiny_relaxed().double(), blobs(50), SHORT, resume=start))


def command_line(folder: Path, images: str, port: int) -> int:
    """The command line, as started by torchrun."""
    rank, size = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    launcher = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launcher.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
    given = ["--data", images, "--epochs", "2", "--out", str(folder / "out")]
    status = main(["fit", *given])
    assert not dist.is_initialized()
    return status


def plain_net() -> nn.Module:
    """A network that dies in its second epoch in one process, unless it was restarted."""
    return nn.Sequential(*tiny_cnn(), _Mortal())


class _Mortal(nn.Module):
    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT")
        if self.passes > 6 and (os.environ.get("RANK"), restarts) == ("1", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return x
