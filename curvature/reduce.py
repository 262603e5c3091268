"""Several processes that share a pass over the data: who computes on what, and sums over all.

Every process reads the same batches and computes on its rows of each. What a pass gathers are sums
over samples, so that adding up all processes' sums gives what one process would have found; one
collective operation is enough for everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET = 2**20  # numbers that are sent together; larger tensors go alone


@dataclass(frozen=True)
class Share:
    """The rows ``start`` to ``stop`` of a batch, on which one process computes.

    Attributes:
        start: First row.
        stop: Row after the last.
        total: Rows of the whole batch.
        counted: False where there are fewer rows than processes: the row is another process's, and
            stands in so that all processes draw the same random numbers and know all shapes.
    """

    start: int
    stop: int
    total: int
    counted: bool = True

    def of(self, rows: Tensor) -> Tensor:
        """This process's rows of a tensor over the whole batch."""
        return rows if self.stop - self.start == self.total else rows[self.start : self.stop]

    def whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the whole batch's tensor, given that of this process's rows."""
        return (self.total, *shape[1:])

    def padded(self, rows: Tensor) -> Tensor:
        """This process's rows in a tensor over the whole batch, zero elsewhere."""
        if len(rows) == self.total:
            return rows
        whole = rows.new_zeros(self.whole(rows.shape))
        whole[self.start : self.stop] = rows
        return whole


class Reduction:
    """Sums over a group of processes; over one process they are what they are.

    Args:
        group: A process group of `torch.distributed`, or None for this process alone.

    Attributes:
        rank: Number of this process in the group, from 0.
        size: Number of processes.

    Raises:
        ValueError: If this process is not in the group.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("this process is not a member of the process group")
        self._group = group

    def share(self, total: int) -> Share:
        """This process's rows of a batch; earlier processes have one more where they are uneven."""
        size, more = divmod(total, self.size)
        start = self.rank * size + min(self.rank, more)
        stop = start + size + (self.rank < more)
        return Share(start, stop, total) if stop > start else Share(0, 1, total, counted=False)

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the processes, the same in all of them.

        All processes give tensors of the same shapes and types in the same order.

        Raises:
            ValueError: If the group cannot communicate from a tensor's device.
        """
        if self.size == 1:
            return
        with torch.no_grad():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
                self._all_reduce(flat)
                parts = flat.split([tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view(tensor.shape))

    def numbers(self, *values: float) -> list[float]:
        """Sums of numbers over the processes, in double precision."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.sum(total)
        return total.tolist()

    @property
    def device(self) -> torch.device:
        """A device that the group communicates from: the CPU where it can."""
        if self._group is None or "cpu" in self._devices:
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    @property
    def _devices(self) -> list[str]:
        config = dist.get_backend_config(self._group)
        return [entry.partition(":")[0] for entry in config.split(",")]

    def _all_reduce(self, flat: Tensor) -> None:
        if flat.device.type not in self._devices:
            raise ValueError(
                f"the process group communicates from {', '.join(self._devices)}, not from "
                f"{flat.device.type}, where the network is; move it, or choose another backend: "
                "torch.distributed.init_process_group('gloo') for CPUs, 'nccl' for GPUs"
            )
        dist.all_reduce(flat, group=self._group)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of the same type and device, together at most a bucket's size if several."""
    for _, alike in itertools.groupby(tensors, lambda t: (t.dtype, t.device)):
        bucket: list[Tensor] = []
        size = 0
        for tensor in alike:
            if bucket and size + tensor.numel() > _BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.numel()
        yield bucket


def assigned(costs: Sequence[float], size: int) -> list[int]:
    """Which of ``size`` processes does which job, so that all have about as much to do.

    Each job, the most costly first, goes to the process with the least to do so far.
    """
    load, owners = [0.0] * size, [0] * len(costs)
    for job in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[job] = load.index(min(load))
        load[owners[job]] += costs[job]
    return owners


ALONE = Reduction()
"""This process alone."""
