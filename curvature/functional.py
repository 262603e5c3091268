"""Covariance of a network's outputs under a Gaussian posterior over its weights.

For the posterior ``N(theta_p, (H_p + delta_p I)^-1)`` of every parameter p, the network linearised
at ``theta`` has outputs with the covariance

    C(x) = sum_p J_p(x) (H_p + delta_p I)^-1 J_p(x)^T

(Immer, Korzepa and Bauer 2021, "Improving predictions of Bayesian neural nets via local
linearization", Eq. 8). A rule gives the Jacobian as ``J_p[k] = sum_r g_k a^T`` (see
`curvature.rules`); in the eigenbasis of ``H_p`` its square, divided by ``lambda + delta``, is
summed. With one shared position no Jacobian is formed.

Index letters as in `curvature.rules`, and ``K`` network outputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import vmap

from curvature.blocks import Block, KroneckerBlocks
from curvature.capture import Call, check_outputs, check_separable, evaluating, watch
from curvature.data import batches
from curvature.dense import jacobians
from curvature.factor import rotated
from curvature.gram import accumulator_dtype
from curvature.padding import FastPadding
from curvature.passes import Pass, batch_first, recorder
from curvature.sites import Site, sites_of

_CHUNK = 2**24  # numbers in one piece of Jacobians, or of the gradients kept for a batch


def functional_covariance(
    model: nn.Module, blocks: Mapping[str, Block], x: Tensor, precision: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """Outputs [N, K] at the model's weights, and their posterior covariance [N, K, K].

    Parameters without a block are taken as known exactly. The model is evaluated in eval mode and
    left as it was.

    Args:
        model: The network; returns outputs [N, K].
        blocks: Curvature of the log likelihood summed over the data, by parameter name
            (`curvature.kronecker`).
        x: Inputs [N, ...].
        precision: Prior precision delta by parameter name, for every block.

    Raises:
        ValueError: If blocks have no precision or do not fit the model, a precision is not positive
            and finite, or the inputs are empty, hold NaN, or are ones the network does not take.

    Example:
        >>> import torch, curvature
        >>> net, x = torch.nn.Linear(1, 1, bias=False), torch.ones(4, 1)
        >>> blocks = curvature.kronecker(net, (x, x), "gaussian")
        >>> _, covariance = curvature.functional_covariance(net, blocks, 2 * x[:1], {"weight": 1.0})
        >>> round(covariance.item(), 4)  # 2 (4 + 1)^-1 2
        0.8
    """
    check_separable(model)
    _check(model, blocks, precision)
    run = _Run(model, blocks, precision)
    with torch.inference_mode(False), evaluating(model), _trainable(model, blocks):
        size = run.batch_size(_first(model, x))
        parts = [run.batch(part) for part in _batches(model, x, size)]
    outputs, covariances = zip(*parts, strict=True)
    return torch.cat(outputs), torch.cat(covariances)


def _check(model: nn.Module, blocks: Mapping[str, Block], precision: Mapping[str, float]) -> None:
    shapes = {name: p.shape for name, p in model.named_parameters()}
    foreign = [name for name, block in blocks.items() if shapes.get(name) != block.shape]
    if foreign:
        raise ValueError(f"the model has no parameters of these names and shapes: {foreign}")
    missing = [name for name in blocks if name not in precision]
    if missing:
        raise ValueError(f"a posterior needs a prior precision for each parameter; none: {missing}")
    bad = {n: precision[n] for n in blocks if not 0 < precision[n] < math.inf}
    if bad:
        raise ValueError(f"prior precisions must be positive and finite, got {bad}")


def _batches(model: nn.Module, x: Tensor, size: int) -> Iterator[Tensor]:
    yield from (part for part, _ in batches((x, x.new_zeros(x.shape[:1])), model, size))


def _first(model: nn.Module, x: Tensor) -> Tensor:
    """The first input, checked by what the network says to it."""
    one = next(_batches(model, x, 1))
    try:
        with torch.no_grad():
            check_outputs(model(one), 1)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"the network cannot be evaluated on inputs of shape {list(x.shape)}: {error}"
        ) from error
    return one


@contextmanager
def _trainable(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Let gradients reach these parameters' modules, frozen or not."""
    frozen = [p for n, p in model.named_parameters() if n in names and not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


class _Run:
    """What does not change from batch to batch.

    Parameters of modules with a rule are treated by their sites, the others by Jacobians.
    """

    def __init__(
        self, model: nn.Module, blocks: Mapping[str, Block], precision: Mapping[str, float]
    ) -> None:
        self.model, self.blocks, self.precision = model, blocks, precision
        kron = {n: block for n, block in blocks.items() if isinstance(block, KroneckerBlocks)}
        self.sites = sites_of(model, kron, "expand")
        covered = {name for site in self.sites.values() for name in (site.weight, site.bias)}
        self.kron = {n: block for n, block in kron.items() if n in covered}
        named = dict(model.named_parameters())
        self.others = {n: named[n].detach() for n in blocks if n not in covered}

    def batch_size(self, one: Tensor) -> int:
        """Samples whose gradients of all outputs, kept at once, stay within the limit.

        Args:
            one: One input [1, ...].
        """
        outputs, calls, _ = self._forward(one)
        numbers = outputs.shape[1] * sum(call.zeros.numel() for call in calls)
        return max(1, _CHUNK // max(1, numbers))

    def batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [N, K] and covariance [N, K, K] of one batch."""
        outputs, calls, inputs = self._forward(x)
        n, k = outputs.shape
        row: dict[int, Tensor] = {}
        rows = []

        def on_grad(call: Call, g: Tensor) -> None:
            row[id(call)] = g

        units = (unit.expand(n, k) for unit in torch.eye(k).to(outputs.detach()))
        for _ in Pass.backward(outputs, calls, units, on_grad):
            rows.append(row.copy())
            row.clear()
        outputs = outputs.detach().to(accumulator_dtype(outputs))
        total = outputs.new_zeros(n, k, k)
        for module, site in self.sites.items():
            mine = [pair for pair in zip(calls, inputs, strict=True) if pair[0].module is module]
            if mine:
                total = total + self._of_site(site, mine, rows, n)
        return outputs, total + self._of_others(x, k)

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Call], list[Tensor]]:
        calls: list[Call] = []
        inputs: list[Tensor] = []
        with watch(list(self.sites), recorder(calls, inputs)), FastPadding():
            outputs = check_outputs(self.model(x), len(x))
        return outputs, calls, inputs

    def _of_site(
        self, site: Site, calls: list[tuple[Call, Tensor]], rows: list[dict[int, Tensor]], n: int
    ) -> Tensor:
        """Covariance [N, K, K] by the weight and the bias of a site.

        Args:
            site: The site.
            calls: Calls of its module with their inputs; its Jacobian is the sum over them.
            rows: For each network output, the gradients of the calls' outputs by the call's id.
            n: Number of samples.
        """
        rule, module = site.rule, site.module
        grads = []
        for row in rows:
            # a call that an output does not depend on gets no gradient
            found = (rule.grads(module, row.get(id(call), call.zeros)) for call, _ in calls)
            grads.append(torch.cat([batch_first(g, n, module) for g in found], dim=1))
        g = torch.stack(grads, dim=1)
        total = g.new_zeros(())
        if site.bias is not None:
            summed = g.sum(2, keepdim=True)
            ones = torch.ones_like(summed[:, 0, ..., :1])
            total = total + self._of_block(site.bias, ones, summed)
        if site.weight is not None:
            a = torch.cat([rule.inputs(module, given) for _, given in calls], dim=1)
            total = total + self._of_block(site.weight, a, g)
        return total

    def _of_block(self, name: str, a: Tensor, g: Tensor) -> Tensor:
        """Covariance [N, K, K] by one parameter, from a [N, R, B, I] and g [N, K, R, B, O]."""
        block = self.kron[name]
        spread = 1 / (block.eigenvalues + self.precision[name])
        size = (block.outputs.blocks, block.outputs.dim, block.inputs.dim)
        a, g = rotated(a, block.inputs.vectors), rotated(g, block.outputs.vectors)
        return _projected(a, g, spread.reshape(size))

    def _of_others(self, x: Tensor, k: int) -> Tensor:
        """Covariance [N, K, K] by the parameters whose Jacobians are formed."""
        size = k * sum(p.numel() for p in self.others.values())
        if not size:
            return x.new_zeros(())
        return torch.cat([self._of_jacobians(part) for part in x.split(max(1, _CHUNK // size))])

    def _of_jacobians(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for name, rows in jacobians(self.model, self.others, x).items():
            block = self.blocks[name]
            c = vmap(vmap(block.rotate))(rows)
            total = total + _gram(c / (block.eigenvalues + self.precision[name]).sqrt())
        return total


def _gram(c: Tensor) -> Tensor:
    """Inner products [N, K, K] of rows [N, K, ...]."""
    flat = c.flatten(2)
    return flat @ flat.mT


def _projected(a: Tensor, g: Tensor, spread: Tensor) -> Tensor:
    """``sum_boi spread (sum_r g_k a) (sum_r g_l a)``, [N, K, K].

    Args:
        a: Inputs [N, R, B, I], in the eigenbasis.
        g: Output gradients [N, K, R, B, O], in the eigenbasis.
        spread: Posterior variances of the coefficients, [B, O, I].
    """
    if a.shape[1] == 1:  # a sum of one product: its inputs and outputs separate
        variance = torch.einsum("nbi,boi->nbo", a[:, 0].square(), spread)
        return _gram(g[:, :, 0] * variance.sqrt().unsqueeze(1))
    per_sample = g.shape[1] * spread.numel()
    samples = max(1, _CHUNK // per_sample)
    outputs = max(1, _CHUNK * spread.shape[1] // per_sample)  # of a sample too large by itself
    parts = []
    for a_part, g_part in zip(a.split(samples), g.split(samples), strict=True):
        total = a.new_zeros(())
        for g_some, some in zip(g_part.split(outputs, -1), spread.split(outputs, 1), strict=True):
            rows = torch.einsum("nkrbo,nrbi->nkboi", g_some, a_part)
            total = total + _gram(rows * some.sqrt())
        parts.append(total)
    return torch.cat(parts)
