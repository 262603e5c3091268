"""Eigenvalue correction: the exact diagonal of the curvature in the factors' eigenbasis.

The products of the factors' eigenvalues are replaced by ``sum_n (U_G^T J_n U_A)^2`` with per-sample
gradients ``J_n = sum_r g a^T`` (George et al. 2018). The trace is then exact, whatever the factors.
Of restricted weights, whose curvature is dense, the same pass yields the exact matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from curvature.blocks import DenseBlock, KroneckerBlocks
from curvature.capture import Call
from curvature.factor import rotated
from curvature.gram import accumulator_dtype
from curvature.passes import Pass, batch_first, recorder
from curvature.reduce import Reduction, Share
from curvature.restricted import gradients
from curvature.sites import Site

_CHUNK = 2**25  # numbers in one piece of the per-sample gradients


def corrected(
    run: Pass,
    sites: Mapping[nn.Module, Site],
    blocks: Mapping[str, KroneckerBlocks | DenseBlock],
    data: Iterator[tuple[Tensor, Tensor]],
    reduction: Reduction,
) -> dict[str, KroneckerBlocks | DenseBlock]:
    """The blocks with corrected eigenvalues, from a second pass over the data.

    Raises:
        ValueError: If a module sees the samples on another axis than the first.
    """
    totals = {
        module: _Exact(site) if site.rule.restricted else _Correction(site, blocks)
        for module, site in sites.items()
    }
    for batch in data:
        _add_batch(run, totals, batch, reduction.share(len(batch[0])))
    reduction.sum(*(total for one in totals.values() for total in one.totals.values()))
    return dict(pair for total in totals.values() for pair in total.blocks())


def _add_batch(
    run: Pass,
    totals: Mapping[nn.Module, _Correction | _Exact],
    batch: tuple[Tensor, Tensor],
    share: Share,
) -> None:
    calls: list[Call] = []
    inputs: list[Tensor] = []
    outputs, _, vectors = run.forward(list(totals), batch, share, recorder(calls, inputs))
    given = dict(zip(map(id, calls), inputs, strict=True))
    pairs: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {module: [] for module in totals}

    def on_grad(call: Call, g: Tensor) -> None:
        pairs[call.module].append((given[id(call)], g))

    for _ in run.backward(outputs, calls, vectors, on_grad):
        for module, mine in pairs.items():
            if mine and share.counted:  # all calls of a module: its gradient is their sum
                totals[module].add(mine, len(outputs))
            mine.clear()


class _Correction:
    """Running sums of squares of one site's rotated per-sample gradients."""

    def __init__(self, site: Site, blocks: Mapping[str, KroneckerBlocks | DenseBlock]) -> None:
        self.site = site
        self.plain = {
            name: block
            for name in (site.weight, site.bias)
            if name is not None and isinstance(block := blocks[name], KroneckerBlocks)
        }
        self.totals = {
            name: block.outputs.vectors.new_zeros(
                block.outputs.blocks, block.outputs.dim, block.inputs.dim
            )
            for name, block in self.plain.items()
        }

    def add(self, pairs: Collection[tuple[Tensor, Tensor]], n: int) -> None:
        """Add the (input, output gradient) pairs of the site's calls, for one output vector."""
        outputs = next(iter(self.plain.values())).outputs
        g = rotated(_grads(self.site, pairs, n), outputs.vectors)
        if self.site.bias is not None:
            self.totals[self.site.bias] += g.sum(1).square().sum(0).unsqueeze(-1)
        if self.site.weight is not None:
            basis = self.plain[self.site.weight].inputs.vectors
            self.totals[self.site.weight] += _square(_inputs(self.site, pairs), g, basis)

    def blocks(self) -> Iterator[tuple[str, KroneckerBlocks]]:
        """Name and corrected value object of the weight and the bias."""
        for name, b in self.plain.items():
            total = self.totals[name]
            yield name, KroneckerBlocks(b.inputs, b.outputs, b.count, b.layout, total)


class _Exact:
    """Running sum of outer products of the per-sample gradients of one site's coefficients."""

    def __init__(self, site: Site) -> None:
        self.site, self.name, self.layout = site, str(site.weight), site.rule.weight_layout()
        weight, size = getattr(site.module, str(site.rule.weight)), self.layout.shape.numel()
        total = weight.detach().new_zeros(size, size, dtype=accumulator_dtype(weight))
        self.totals = {self.name: total}

    def add(self, pairs: Collection[tuple[Tensor, Tensor]], n: int) -> None:
        """Add the (input, output gradient) pairs of the site's calls, for one output vector."""
        total = self.totals[self.name]
        a, g = _inputs(self.site, pairs).to(total), _grads(self.site, pairs, n).to(total)
        for rows in gradients(a, g, self.layout):
            total += rows.T @ rows

    def blocks(self) -> Iterator[tuple[str, DenseBlock]]:
        """Name and value object of the coefficients."""
        yield self.name, DenseBlock(self.totals[self.name], self.layout.shape)


def _inputs(site: Site, pairs: Collection[tuple[Tensor, Tensor]]) -> Tensor:
    """Inputs [N, R, B, I] of all calls."""
    return torch.cat([site.rule.inputs(site.module, x) for x, _ in pairs], dim=1)


def _grads(site: Site, pairs: Collection[tuple[Tensor, Tensor]], n: int) -> Tensor:
    """Output gradients [N, R, B, O] of all calls."""
    found = (site.rule.grads(site.module, g) for _, g in pairs)
    return torch.cat([batch_first(g, n, site.module) for g in found], dim=1)


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
