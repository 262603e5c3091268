"""The outer loop: steps on weights and on precisions, growth and pruning, in one call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from curvature import Data, Reduction
from curvature.checking import check_real, check_weights
from symlearn.fit import randomness
from symlearn.fit.background import with_background
from symlearn.fit.checkpoint import Checkpoints, read
from symlearn.fit.config import FitConfig
from symlearn.fit.fitting import Fitting
from symlearn.fit.interrupt import Interrupts
from symlearn.fit.planner import kept_to_budget
from symlearn.fit.processes import all_processes, any_of, from_first, keep_together, together
from symlearn.fit.progress import Progress
from symlearn.fit.result import FitResult
from symlearn.fit.weights import NonFiniteLossError
from symlearn.relaxed import relaxed_layers
from symlearn.scoring import score

Callback: TypeAlias = Callable[[Fitting], object]


def fit(
    model: nn.Module,
    train: Data,
    config: FitConfig | None = None,
    *,
    validation: Data | None = None,
    callbacks: Sequence[Callback] = (),
    resume: FitResult | str | Path | None = None,
    checkpoint_dir: str | Path | None = None,
    every: int = 1,
    keep: int = 3,
    processes: Reduction | None = None,
) -> FitResult:
    """Learn weights and prior precisions from training data alone.

    The given model is not changed. Paths that contribute nothing at the start are switched off;
    they are tested every few evidence steps and started, one at a time, when the evidence says
    that they pay (``config.grow``).

    Args:
        model: A relaxed network (`symlearn.wrap`).
        train: ``(X, y)``, a Dataset or a DataLoader.
        config: Options; `FitConfig` documents them.
        validation: Data whose loss and accuracy are recorded in the report; never used to learn.
        callbacks: Called with the running `Fitting` after every epoch (after trials, once for all
            their epochs); one that returns True ends the fit.
        resume: An earlier result on the same architecture, whose weights and precisions are the
            start; or a folder of checkpoints, or one of them, of an unfinished fit, which goes on
            as if it had not been interrupted: on the CPU bit for bit. Model, data and config must
            be those it was started with; without a ``config`` the checkpoint's is taken.
        checkpoint_dir: Folder for checkpoints: safetensors files, written whole or not at all.
            While it is given, the first Ctrl-C stops after the epoch under way and saves (trials
            are one step); the second stops at once.
        every: Epochs between checkpoints.
        keep: How many of them are kept.
        processes: Processes that fit the network together. By default all those of
            `torch.distributed`, where the program has set it up, as under ``torchrun``; else this
            one. `curvature.ALONE` is this process alone, `curvature.Reduction` a group of them.

    Processes that fit together all call this, with the same model, data and config; every batch is
    divided over them, and each returns the same result. The first one writes the checkpoints.

    A checkpoint holds the states of all global generators of random numbers (torch, numpy, Python)
    and of those a loader was given. A loader or callback with other state of its own starts anew.

    Raises:
        ValueError: If the model is not relaxed or its weights are not finite, the data (validation
            included) are empty or malformed, targets do not suit the likelihood, or ``resume``
            belongs to another model, other data or another config, or is damaged.
        MemoryBudgetError: If the fit would need more memory than ``config.memory_budget``; a
            ValueError that names phase and numbers, and lighter paths.
        FileNotFoundError: If there is no checkpoint to resume from.
        FileExistsError: If ``checkpoint_dir`` holds checkpoints of another fit.
        OSError: If a checkpoint cannot be written; earlier ones stay.
        KeyboardInterrupt: After Ctrl-C.
        TypeError: If the model, the data, the config or the callbacks are of an unknown kind.
        NonFiniteLossError: If the loss becomes NaN or infinite; names batch and layer, and the
            folder of the last good checkpoint.

    Example:
        >>> import torch, symlearn
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(),
        ...     torch.nn.Flatten(), torch.nn.Linear(32, 2))
        >>> x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % 2
        >>> result = symlearn.fit(symlearn.wrap(net, x[:1]), (x, y),
        ...     symlearn.FitConfig(epochs=2, burn_in=0.0, progress=False))
        >>> result.predict_proba(x).shape
        torch.Size([40, 2])
    """
    if not isinstance(resume, (FitResult, str, Path, type(None))):
        raise TypeError(f"resume must be a FitResult or a path, got {type(resume).__name__}")
    processes = all_processes() if processes is None else processes
    start: FitResult | dict[str, Any] | None = None
    origin: Path | None = None
    if isinstance(resume, FitResult):
        start = resume
    elif resume is not None:
        origin = Path(resume)
        with together(processes, "read the checkpoint"):
            start = read(origin) if processes.rank == 0 else None
        start = from_first(processes, start)
    config = _config(config, start)
    _check_callbacks(callbacks)
    if not relaxed_layers(model):
        raise ValueError("the model has no relaxed layer; wrap it first: symlearn.wrap(model, x)")
    _check_precise(model)
    config = kept_to_budget(model, train, config, checkpoint_dir is not None)
    files = None
    if checkpoint_dir is not None:
        with together(processes, "prepare the folder for checkpoints"):
            files = Checkpoints(checkpoint_dir, every, keep, origin, processes)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        run = Fitting(copy.deepcopy(model), train, config, start, processes)
        if isinstance(validation, Iterator):  # it is read before the fit, and after it
            validation = list(validation)
        if validation is not None:
            before = randomness.state_dict()
            score(run.model, validation, run.state.likelihood)  # bad data are told now
            randomness.load_state_dict(before)
        _train(run, callbacks, files)
        return with_background(run.finish(validation))


def _config(given: FitConfig | None, start: FitResult | dict[str, Any] | None) -> FitConfig:
    """The config given, or that of the checkpoint, or the default one."""
    if given is None:
        return FitConfig.from_dict(start["config"]) if isinstance(start, dict) else FitConfig()
    if not isinstance(given, FitConfig):
        raise TypeError(f"config must be a FitConfig, got {type(given).__name__}")
    return given


@contextmanager
def _pointing_at(files: Checkpoints | None) -> Iterator[None]:
    """Let an error of numbers that are not finite say where to go on from."""
    try:
        yield
    except NonFiniteLossError as error:
        if files is None:
            raise
        raise NonFiniteLossError(f"{error}; the last good checkpoint is in {files.folder}") from (
            error
        )


def _check_callbacks(callbacks: object) -> None:
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks must be a list of functions, got {callbacks!r}")


def _check_precise(model: nn.Module) -> None:
    """Refuse weights that are not finite, hold no values, or have too few digits for evidence."""
    check_weights(model)
    check_real(model)
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    coarse = sorted(str(k) for k in kinds if torch.finfo(k).bits < 32)
    if coarse:
        raise ValueError(
            f"the network's weights are {', '.join(coarse)}; give them in float32 (model.float()): "
            "FitConfig(autocast=True) runs it in bfloat16 all the same"
        )


def _train(run: Fitting, callbacks: Sequence[Callback], files: Checkpoints | None) -> None:
    """All epochs, with checkpoints between them."""
    if files is not None:
        files.save(run.epoch, run.state_dict())
    interrupts = Interrupts(files is not None)
    progress = run.config.progress if run.processes.rank == 0 else False
    with interrupts, Progress(progress, run.total) as bar:
        while not (run.ended or any_of(run.processes, interrupts.asked)):
            with _pointing_at(files):
                run.advance()
            bar.show(run)
            stop = any([callback(run) is True for callback in callbacks])
            run.stopped = any_of(run.processes, stop)
            keep_together(run)
            if files is not None and files.due(run.epoch):
                files.save(run.epoch, run.state_dict())
        if files is not None:
            files.save(run.epoch, run.state_dict())
            if any_of(run.processes, interrupts.asked):
                raise KeyboardInterrupt(
                    f"stopped after epoch {run.epoch}; go on with resume={str(files.folder)!r}"
                )
