"""Training in a subspace, and of quantised coefficients and their levels together (Algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from curvature.checking import seeded
from symlearn.certify.projectors import Projector
from symlearn.certify.quantise import initial_levels, quantised
from symlearn.certify.subspace import FlatNetwork

Pair = tuple[Tensor, Tensor]
_EVAL = 500


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to descend.

    Attributes:
        epochs: Passes over the data.
        learning_rate: Adam's first learning rate; it falls to zero as a cosine.
        batch_size: Samples in a step.
        seed: Of the order of the samples.
        step: Called after every epoch.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    step: Callable[[], None]


@dataclass(frozen=True)
class Subspace:
    """A network in a subspace: ``theta = theta_0 + P w``.

    Attributes:
        network: The network, which has theta_0.
        projector: P.
    """

    network: FlatNetwork
    projector: Projector

    def theta(self, w: Tensor) -> Tensor:
        """Parameters [D] at coefficients w [d], in the type of the network."""
        start = self.network.start
        return (start + (self.projector @ w).to(start.device)).to(start.dtype)

    def train(self, data: Pair, schedule: Schedule) -> Tensor:
        """Coefficients w [d] trained from zero."""
        w = torch.zeros(self.projector.space.dim, requires_grad=True)
        descend(lambda x, y: self._gradient(w * 1.0, x, y), [w], data, schedule)
        return w.detach()

    def train_quantised(
        self, w: Tensor, levels: int, init: str, data: Pair, schedule: Schedule
    ) -> tuple[Tensor, Tensor]:
        """Coefficients [d] and their levels [L], trained together from trained coefficients."""
        w = w.clone().requires_grad_()
        c = initial_levels(w.detach(), levels, init).requires_grad_()
        descend(lambda x, y: self._gradient(quantised(w, c), x, y), [w, c], data, schedule)
        return w.detach(), c.detach()

    def _gradient(self, coefficients: Tensor, x: Tensor, y: Tensor) -> float:
        """Loss of a batch; its gradient passes through P^T to what the coefficients are made of."""
        theta = self.theta(coefficients.detach()).requires_grad_()
        loss = F.cross_entropy(self.network(theta, x), y)
        (gradient,) = torch.autograd.grad(loss, theta)
        coefficients.backward(self.projector.adjoint(gradient.cpu()))
        return float(loss.detach())


def train_whole(network: FlatNetwork, data: Pair, schedule: Schedule) -> Tensor:
    """All parameters theta [D], trained from those the network has."""
    theta = network.start.clone().requires_grad_()

    def gradient(x: Tensor, y: Tensor) -> float:
        loss = F.cross_entropy(network(theta, x), y)
        loss.backward()
        return float(loss.detach())

    descend(gradient, [theta], data, schedule)
    return theta.detach()


def descend(
    gradient: Callable[[Tensor, Tensor], float],
    parameters: Sequence[Tensor],
    data: Pair,
    schedule: Schedule,
) -> None:
    """Adam, in place.

    Args:
        gradient: Adds the gradient of a batch to the parameters, and returns its loss.
        parameters: What is trained.
        data: Inputs [N, ...] and classes [N].
        schedule: How long and how fast.

    Raises:
        ValueError: If the loss is NaN or infinite.
    """
    x, y = data
    optimiser = torch.optim.Adam(parameters, lr=schedule.learning_rate)
    generator = seeded(schedule.seed)
    total = schedule.epochs * -(-len(x) // schedule.batch_size)
    done = 0
    for _ in range(schedule.epochs):
        order = torch.randperm(len(x), generator=generator)
        for part in order.split(schedule.batch_size):
            rate = schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done / total))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
            part = part.to(x.device)
            loss = gradient(x[part], y[part])
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss became {loss} at learning rate {schedule.learning_rate:g}; give a "
                    "smaller one"
                )
            optimiser.step()
            done += 1
        schedule.step()


@torch.no_grad()
def mistakes(network: FlatNetwork, theta: Tensor, data: Pair) -> int:
    """Number of samples whose largest output is not that of their class.

    Outputs that are not finite are mistakes.
    """
    x, y = data
    wrong = 0
    for inputs, classes in zip(x.split(_EVAL), y.split(_EVAL), strict=True):
        out = network(theta, inputs)
        right = (out.argmax(1) == classes) & torch.isfinite(out).all(1)
        wrong += int((~right).sum())
    return wrong
