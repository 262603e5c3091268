"""The plain way to an exact pass: forward hooks, and gradients with respect to activations only.

`bare_pass` is what no exact pass can avoid; `exact_factors` adds the factors in the straightforward
manner (unfold, matrix products).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.support.nets import Pair
from curvature.padding import FastPadding

Layer = nn.Conv2d | nn.Linear


def layers(net: nn.Module) -> list[Layer]:
    """The convolutions and linear layers of a network."""
    return [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def sqrt_hessian(outputs: Tensor) -> Tensor:
    """Columns ``sqrt(p_k) (e_k - p)`` of a square root of the softmax Hessian, [K, N, K]."""
    p = outputs.detach().softmax(-1)
    return (torch.eye(p.shape[1]).unsqueeze(1) - p) * p.sqrt().T.unsqueeze(2)


def _backwards(
    net: nn.Module, x: Tensor, columns: int | None, on_input: Callable[[Layer, Tensor], None]
) -> Iterator[tuple[Tensor, ...]]:
    """Gradients of all layers' outputs, for one column of the square-root Hessian after another."""
    edges: list[Tensor] = []

    def hook(module: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
        on_input(module, args[0].detach())
        edges.append(out)

    handles = [layer.register_forward_hook(hook) for layer in layers(net)]
    try:
        outputs = net(x)
    finally:
        for handle in handles:
            handle.remove()
    vectors = sqrt_hessian(outputs)[:columns]
    for k, v in enumerate(vectors):
        yield torch.autograd.grad(outputs, edges, v, retain_graph=k + 1 < len(vectors))


def bare_pass(
    net: nn.Module, batches: Sequence[Pair], columns: int, cheap_padding: bool = False
) -> None:
    """One forward and ``columns`` backwards to the layers' outputs, nothing else.

    Args:
        net: The network.
        batches: The data.
        columns: Number of backward passes.
        cheap_padding: Differentiate circular padding as the library does, not as torch does.
    """
    for x, _ in batches:
        with FastPadding() if cheap_padding else nullcontext():
            for _ in _backwards(net, x, columns, lambda layer, a: None):
                pass


def exact_factors(net: nn.Module, batches: Sequence[Pair]) -> list[tuple[Tensor, Tensor]]:
    """Kronecker factors (A, G) of every layer with their eigenvalues, the plain way."""
    modules = layers(net)
    a_sums: dict[Layer, Tensor] = {}
    g_sums: dict[Layer, Tensor] = {}

    def on_input(layer: Layer, a: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            a = F.unfold(a, layer.kernel_size, stride=layer.stride).mT.flatten(0, 1)
        a_sums[layer] = a_sums.get(layer, 0) + a.T @ a

    for x, _ in batches:
        for grads in _backwards(net, x, None, on_input):
            for layer, g in zip(modules, grads, strict=True):
                g = g.movedim(1, -1).flatten(0, -2)
                g_sums[layer] = g_sums.get(layer, 0) + g.T @ g
    for layer in modules:
        for factor in (a_sums[layer], g_sums[layer]):
            torch.linalg.eigh(factor.double())  # in float32 it does not converge on some of them
    return [(a_sums[layer], g_sums[layer]) for layer in modules]
