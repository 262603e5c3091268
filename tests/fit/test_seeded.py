"""The same numbers with any number of loader workers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

import symlearn
from symlearn.fit.seeded import seeded
from tests.fit.continuing import QUICK
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Images that all three generators of random numbers change whenever they are read."""

    def __init__(self, n: int = 40) -> None:
        self.x, self.y = blobs(n)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * np.random.randn() + 0.1 * random.gauss(0, 1) + 0.1 * torch.randn(8, 8)
        return self.x[index] + noise.float(), self.y[index]


class Together(Noisy):
    """A data set that reads several samples at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[index] for index in indices]


def batches(dataset: Any, epochs: int = 2, **options: Any) -> Tensor:
    """All images of some epochs, in the order in which a seeded loader gives them."""
    torch.manual_seed(0)
    loader = seeded(DataLoader(dataset, **{"batch_size": 8, "shuffle": True, **options}))
    next(iter(loader))  # an epoch that ends early changes nothing
    return torch.stack([torch.cat([x for x, _ in loader]) for _ in range(epochs)])


@pytest.mark.parametrize("kind", [Noisy, Together])
def test_batches_do_not_depend_on_workers(kind: type[Noisy]) -> None:
    alone = batches(kind())
    assert torch.equal(alone, batches(kind(), num_workers=2, persistent_workers=True))
    assert torch.equal(alone, batches(kind(), num_workers=1, prefetch_factor=1))
    assert not torch.equal(alone[0].sort(0).values, alone[1].sort(0).values)  # new noise


def test_samplers_that_draw_one_by_one() -> None:
    """Workers ask ahead; what is drawn for an epoch must not depend on how far."""
    torch.manual_seed(0)
    generator = torch.Generator()
    sampler = WeightedRandomSampler([1.0] * 40, 40, generator=generator)
    found = []
    for workers in (0, 2):
        generator.manual_seed(3)
        options = {"shuffle": False, "sampler": sampler, "generator": generator}
        found.append(batches(Noisy(), num_workers=workers, **options))
    assert torch.equal(*found)


def test_generators_are_left_as_they_were() -> None:
    loader = seeded(DataLoader(Noisy(12), batch_size=4))
    source = iter(loader)
    next(source)  # torch gives the epoch's seed
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.RandomState(1).rand(), random.Random(1).random()
    assert len(list(source)) == len(loader) - 1 == 2
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.rand(), random.random()) == before[1:]


class _Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter(torch.zeros(4, 1))


class _Loader(DataLoader[Any]):
    """Somebody's own loader."""


@pytest.mark.parametrize(
    "loader",
    [DataLoader(_Stream()), _Loader(Noisy(4)), DataLoader(Noisy(4), batch_size=None), [(1, 2)]],
    ids=["stream", "own", "unbatched", "list"],
)
def test_other_loaders_are_left_alone(loader: Any) -> None:
    assert seeded(loader) is loader


def fitted(data: Any) -> tuple[float, list[float]]:
    config = replace(QUICK, epochs=2, check_images=0)
    result = symlearn.fit(tiny_relaxed(), data, config)
    return result.log_evidence, [r.train_nll for r in result.history]


def test_fits_do_not_depend_on_workers() -> None:
    found = [
        fitted(DataLoader(Noisy(24), batch_size=12, shuffle=True, num_workers=workers))
        for workers in (0, 1, 2)
    ]
    assert found[0] == found[1] == found[2]


def test_the_seed_of_a_fit_is_that_of_its_data_set() -> None:
    found = []
    for outside in (0, 1):
        np.random.seed(outside)
        random.seed(outside)
        found.append(fitted(Noisy()))
    assert found[0] == found[1]
