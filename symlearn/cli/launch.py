"""The processes that ``torchrun`` has started, if it was ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

DEVICES = ("cpu", "cuda")


@contextmanager
def launched(device: str) -> Iterator[bool]:
    """Let the processes of a launcher work together inside; whether this one speaks for all.

    Args:
        device: One of `DEVICES`; with several GPUs each process has one of its own.

    Raises:
        ValueError: If there is no GPU for the process.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"--device is 'cuda', and there are {torch.cuda.device_count()} GPUs for process "
                f"{local}; start at most one process for each GPU, or give --device cpu"
            )
        torch.cuda.set_device(local)
    if not (dist.is_available() and dist.is_torchelastic_launched()) or dist.is_initialized():
        yield True
        return
    store, rank, size = next(iter(rendezvous("env://")))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # a restarted process would find the addresses that the dead ones left in the launcher's
        # store; launchers on several machines count restarts each for itself
        prefix = f"restart-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield rank == 0
    finally:
        dist.destroy_process_group()
