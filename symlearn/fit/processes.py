"""What the processes of a fit tell each other, beside the sums of a pass (`curvature.reduce`).

Every process holds the whole fit: weights, precisions, generators of random numbers. All make the
same decisions from the same sums; what could differ (clocks, signals, files) one of them decides.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from curvature import ALONE, Reduction
from symlearn.fit.config import FitConfig
from symlearn.fit.identity import differences
from symlearn.fit.tree import checksum, pack, unpack


class Run(Protocol):
    """What the processes need of a fit in progress."""

    config: FitConfig
    processes: Reduction
    epoch: int

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the fit depends on."""

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


def all_processes() -> Reduction:
    """All processes of `torch.distributed`, where the program has set it up; else this one."""
    if dist.is_available() and dist.is_initialized():
        return Reduction(dist.group.WORLD)
    return ALONE


def any_of(processes: Reduction, flag: bool) -> bool:
    """Whether it is so in any process."""
    return processes.numbers(float(flag))[0] > 0


@contextmanager
def together(processes: Reduction, what: str) -> Iterator[None]:
    """A block that fails in all processes if it fails in one, so that none waits for it.

    Args:
        processes: The processes; each comes here.
        what: What the block does, for the error.

    Raises:
        RuntimeError: If another process failed; which says why.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    failures = processes.numbers(*(float(failed is not None and mine) for mine in _unit(processes)))
    if failed is not None:
        raise failed
    if any(failures):
        numbers = ", ".join(str(rank) for rank, count in enumerate(failures) if count)
        raise RuntimeError(f"process {numbers} failed to {what}; its own message says why")


def from_first(processes: Reduction, tree: Any) -> Any:
    """The first process's tree of plain values and tensors (on the CPU), in all processes.

    Args:
        processes: The processes.
        tree: The tree; of use in the first process only.
    """
    if processes.size == 1:
        return tree
    content = save(pack(tree)) if processes.rank == 0 else b""
    length = round(processes.numbers(len(content))[0])
    # a sum with zeros is a copy
    buffer = torch.zeros(length, dtype=torch.uint8, device=processes.device)
    if content:
        buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    processes.sum(buffer)
    return unpack(load(buffer.cpu().numpy().tobytes()))


def all_same(processes: Reduction, tree: Any) -> bool:
    """Whether all processes hold the same tree of plain values and tensors."""
    mine = bytearray.fromhex(checksum(pack(tree)))
    table = torch.zeros(processes.size, len(mine), dtype=torch.uint8, device=processes.device)
    table[processes.rank] = torch.frombuffer(mine, dtype=torch.uint8)
    processes.sum(table)
    return bool((table == table[0]).all())


def summed_loss(processes: Reduction, loss: float, targets: Tensor) -> float:
    """The sum of the processes' parts of a batch's loss.

    Args:
        processes: The processes.
        loss: This process's part.
        targets: Targets of the whole batch, which tell whether all processes see the same one.

    Raises:
        ValueError: If they do not.
    """
    if processes.size == 1:
        return loss
    mark = zlib.crc32(targets.cpu().contiguous().numpy().tobytes())
    total, marks = processes.numbers(loss, mark)
    if marks != mark * processes.size:
        raise ValueError(
            "the processes of the fit see different batches; give each the same data in the same "
            "order (a loader without a sampler of its own for each process): every batch is "
            "divided over the processes here"
        )
    return total


def join(run: Run) -> None:
    """Let all processes begin where the first does: weights, precisions, random numbers.

    Raises:
        ValueError: If a process was given another model, other data or another config.
        RuntimeError: In the other processes then.
    """
    if run.processes.size == 1:
        return
    mine = run.state_dict()
    first = from_first(run.processes, mine)
    with together(run.processes, "join the fit"):
        reasons = differences(first, run.config, mine["identity"], mine["samples"])
        if reasons:
            raise ValueError(
                "processes that fit together need the same model, data and config, of which each "
                f"computes its part; compared with process {run.processes.rank}, the fit of "
                f"process 0 differs: {'; '.join(reasons)}"
            )
        run.load_state_dict(first)
    if torch.cuda.is_available():  # the first process's device is another one than ours
        cuda = from_first(run.processes, {"state": torch.cuda.get_rng_state()})
        torch.cuda.set_rng_state(cuda["state"])


def keep_together(run: Run) -> None:
    """Let all processes go on from the first's state, should they no longer have the same one.

    All compute the same, so that they do not need to; but equal sums do not make equal weights on
    machines of different kinds.
    """
    if run.processes.size == 1:
        return
    saved = run.state_dict()
    state = {name: saved["state"][name] for name in ("model", "enabled", "prior")}
    chance = (saved["generator"], saved["random"]["torch"])
    if all_same(run.processes, [state, saved["counters"], saved["schedule"], *chance]):
        return
    warnings.warn(
        f"the processes of the fit had drifted apart in epoch {run.epoch} (machines of different "
        "kinds, operations that are not deterministic, or random numbers drawn in some processes "
        "only); all go on from the state of the first",
        stacklevel=3,
    )
    join(run)


def _unit(processes: Reduction) -> list[bool]:
    """True at this process's number."""
    return [rank == processes.rank for rank in range(processes.size)]
