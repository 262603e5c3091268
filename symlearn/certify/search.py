"""A network for every point of the search, each with the bound it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.certify import message
from symlearn.certify.bounds import BOUNDS, description_kl
from symlearn.certify.config import CertifyConfig, Choice
from symlearn.certify.message import Message
from symlearn.certify.quantise import nearest
from symlearn.certify.subspace import FlatNetwork
from symlearn.certify.terms import Terms
from symlearn.certify.training import Pair, Schedule, Subspace, mistakes
from symlearn.progress import Progress


@dataclass(frozen=True)
class Candidate:
    """A network found.

    Attributes:
        written: Its message.
        choice: The point of the search.
        error: Error on the samples that the bound is formed on.
        bound: The bound.
    """

    written: bytes
    choice: Choice
    error: float
    bound: float

    def told(self) -> dict[str, Any]:
        """The candidate as plain values."""
        facts = {"bits": 8 * len(self.written), "train_error": self.error, "bound": self.bound}
        return {**asdict(self.choice), **facts}


class Search:
    """The search of one certificate.

    Args:
        terms: What was agreed beforehand.
        structure: Which of the paths in the terms are on.
        model: The network, for terms that do not describe it.
        data: The samples that the bound is formed on.
        config: How networks are trained.

    Raises:
        ValueError: If a subspace does not fit the network.
    """

    def __init__(
        self,
        terms: Terms,
        structure: tuple[bool, ...],
        model: nn.Module,
        data: Pair,
        config: CertifyConfig,
    ) -> None:
        self.terms, self.structure, self.model = terms, structure, model
        self.data, self.config = data, config
        # trained where the given network is; everything that is stated is computed on the CPU
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._network = FlatNetwork(terms.network(structure, model).model.to(device))
        self._training = (data[0].to(device), data[1].to(device))
        for choice in terms.grid:  # a subspace that does not fit is told before hours of training
            if choice.dimension:
                terms.subspace(self._network, choice)

    def run(self) -> list[Candidate]:
        """All candidates, in the order of the grid."""
        dimensions = dict.fromkeys(choice.dimension for choice in self.terms.grid)
        trained = [choice for choice in self.terms.grid if choice.dimension]
        epochs = self.config.quantise_epochs * len(trained)
        epochs += self.config.epochs * sum(1 for d in dimensions if d)
        with Progress(self.config.progress, "certify", epochs) as progress:
            found = [self._at(d, progress.advance) for d in dimensions]
        return [candidate for some in found for candidate in some]

    def _at(self, dimension: int, step: Callable[[], None]) -> list[Candidate]:
        """The candidates of one dimension, which share the training in the subspace."""
        points = {i: c for i, c in enumerate(self.terms.grid) if c.dimension == dimension}
        if not dimension:
            return [self._candidate(Message(i, self.structure)) for i in points]
        config = self.config
        subspace = self.terms.subspace(self._network, next(iter(points.values())))
        first = Schedule(config.epochs, config.learning_rate, config.batch_size, config.seed, step)
        w = subspace.train(self._training, first)
        found = []
        for i, choice in points.items():
            rate, epochs = choice.learning_rate, config.quantise_epochs
            second = Schedule(epochs, rate, config.batch_size, config.seed, step)
            found.append(self._quantised(i, choice, subspace, w, second))
        return found

    def _quantised(
        self, index: int, choice: Choice, subspace: Subspace, w: Tensor, schedule: Schedule
    ) -> Candidate:
        levels, init = choice.levels, choice.init
        w, c = subspace.train_quantised(w, levels, init, self._training, schedule)
        c = c.half().double()
        if not bool(torch.isfinite(c).all()):
            raise ValueError(
                f"levels {c.tolist()} do not fit half precision; give smaller learning rates"
            )
        coefficients = nearest(w.double(), c).tolist()
        return self._candidate(
            Message(index, self.structure, tuple(c.tolist()), tuple(coefficients))
        )

    def _candidate(self, said: Message) -> Candidate:
        written, _ = message.write(said, self.terms.code)
        network, theta = self.terms.decode(message.read(written, self.terms.code), self.model)
        n = len(self.data[0])
        error = mistakes(network, theta, self.data) / n
        kl = description_kl(8 * len(written))
        bound = BOUNDS[self.terms.bound](error, kl, n, self.terms.delta)
        return Candidate(written, self.terms.grid[said.choice], error, bound)
