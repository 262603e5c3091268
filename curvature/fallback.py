"""Curvature of parameters without a rule, by per-sample gradients: slow, but for any module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from curvature.blocks import Block, DenseBlock, DiagonalBlock
from curvature.coverage import Coverage
from curvature.dense import MAX_PARAMETERS
from curvature.gram import accumulator_dtype
from curvature.reduce import Reduction


class PerSample:
    """Running dense or diagonal curvature of the parameters that the table lists as such.

    For each output vector v and sample n, the row ``v^T J_n`` is added as an outer product (dense)
    or squared (diagonal).

    Args:
        model: The network.
        table: Its coverage.

    Raises:
        ValueError: If parameters are too large for a dense matrix; all of them are named.
    """

    def __init__(self, model: nn.Module, table: Coverage) -> None:
        self.kinds = {row.name: row.kind for row in table if row.kind in ("dense", "diagonal")}
        named = dict(model.named_parameters())
        self.params = {name: named[name].detach() for name in self.kinds}
        large = [
            name
            for name, p in self.params.items()
            if self.kinds[name] == "dense" and p.numel() > MAX_PARAMETERS
        ]
        if large:
            raise ValueError(
                f"{large} have more than {MAX_PARAMETERS} elements, too many for a dense matrix; "
                "use fallback='diagonal', or register a rule"
            )
        self._rows = vmap(grad(_projection(model)), in_dims=(None, 0, 0))
        self._totals = {
            name: p.new_zeros(
                [p.numel()] * (2 if self.kinds[name] == "dense" else 1), dtype=accumulator_dtype(p)
            )
            for name, p in self.params.items()
        }

    def add(self, x: Tensor, v: Tensor) -> None:
        """Add a batch of inputs and a vector [N, K] sent backward from each output."""
        if not self.kinds:
            return
        with torch.no_grad():  # other parameters would drag their graph along
            rows = self._rows(self.params, x, v)
        for name, row in rows.items():
            flat = row.reshape(len(row), -1).to(accumulator_dtype(row))
            term = flat.T @ flat if self.kinds[name] == "dense" else flat.square().sum(0)
            self._totals[name] += term

    def reduce(self, reduction: Reduction) -> None:
        """Replace the sums by those over all processes."""
        reduction.sum(*self._totals.values())

    def blocks(self) -> dict[str, Block]:
        """Value objects by parameter name."""
        return {
            name: DenseBlock(total, self.params[name].shape)
            if self.kinds[name] == "dense"
            else DiagonalBlock(total.reshape(self.params[name].shape))
            for name, total in self._totals.items()
        }


def _projection(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]:
    """The function ``v^T f(x)`` of some parameters, one input x and one output vector v."""

    def projected(params: dict[str, Tensor], x: Tensor, v: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, params, (x.unsqueeze(0),))
        return (outputs.reshape(-1) * v).sum()

    return projected
