"""Groups of processes on gloo that run a function together, for tests."""

from __future__ import annotations

import json
import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

Body = Callable[[Path], Any]
"""What a process of the group does, given a folder that all share; returns JSON-ready facts."""


class Fleet:
    """Starts groups of processes that have imported the package already.

    Args:
        module: Module that the functions to be run are in.
        folder: Folder for what the groups write.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self.folder, self._groups = folder, 0
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([module])

    def run(self, size: int, body: Body, seconds: float = 120) -> list[Any]:
        """What each process of a group returns; a text for one that failed or died."""
        folder = self.folder / str(self._groups)
        self._groups += 1
        folder.mkdir()
        group = [
            self._context.Process(target=_member, args=(rank, size, folder, body))
            for rank in range(size)
        ]
        for process in group:
            process.start()
        for process in group:
            process.join(seconds)
        hanging = [process for process in group if process.is_alive()]
        for process in hanging:
            process.kill()
        assert not hanging, "processes wait for each other"
        files = [folder / f"found-{rank}.json" for rank in range(size)]
        return [json.loads(f.read_text()) if f.exists() else "died" for f in files]


def _member(rank: int, size: int, folder: Path, body: Body) -> None:
    torch.set_num_threads(1)
    store = (folder / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    try:
        found = body(folder)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
