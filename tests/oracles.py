"""Slow, independent ways to compute what the library computes, and how results are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def assert_near(got: Tensor | float, want: Tensor | float, tol: float = 1e-10) -> None:
    """Fail unless shapes agree and errors are within tol of the largest entry; NaN fails."""
    got, want = (
        t.detach().double() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
        for t in (got, want)
    )
    assert got.shape == want.shape, f"shape {list(got.shape)}, expected {list(want.shape)}"
    if got.numel():
        error, size = float((got - want).abs().max()), float(want.abs().max())
        assert error <= tol * max(size, 1e-300), f"error {error:.3g}, largest entry {size:.3g}"


def negative_log_prob(likelihood: str, f: Tensor, y: Tensor, noise: float = 1.0) -> Tensor:
    """``-log p(y | f)`` of one sample, f [K], with torch.distributions."""
    if likelihood == "categorical":
        return -torch.distributions.Categorical(logits=f).log_prob(y)
    if likelihood == "bernoulli":
        return -torch.distributions.Bernoulli(logits=f).log_prob(y).sum()
    return -torch.distributions.Normal(f, noise).log_prob(y).sum()


def loop_ggn(model: nn.Module, data: tuple[Tensor, Tensor], likelihood: str) -> Tensor:
    """GGN over the trainable parameters, [P, P]: a loop over samples and outputs with autograd."""
    params = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in params)
    total = torch.zeros(size, size, dtype=params[0].dtype)
    for x, y in zip(*data, strict=True):
        f = model(x.unsqueeze(0)).reshape(-1)
        rows = []
        for output in f:
            grads = torch.autograd.grad(output, params, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([g.reshape(-1) for g in grads]))
        jacobian = torch.stack(rows)
        curved = torch.autograd.functional.hessian(
            lambda out, target=y: negative_log_prob(likelihood, out, target), f.detach()
        )
        total += jacobian.T @ curved @ jacobian
    return total


def parameter_slices(model: nn.Module) -> dict[str, slice]:
    """Where each trainable parameter lies in the vector of all of them."""
    slices, start = {}, 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            slices[name] = slice(start, start + p.numel())
            start += p.numel()
    return slices


def per_parameter(model: nn.Module, matrix: Tensor) -> dict[str, Tensor]:
    """The diagonal blocks of a matrix [P, P] over all trainable parameters, by name."""
    return {name: matrix[part, part] for name, part in parameter_slices(model).items()}


def sample_gradients(
    model: nn.Module, data: tuple[Tensor, Tensor], likelihood: str
) -> dict[str, Tensor]:
    """Gradients of ``-log p`` of each sample, [N, P] by parameter name."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    for x, y in zip(*data, strict=True):
        loss = negative_log_prob(likelihood, model(x.unsqueeze(0)).reshape(-1), y)
        for name, g in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            rows[name].append(g.reshape(-1))
    return {name: torch.stack(gs) for name, gs in rows.items()}


def slow_patches(conv: nn.Module, x: Tensor) -> Tensor:
    """Patches [N, sites, C * window] of a convolution, entry by entry from its definition."""
    pads = _pads(conv)
    if any(map(sum, pads)):
        flat = [side for pad in reversed(pads) for side in pad]
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = F.pad(x, flat, mode=mode)
    geometry = list(zip(x.shape[2:], conv.kernel_size, conv.stride, conv.dilation, strict=True))
    sites = [range((size - d * (k - 1) - 1) // s + 1) for size, k, s, d in geometry]
    rows = []
    for site in product(*sites):
        row = []
        for channel in range(x.shape[1]):
            for offset in product(*(range(k) for _, k, _, _ in geometry)):
                at = [
                    r * s + o * d for r, o, (_, _, s, d) in zip(site, offset, geometry, strict=True)
                ]
                row.append(x[(slice(None), channel, *at)])
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def _pads(conv: nn.Module) -> list[tuple[int, int]]:
    if conv.padding == "same":  # torch.nn.Conv2d: the odd element goes to the end
        spans = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    if conv.padding == "valid":
        return [(0, 0) for _ in conv.kernel_size]
    return [(p, p) for p in conv.padding]


def brute_force_evidence(
    log_likelihood: float,
    matrices: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    precisions: Mapping[str, float],
) -> float:
    """Laplace evidence from the assembled posterior precision, term by term (paper, Eq. 8)."""
    names = list(precisions)
    h = torch.block_diag(*(matrices[name] for name in names))
    theta = torch.cat([params[name].detach().reshape(-1) for name in names])
    delta = torch.cat([theta.new_full((params[name].numel(),), precisions[name]) for name in names])
    log_prior = 0.5 * (delta.log() - math.log(2 * math.pi) - delta * theta**2).sum()
    log_det = torch.linalg.slogdet(h + torch.diag(delta)).logabsdet
    return log_likelihood + float(
        log_prior - 0.5 * log_det + 0.5 * len(theta) * math.log(2 * math.pi)
    )
