"""How a network's outputs respond to moves of its input: rows of its Jacobian.

Index letters: N inputs, m rows, d numbers in an input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symlearn.audit import images
from symlearn.audit.lie import NoDerivativeError

MOST_ROWS = 16
"""Outputs that get a row each; of more, as many Gaussian combinations."""


def rows(model: nn.Module, x: Tensor, link: str = "identity", seed: int = 0) -> Tensor:
    """Rows of the Jacobian of a network's outputs at inputs, [N, m, d] in float64.

    The mean over rows of ``(row . v)^2`` is ``||df(x)[v]||^2 / dim``: exactly where each output has
    a row, in expectation where rows are Gaussian combinations of the outputs.

    Args:
        model: The network, frozen.
        x: Inputs [N, ...].
        link: "identity" or "softmax".
        seed: Of the combinations.

    Raises:
        NoDerivativeError: If the outputs do not depend on the inputs by operations of autograd.
        ValueError: If the network does not return one finite vector per input.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = images.outputs(model, x, link)
        if y.ndim != 2:
            raise ValueError(
                f"invariances are sought of networks with outputs [N, K], got {list(y.shape)}: "
                "pool or flatten them, or measure the Lie derivative"
            )
        if not y.requires_grad:
            raise NoDerivativeError("the output is cut off from the input (detached, or no_grad)")
        found = [
            torch.autograd.grad(y, x, z.to(y).expand_as(y), retain_graph=True)[0].flatten(1)
            for z in _combinations(y.shape[1], seed)
        ]
    return images.check_finite(torch.stack(found, 1).double(), "the network's Jacobian")


def _combinations(n_outputs: int, seed: int) -> Tensor:
    """Vectors over the outputs, [m, K]."""
    if n_outputs <= MOST_ROWS:
        return torch.eye(n_outputs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(MOST_ROWS, n_outputs, generator=generator, dtype=torch.float64)
    scaled: Tensor = drawn / n_outputs**0.5
    return scaled


def check_draws(draws: int, level: float) -> None:
    """Check that draws of a null distribution can reach a level.

    Raises:
        ValueError: If they cannot, or the level is not below one.
    """
    if draws < 1 or not 1 / (1 + draws) <= level < 1:
        raise ValueError(
            f"got draws={draws} and level={level}: a p-value is at least 1 / (1 + draws), and the "
            "level is below 1; give more draws"
        )


def p_value(value: float, null: Sequence[float]) -> float:
    """Share of draws of a null distribution that are as small, the value itself among them."""
    return (1 + sum(draw <= value for draw in null)) / (1 + len(null))
