"""Loaders whose random numbers do not depend on how many workers they have.

What a data set draws when it is read (augmentations) comes from the generators of whichever process
reads it. Here every batch is read with generators seeded for that batch, and only for as long, so
that any number of workers gives the same batches.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

_OPTIONS = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor", "persistent_workers"),
)


def seeded(loader: Any) -> Any:
    """A loader of the same batches, each read with random numbers of its own.

    Loaders of other kinds than torch's own over an indexed data set are returned as they are: what
    they draw is their own affair.
    """
    plain = type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset)
    if not plain or loader.batch_sampler is None:
        return loader
    options = {name: getattr(loader, name) for name in _OPTIONS}
    keys: Any = _Keys(loader.batch_sampler, loader.generator)
    # torch draws a seed of the workers, but not whenever they go on from epoch to epoch
    own = torch.Generator()
    return DataLoader(_Seeded(loader.dataset), batch_sampler=keys, generator=own, **options)


class _Keys:
    """The indices of each batch, with the batch's seed.

    Args:
        batches: Lists of indices.
        generator: Gives one number for each epoch, as to torch's own loader; None for torch's.
    """

    def __init__(self, batches: Iterable[Sequence[Any]], generator: torch.Generator | None) -> None:
        self.batches, self.generator = batches, generator

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[tuple[int, Any]]]:
        first = int(torch.empty((), dtype=torch.int64).random_(generator=self.generator))
        # all at once: workers ask for batches ahead, also for such as are not needed in the end
        for number, batch in enumerate(list(self.batches)):
            yield [(first + number, index) for index in batch]


class _Seeded(Dataset[Any]):
    """A data set that reads a whole batch with its seed.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: Sequence[tuple[int, Any]]) -> Any:
        indices = [index for _, index in keys]
        with _seeds(keys[0][0]):
            together = getattr(self.dataset, "__getitems__", None)
            if together is not None:
                return together(indices)
            return [self.dataset[index] for index in indices]


@contextmanager
def _seeds(seed: int) -> Iterator[None]:
    """Generators of torch (on the CPU), numpy and Python at a seed inside; as before afterwards."""
    cpu, theirs, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(theirs)
        random.setstate(python)
