"""One pass over the data: the Kronecker-factored Gauss-Newton matrix of a network.

For every covered module the pass accumulates ``A = sum a a^T`` in the forward hook and
``G = sum g g^T`` from gradients with respect to *activations only*: weight gradients are never
computed. Index letters as in `curvature.rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from curvature.blocks import Block, Factor, KroneckerBlocks
from curvature.capture import Call, check_outputs, evaluating, watch
from curvature.coverage import Coverage, coverage
from curvature.data import Data, batches
from curvature.estimators import Vectors, output_vectors
from curvature.fallback import fallback_blocks
from curvature.likelihoods import Likelihood, as_likelihood
from curvature.rules import Rule, rule_for

SHARINGS = ("expand", "reduce")


class KroneckerCurvature(Mapping[str, Block]):
    """Curvature of the log likelihood, summed over data: parameter name to value object.

    Attributes:
        coverage: The coverage table of all parameters, fixed ones included.
        n_data: Samples the pass has seen.
        log_likelihood: Sum of ``log p(y | f)`` over them, in nats.
    """

    def __init__(
        self, blocks: Mapping[str, Block], coverage: Coverage, n_data: int, log_likelihood: float
    ) -> None:
        self._blocks = dict(blocks)
        self.coverage, self.n_data, self.log_likelihood = coverage, n_data, log_likelihood

    def __getitem__(self, name: str) -> Block:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def scaled(self, factor: float) -> KroneckerCurvature:
        """Weigh the likelihood: curvature and log likelihood times ``factor``.

        Use it for a tempered likelihood, or ``N / n_data`` after a pass over a random subset.
        """
        blocks = {name: block.scaled(factor) for name, block in self.items()}
        return KroneckerCurvature(
            blocks, self.coverage, self.n_data, self.log_likelihood * factor
        )

    def __add__(self, other: KroneckerCurvature) -> KroneckerCurvature:
        if list(self) != list(other):
            raise ValueError("the two curvatures cover different parameters")
        return KroneckerCurvature(
            {name: block + other[name] for name, block in self.items()},
            self.coverage,
            self.n_data + other.n_data,
            self.log_likelihood + other.log_likelihood,
        )


class _Accumulator:
    """Running factors of one module."""

    def __init__(self, prefix: str, rule: Rule, wanted: Collection[str], sharing: str) -> None:
        self.rule, self.sharing = rule, sharing
        self.weight = self._wanted(prefix, rule.weight, wanted)
        self.bias = self._wanted(prefix, rule.bias, wanted)
        self.a: Tensor | None = None
        self.g: Tensor | None = None
        self.count = 0

    @staticmethod
    def _wanted(prefix: str, short: str | None, wanted: Collection[str]) -> str | None:
        name = f"{prefix}.{short}" if prefix else short
        return name if name in wanted else None

    def inputs(self, x: Tensor) -> Tensor:
        """Weight inputs [N, R, B, I]; reduced over positions when weights are shared that way."""
        a = self.rule.inputs(self.rule.module, x)
        return a.mean(1, keepdim=True) if self.sharing == "reduce" else a

    def grads(self, g: Tensor) -> Tensor:
        """Product gradients [N, R, B, O]; summed over positions in the reduce setting."""
        g = self.rule.grads(self.rule.module, g)
        return g.sum(1, keepdim=True) if self.sharing == "reduce" else g

    def add_inputs(self, x: Tensor) -> None:
        if self.weight is not None:
            self.a = _gram(self.inputs(x), self.a)

    def add_grads(self, g: Tensor) -> None:
        self.g = _gram(self.grads(g), self.g)

    def add_call(self, call: Call) -> None:
        """Add a call's inputs, and make room for its gradients (zero if none arrive)."""
        self.add_inputs(call.inputs)
        n, r, b, o = self.grads(call.outputs).shape
        self.count += n * r
        if self.g is None:
            dtype = torch.promote_types(call.outputs.dtype, torch.float32)
            self.g = torch.zeros(b, o, o, dtype=dtype, device=call.outputs.device)

    def blocks(self) -> Iterator[tuple[str, KroneckerBlocks]]:
        """Name and value object of the weight and the bias; both share the output factor."""
        if self.g is None:
            raise ValueError(
                f"{type(self.rule.module).__name__} holding {self.weight or self.bias} was never "
                "called in the forward pass; freeze it (requires_grad_(False)), choose a fallback, "
                "or leave it out with only=..."
            )
        outputs = Factor(self.g)
        if self.weight is not None:
            inputs = Factor(self.a if self.a is not None else self.g.new_zeros(0))
            layout = self.rule.weight_layout()
            yield self.weight, KroneckerBlocks(inputs, outputs, self.count, layout)
        if self.bias is not None:
            ones = self.g.new_full((len(self.g), 1, 1), float(self.count))
            layout = self.rule.bias_layout(len(self.g))
            yield self.bias, KroneckerBlocks(Factor(ones), outputs, self.count, layout)


def _gram(v: Tensor, total: Tensor | None) -> Tensor:
    """Add ``sum_{n, r} v v^T`` [B, D, D] of vectors v [N, R, B, D] to a running total."""
    flat = v.flatten(0, 1).movedim(1, 0)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    gram = flat.mT @ flat
    return gram if total is None else total.add_(gram)


class _Pass:
    """What one batch does to the accumulators."""

    def __init__(
        self,
        model: nn.Module,
        likelihood: Likelihood,
        vectors: Vectors,
        generator: torch.Generator,
        draws: int,
    ) -> None:
        self.model, self.likelihood, self.vectors = model, likelihood, vectors
        self.generator, self.draws = generator, draws

    def forward(
        self, modules: Collection[nn.Module], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, list[Call]]:
        """Outputs [N, K] with graph, checked targets, and the calls of the watched modules."""
        calls: list[Call] = []
        with watch(modules, calls.append):
            outputs = check_outputs(self.model(x), len(x))
        return outputs, self.likelihood.check(outputs.detach(), y), calls

    def backward(self, outputs: Tensor, y: Tensor, calls: list[Call]) -> Iterator[list[Tensor | None]]:
        """For each output vector, the gradients at the calls' edges."""
        if not calls:
            return
        edges = [call.edge for call in calls]
        vectors = list(
            self.vectors(self.likelihood, outputs.detach(), y, self.generator, self.draws)
        )
        for i, v in enumerate(vectors):
            keep = i + 1 < len(vectors)
            yield list(
                torch.autograd.grad(outputs, edges, v, retain_graph=keep, allow_unused=True)
            )


def kronecker(
    model: nn.Module,
    data: Data,
    likelihood: str | Likelihood = "categorical",
    estimator: str = "exact",
    *,
    sharing: str = "expand",
    ekfac: bool = False,
    fallback: str = "error",
    only: Collection[str] | None = None,
    draws: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> KroneckerCurvature:
    """Kronecker-factored curvature of the log likelihood, summed over the data.

    The model is evaluated in eval mode and left exactly as it was.

    Args:
        model: The network; returns outputs [N, K].
        data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        likelihood: "categorical", "gaussian" (unit noise), "bernoulli", or a `Likelihood`.
        estimator: "exact" (one backward pass per column of the square-root Hessian), "sketch" (one
            backward pass with random signs), "mc" (sampled labels) or "empirical".
        sharing: "expand" or "reduce", the treatment of shared positions (Eschenhagen et al. 2023).
        ekfac: Replace the factors' eigenvalues by the projected diagonal, in a second pass.
        fallback: What to do with trainable parameters that no rule covers; see `coverage`.
        only: Names of the parameters wanted; all covered ones by default.
        draws: Number of draws of the sampling estimators.
        seed: Seed of the sampling estimators.
        batch_size: Samples per batch where the data do not decide it.

    Raises:
        UncoveredParameterError: If trainable parameters have no rule and no fallback is chosen.
        ValueError: For unknown names of options, bad data, or outputs that are not [N, K].
        TypeError: For data of an unknown kind.

    Example:
        >>> import torch, curvature
        >>> net, x = torch.nn.Linear(3, 2, bias=False), torch.randn(8, 3)
        >>> h = curvature.kronecker(net, (x, torch.randn(8, 2)), "gaussian")["weight"]
        >>> bool(torch.allclose(h.to_dense(), torch.kron(torch.eye(2), x.T @ x), atol=1e-4))
        True
    """
    if sharing not in SHARINGS:
        raise ValueError(f"unknown sharing {sharing!r}; choose one of {list(SHARINGS)}")
    if draws < 1:
        raise ValueError(f"draws is {draws}; give at least one")
    likelihood = as_likelihood(likelihood)
    table = coverage(model, fallback=fallback, only=only)
    generator = torch.Generator().manual_seed(seed)
    run = _Pass(model, likelihood, output_vectors(estimator), generator, draws)
    sites = _accumulators(model, set(table.names("kronecker")), sharing)
    with evaluating(model):
        n_data, log_likelihood = 0, 0.0
        for x, y in batches(data, model, batch_size):
            log_likelihood += _first_pass(run, sites, x, y)
            n_data += len(x)
        blocks: dict[str, Block] = dict(
            pair for site in sites.values() for pair in site.blocks()
        )
        if ekfac:
            generator.manual_seed(seed)
            blocks.update(_corrected(run, sites, blocks, batches(data, model, batch_size)))
        blocks.update(fallback_blocks(run, table, batches(data, model, batch_size)))
    ordered = {row.name: blocks[row.name] for row in table if row.name in blocks}
    return KroneckerCurvature(ordered, table, n_data, log_likelihood)


def _accumulators(
    model: nn.Module, wanted: Collection[str], sharing: str
) -> dict[nn.Module, _Accumulator]:
    sites = {}
    for prefix, module in model.named_modules():
        rule = rule_for(module)
        if rule is not None:
            site = _Accumulator(prefix, rule, wanted, sharing)
            if site.weight or site.bias:
                sites[module] = site
    return sites


def _first_pass(
    run: _Pass, sites: Mapping[nn.Module, _Accumulator], x: Tensor, y: Tensor
) -> float:
    """Add one batch to the factors and return its log likelihood."""
    outputs, y, calls = run.forward(list(sites), x, y)
    for call in calls:
        sites[call.module].add_call(call)
    for grads in run.backward(outputs, y, calls):
        for call, g in zip(calls, grads, strict=True):
            if g is not None:
                sites[call.module].add_grads(g)
    return float(run.likelihood.log_prob(outputs.detach().double(), y))


def _corrected(
    run: _Pass,
    sites: Mapping[nn.Module, _Accumulator],
    blocks: Mapping[str, Block],
    data: Iterator[tuple[Tensor, Tensor]],
) -> dict[str, Block]:
    """Eigenvalues ``sum_n (U_G^T J_n U_A)^2`` in the factors' eigenbasis (George et al. 2018)."""
    corrected: dict[str, KroneckerBlocks] = {}
    totals: dict[str, Tensor] = {}
    for x, y in data:
        outputs, y, calls = run.forward(list(sites), x, y)
        for grads in run.backward(outputs, y, calls):
            for module, site in sites.items():
                parts = [(c, g) for c, g in zip(calls, grads, strict=True) if c.module is module]
                for name in filter(None, (site.weight, site.bias)):
                    block = blocks[name]
                    if isinstance(block, KroneckerBlocks):
                        corrected[name] = block
                        square = _projected_square(site, block, name == site.bias, parts)
                        totals[name] = totals[name] + square if name in totals else square
    return {
        name: KroneckerBlocks(b.inputs, b.outputs, b.count, b.layout, totals[name])
        for name, b in corrected.items()
    }


def _projected_square(
    site: _Accumulator,
    block: KroneckerBlocks,
    is_bias: bool,
    parts: list[tuple[Call, Tensor | None]],
) -> Tensor:
    """Sum over samples of the squared, rotated per-sample gradient, [B, O, I]."""
    rows = []
    for call, g in parts:
        if g is None:
            continue
        grads = site.grads(g)
        a = grads.new_ones(*grads.shape[:3], 1) if is_bias else site.inputs(call.inputs)
        rows.append((_rotated(a, block.inputs), _rotated(grads, block.outputs)))
    a, g = (torch.cat(side, dim=1) for side in zip(*rows, strict=True))
    total = a.new_zeros(a.shape[2], g.shape[-1], a.shape[-1])
    # chunks bound the memory of per-sample gradients, [N, B, O, I]
    for a_part, g_part in zip(
        a.split(_chunk(total)), g.split(_chunk(total)), strict=True
    ):
        total += torch.einsum("nrbo,nrbi->nboi", g_part, a_part).square().sum(0)
    return total


def _rotated(v: Tensor, factor: Factor) -> Tensor:
    """Coefficients of vectors v [N, R, B, D] in the factor's eigenbasis."""
    return torch.einsum("nrbd,bde->nrbe", v, factor.vectors.to(v))


def _chunk(total: Tensor) -> int:
    return max(1, 2**25 // max(1, total.numel()))
