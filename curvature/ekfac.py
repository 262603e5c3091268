"""Eigenvalue correction: the exact diagonal of the curvature in the factors' eigenbasis.

The products of the factors' eigenvalues are replaced by ``sum_n (U_G^T J_n U_A)^2`` with per-sample
gradients ``J_n = sum_r g a^T`` (George et al. 2018). The trace is then exact, whatever the factors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from curvature.blocks import KroneckerBlocks
from curvature.capture import Call
from curvature.factor import rotated
from curvature.passes import Pass, batch_first, recorder
from curvature.sites import Site

_CHUNK = 2**25  # numbers in one piece of the per-sample gradients


def corrected(
    run: Pass,
    sites: Mapping[nn.Module, Site],
    blocks: Mapping[str, KroneckerBlocks],
    data: Iterator[tuple[Tensor, Tensor]],
) -> dict[str, KroneckerBlocks]:
    """The blocks with corrected eigenvalues, from a second pass over the data.

    Raises:
        ValueError: If a module sees the samples on another axis than the first.
    """
    totals = {module: _Correction(site, blocks) for module, site in sites.items()}
    for batch in data:
        _add_batch(run, totals, batch)
    return dict(pair for total in totals.values() for pair in total.blocks())


def _add_batch(
    run: Pass, totals: Mapping[nn.Module, _Correction], batch: tuple[Tensor, Tensor]
) -> None:
    calls: list[Call] = []
    inputs: list[Tensor] = []
    outputs, _, vectors = run.forward(list(totals), batch, recorder(calls, inputs))
    given = dict(zip(map(id, calls), inputs, strict=True))
    pairs: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {module: [] for module in totals}

    def on_grad(call: Call, g: Tensor) -> None:
        pairs[call.module].append((given[id(call)], g))

    for _ in run.backward(outputs, calls, vectors, on_grad):
        for module, mine in pairs.items():
            if mine:  # all calls of a module together: its gradient is their sum
                totals[module].add(mine, len(batch[0]))
            mine.clear()


class _Correction:
    """Running sums of squares of one site's rotated per-sample gradients."""

    def __init__(self, site: Site, blocks: Mapping[str, KroneckerBlocks]) -> None:
        self.site = site
        self.plain = {name: blocks[name] for name in (site.weight, site.bias) if name is not None}
        self.totals = {
            name: block.outputs.vectors.new_zeros(
                block.outputs.blocks, block.outputs.dim, block.inputs.dim
            )
            for name, block in self.plain.items()
        }

    def add(self, pairs: Collection[tuple[Tensor, Tensor]], n: int) -> None:
        """Add the (input, output gradient) pairs of the site's calls, for one output vector."""
        rule, module = self.site.rule, self.site.module
        parts = [batch_first(rule.grads(module, g), n, module) for _, g in pairs]
        outputs = next(iter(self.plain.values())).outputs
        g = rotated(torch.cat(parts, dim=1), outputs.vectors)
        if self.site.bias is not None:
            self.totals[self.site.bias] += g.sum(1).square().sum(0).unsqueeze(-1)
        if self.site.weight is not None:
            a = torch.cat([rule.inputs(module, x) for x, _ in pairs], dim=1)
            basis = self.plain[self.site.weight].inputs.vectors
            self.totals[self.site.weight] += _square(a, g, basis)

    def blocks(self) -> Iterator[tuple[str, KroneckerBlocks]]:
        """Name and corrected value object of the weight and the bias."""
        for name, b in self.plain.items():
            total = self.totals[name]
            yield name, KroneckerBlocks(b.inputs, b.outputs, b.count, b.layout, total)


def _square(a: Tensor, g: Tensor, basis: Tensor) -> Tensor:
    """Sum over samples of the squares of ``sum_r g a^T U``, [B, O, I].

    Args:
        a: Inputs [N, R, B, I].
        g: Output gradients [N, R, B, O].
        basis: Input eigenvectors U, [B, I, I].
    """
    a = a.to(g)
    positions, outputs = g.shape[1], g.shape[-1]
    if positions == 1:  # the square of a product of two numbers is the product of their squares
        a = rotated(a, basis)
        return torch.einsum("nrbo,nrbi->boi", g.square(), a.square())
    first = positions <= outputs  # whichever turns fewer vectors
    a = rotated(a, basis) if first else a
    rows = max(1, _CHUNK // (basis.shape[0] * outputs * basis.shape[-1]))
    total = g.new_zeros(basis.shape[0], outputs, basis.shape[-1])
    for a_part, g_part in zip(a.split(rows), g.split(rows), strict=True):
        gradients = torch.einsum("nrbo,nrbi->nboi", g_part, a_part)
        total += (gradients if first else gradients @ basis).square().sum(0)
    return total
