"""Training data for a fit: shuffled epochs, random subsets, and a held-out part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

import curvature
from curvature import Data, Likelihood
from symlearn.fit.seeded import seeded
from symlearn.fit.tree import checksum

PASS_SIZE = 250


class Batches:
    """Batches that are made anew whenever they are read: one at a time is in memory.

    Args:
        make: Makes an iterator over them.
    """

    def __init__(self, make: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._make()


class Counted:
    """Batches, and how many samples they had.

    Args:
        batches: The batches.

    Attributes:
        n: Samples of the batches read so far.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self._batches, self.n = batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self._batches:
            self.n += len(y)
            yield x, y


class TrainData:
    """One view of (X, y), a Dataset or a DataLoader; a DataLoader keeps its own order and batches.

    Args:
        data: ``(X, y)``, a map-style Dataset, or a DataLoader (or another iterable of pairs that
            can be iterated again and again).
        model: The network the batches are for (its device and dtype).
        batch_size: Samples per batch of a weight step, where the data do not decide it.
        pass_size: Most samples per batch of any other pass; by default 250 or ``batch_size``.

    Attributes:
        n: Number of training samples, the held-out part included.
        can_hold_out: Whether samples can be set aside (not for a loader).

    Raises:
        TypeError: For data of an unknown kind, or an iterator that cannot be started again.
        ValueError: For empty or malformed data, or a loader with a DistributedSampler.
    """

    def __init__(
        self, data: Data, model: nn.Module, batch_size: int, pass_size: int | None = None
    ) -> None:
        self.model, self.batch_size = model, batch_size
        # passes without weight steps are as good in larger batches, and faster
        self.pass_size = max(batch_size, PASS_SIZE) if pass_size is None else pass_size
        self._pair = curvature.as_pair(data)
        self._dataset = data if isinstance(data, Dataset) and hasattr(data, "__len__") else None
        self._given: Any = data
        self._loader = seeded(data)
        if iter_once(data):
            raise TypeError(
                "the training data are an iterator that can be read only once; give (X, y), a "
                "Dataset or a DataLoader"
            )
        self._check_samplers()
        self.can_hold_out = self._pair is not None or self._dataset is not None
        if self._pair is not None:
            x, y = self._pair
            anchor = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
            curvature.check_batch((x, y), 0)
            x = x.to(anchor) if x.is_floating_point() else x.to(anchor.device)
            self._pair = (x, y.to(anchor.device))
            self.n = len(x)
        elif self._dataset is not None:
            self.n = len(self._dataset)
        else:
            self.n = sum(len(y) for _, y in curvature.batches(self._loader, model, batch_size))
        if self.n == 0:
            raise ValueError("the training data are empty")
        self.indices = torch.arange(self.n)
        self.held = torch.arange(0)
        self._checksum: str | None = None

    def hold_out(self, fraction: float, generator: torch.Generator) -> None:
        """Set a random part aside from `epoch`; ``fraction=0`` takes it back."""
        order = torch.randperm(self.n, generator=generator)
        size = round(fraction * self.n) if self.can_hold_out else 0
        self.held, self.indices = order[:size].sort().values, order[size:].sort().values

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches of the training part."""
        if not self.can_hold_out:
            return curvature.batches(self._loader, self.model, self.batch_size)
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        return self._take(order, self.batch_size)

    def sample(
        self, size: int, generator: torch.Generator
    ) -> Batches | list[tuple[Tensor, Tensor]]:
        """Batches of a random subset of the training part, of about ``size`` samples (0 for all).

        A loader gives its first batches (random if the loader shuffles), which are kept, so that
        they are the same when they are read again; for all samples it is read again.
        """
        if not self.can_hold_out:
            return list(until(self._loaded(), size)) if size else Batches(self._loaded)
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        order = order[: size or len(order)]
        return Batches(lambda: self._take(order, self.pass_size))

    def everything(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches of the training part in order."""
        if not self.can_hold_out:
            return self._loaded()
        return self._take(self.indices, self.pass_size)

    def held_out(self) -> Batches | None:
        """Batches of the part set aside; None if there is none."""
        return Batches(lambda: self._take(self.held, self.pass_size)) if len(self.held) else None

    def _loaded(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A loader's batches, cut where they are larger than a pass."""
        for x, y in curvature.batches(self._loader, self.model, self.batch_size):
            yield from zip(x.split(self.pass_size), y.split(self.pass_size), strict=True)

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed fit compares: the number of samples, and of arrays a checksum."""
        if self._pair is not None and self._checksum is None:
            self._checksum = checksum({"x": self._pair[0], "y": self._pair[1]})
        return {"n": self.n, "sha256": self._checksum}

    def state_dict(self) -> dict[str, Any]:
        """The split, and the states of a loader's own generators."""
        states = [generator.get_state() for generator in self._generators()]
        return {"held": self.held, "indices": self.indices, "generators": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If the loader has another number of generators.
        """
        mine = self._generators()
        if len(mine) != len(state["generators"]):
            raise ValueError(
                f"the training data have {len(mine)} generators of random numbers, the saved ones "
                f"{len(state['generators'])}; give the loader that the fit was started with"
            )
        self.held, self.indices = state["held"], state["indices"]
        for generator, saved in zip(mine, state["generators"], strict=True):
            generator.set_state(saved)

    def _generators(self) -> list[torch.Generator]:
        """The generators that a loader and its samplers were given."""
        batches = getattr(self._given, "batch_sampler", None)
        owners = (self._given, batches, *self._samplers())
        found = [getattr(owner, "generator", None) for owner in owners]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def _samplers(self) -> list[Any]:
        """The samplers of a loader; None for one that has none."""
        owners = (self._given, getattr(self._given, "batch_sampler", None))
        return [getattr(owner, "sampler", None) for owner in owners]

    def _check_samplers(self) -> None:
        for sampler in self._samplers():
            if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
                raise ValueError(
                    "the loader has a DistributedSampler, which gives each process other samples, "
                    "and some twice to make the parts even: the evidence would not see the true "
                    "number of samples. Give every process the same loader without it; the fit "
                    "divides each batch over the processes"
                )

    def _take(self, index: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(index):
            return
        if self._pair is not None:
            x, y = self._pair
            for part in index.to(x.device).split(size):
                yield x[part], y[part]
        elif self._dataset is not None:
            subset = Subset(self._dataset, index.tolist())
            loader = DataLoader(subset, batch_size=size)
            yield from curvature.batches(seeded(loader), self.model, self.batch_size)


def iter_once(data: object) -> bool:
    """Whether the object is an iterator, which a second epoch would find exhausted."""
    return isinstance(data, Iterator)


def until(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first batches that hold at least ``size`` samples together."""
    seen = 0
    for x, y in batches:
        yield x, y
        seen += len(x)
        if seen >= size:
            return


def halves(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Batches, Batches]:
    """Every batch cut in two: for finding something and for testing it on other data."""
    cut = Batches(lambda: ((x[: len(x) // 2], y[: len(y) // 2]) for x, y in batches if len(x) > 1))
    rest = Batches(lambda: ((x[len(x) // 2 :], y[len(y) // 2 :]) for x, y in batches if len(x) > 1))
    return cut, rest


def null_loss(data: TrainData, likelihood: Likelihood, classes: int) -> float:
    """Mean negative log likelihood in nats of always predicting the labels' frequencies.

    NaN where the likelihood is not categorical.

    Raises:
        ValueError: For labels that are no class indices below ``classes``.
    """
    if likelihood.name != "categorical":
        return float("nan")
    counts = torch.zeros(classes, dtype=torch.float64)
    for _, y in data.everything():
        # a bad label may come late: the likelihood says what is wrong with it
        y = likelihood.check(torch.empty(len(y), classes), y)
        counts += torch.bincount(y.cpu(), minlength=classes).double()
    p = counts / counts.sum()
    return float(-(p * p.clamp(min=1e-300).log()).sum())


def first(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The first batch."""
    return next(batches)
