"""Curvature of parameters without a rule, by per-sample gradients: slow, but for any module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from curvature.blocks import Block, DenseBlock, DiagonalBlock
from curvature.capture import check_outputs
from curvature.coverage import Coverage
from curvature.estimators import Vectors
from curvature.likelihoods import Likelihood


class _Run(Protocol):
    model: nn.Module
    likelihood: Likelihood
    vectors: Vectors
    generator: torch.Generator
    draws: int


def _row_function(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]:
    def projected(params: dict[str, Tensor], x: Tensor, v: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, params, (x.unsqueeze(0),))
        return (outputs.reshape(-1) * v).sum()

    return projected


def fallback_blocks(
    run: _Run, table: Coverage, data: Iterator[tuple[Tensor, Tensor]]
) -> dict[str, Block]:
    """Dense or diagonal blocks of the parameters the coverage table lists as such.

    For each output vector v and sample n, the row ``v^T J_n`` is added as an outer product (dense)
    or squared (diagonal).
    """
    kinds = {row.name: row.kind for row in table if row.kind in ("dense", "diagonal")}
    if not kinds:
        return {}
    named = dict(run.model.named_parameters())
    params = {name: named[name].detach() for name in kinds}
    rows = vmap(grad(_row_function(run.model)), in_dims=(None, 0, 0))
    totals: dict[str, Tensor] = {}
    for x, y in data:
        with torch.no_grad():
            outputs = check_outputs(run.model(x), len(x))
        y = run.likelihood.check(outputs, y)
        for v in run.vectors(run.likelihood, outputs, y, run.generator, run.draws):
            for name, row in rows(params, x, v).items():
                flat = row.reshape(len(row), -1)
                term = flat.T @ flat if kinds[name] == "dense" else flat.square().sum(0)
                totals[name] = totals[name] + term if name in totals else term
    return {name: _block(kinds[name], total, params[name]) for name, total in totals.items()}


def _block(kind: str, total: Tensor, parameter: Tensor) -> Block:
    if kind == "dense":
        return DenseBlock(total, parameter.shape)
    return DiagonalBlock(total.reshape(parameter.shape))
