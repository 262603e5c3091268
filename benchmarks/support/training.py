"""Plain training by Adam, and learning rates chosen on validation images of other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.support.study import Row, pick
from symlearn.datasets import ImageSet

_EVALUATED = 500
Loss = Callable[[Tensor, Tensor], Tensor]


def train_by_adam(
    net: nn.Module,
    data: tuple[Tensor, Tensor],
    rate: float,
    *,
    epochs: int,
    batch: int,
    seed: int,
    weight_decay: float = 0.0,
    loss: Loss = F.cross_entropy,
) -> None:
    """Train in place, with a rate that falls to zero by a cosine."""
    x, y = data
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    draw = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=draw).split(batch):
            optimiser.zero_grad()
            loss(net(x[index]), y[index]).backward()
            optimiser.step()
        schedule.step()


def accuracy(net: nn.Module, images: ImageSet) -> float:
    """Share of images that are named right."""
    net.eval()
    with torch.no_grad():
        named = torch.cat([net(x).argmax(1) for x in images.x.split(_EVALUATED)])
    return float((named == images.y).double().mean())


def trained(net: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def best_rates(
    rows: Sequence[Row], models: Sequence[str], rates: Sequence[float]
) -> dict[str, float]:
    """The rate of each model that is best in runs of the part "validate"; once all were tried."""
    found: dict[str, float] = {}
    for model in models:
        tried = {row["rate"]: row["accuracy"] for row in pick(rows, part="validate", model=model)}
        if set(tried) == set(rates):
            found[model] = max(tried, key=tried.__getitem__)
    return found
