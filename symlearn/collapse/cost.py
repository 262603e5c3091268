"""What a network costs: weights, multiply-adds, and time on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import curvature

_REPEATS = 21
_WARM_UP = 3


def weights(model: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: nn.Module, x: Tensor) -> float:
    """Multiply-adds of convolutions and matrix products, per sample.

    Torch's operations are counted as they run, so that every module is covered, whatever it is
    made of. Elementwise operations and pools are not counted.

    Args:
        model: The network.
        x: Inputs [N, C, *size].
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), curvature.evaluating(model), counter:
        model(x)
    return counter.get_total_flops() / 2 / len(x)  # torch counts a multiply-add as two


def latency(models: Sequence[nn.Module], x: Tensor) -> list[float]:
    """Median time of one forward pass of each network in eval mode, on one CPU thread, in seconds.

    The networks take turns, so that a slow moment of the machine meets all of them.

    Args:
        models: The networks.
        x: Inputs [N, C, *size]; their device decides where the networks run.
    """
    threads = torch.get_num_threads()
    times: list[list[float]] = [[] for _ in models]
    torch.set_num_threads(1)
    try:
        for repeat in range(_WARM_UP + _REPEATS):
            for model, taken in zip(models, times, strict=True):
                seconds = _one_pass(model, x)
                if repeat >= _WARM_UP:
                    taken.append(seconds)
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(taken) for taken in times]


def _one_pass(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad(), curvature.evaluating(model):
        _synchronise(x)
        start = time.perf_counter()
        model(x)
        _synchronise(x)
        return time.perf_counter() - start


def _synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
