"""One pass over the data: the Kronecker-factored Gauss-Newton matrix of a network.

For every covered module the pass accumulates ``A = sum a a^T`` in the forward hook and
``G = sum g g^T`` from gradients with respect to *activations only*: weight gradients are never
computed. Index letters as in `curvature.rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from curvature.blocks import Block
from curvature.capture import Call, check_separable, evaluating
from curvature.checking import check_count, check_module
from curvature.coverage import Coverage, coverage
from curvature.data import Data, batches, check_batch
from curvature.ekfac import corrected
from curvature.estimators import output_vectors, sampling_of
from curvature.factor import decompose
from curvature.fallback import PerSample
from curvature.likelihoods import Likelihood, as_likelihood
from curvature.passes import Pass
from curvature.reduce import ALONE, Reduction, Share
from curvature.sites import SHARINGS, Site, blocks_of, sites_of


class KroneckerCurvature(Mapping[str, Block]):
    """Curvature of the log likelihood, summed over data: parameter name to value object.

    Attributes:
        coverage: The coverage table of all parameters, fixed ones included.
        n_data: Samples the pass has seen.
        log_likelihood: Sum of ``log p(y | f)`` over them, in nats.
        output_trace: Sum of the traces of the output Hessians.
        sampled_trace: The part of it that was not sent backward column by column, but sampled.
    """

    def __init__(
        self,
        blocks: Mapping[str, Block],
        coverage: Coverage,
        n_data: int,
        log_likelihood: float,
        output_trace: float,
        sampled_trace: float,
    ) -> None:
        self._blocks = dict(blocks)
        self.coverage, self.n_data, self.log_likelihood = coverage, n_data, log_likelihood
        self.output_trace, self.sampled_trace = output_trace, sampled_trace

    @property
    def residual_mass(self) -> float:
        """Share of the output Hessians' trace that was sampled: 0 for the exact estimator."""
        return self.sampled_trace / self.output_trace if self.output_trace else 0.0

    @property
    def clamped_mass(self) -> float:
        """Largest share of a factor's trace that was clamped, all factors being decomposed.

        Rounding leaves eigenvalues of factors that are zero a little above or below it; negative
        ones, and those beyond a factor's rank, are set to zero. A share of more than about 1e-4
        says that the sums in the factor are too coarse: compute it in float64 then.
        """
        return max((f.clamped_mass for block in self.values() for f in block.factors), default=0.0)

    def __getitem__(self, name: str) -> Block:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def __repr__(self) -> str:
        return f"KroneckerCurvature of {self.n_data} samples\n{self.coverage}"

    def scaled(self, factor: float) -> KroneckerCurvature:
        """Weigh the likelihood: curvature and log likelihood times ``factor``.

        Use it for a tempered likelihood, or ``N / n_data`` after a pass over a random subset.

        Raises:
            ValueError: If the factor is not positive and finite.
        """
        blocks = {name: block.scaled(factor) for name, block in self.items()}
        return KroneckerCurvature(
            blocks,
            self.coverage,
            self.n_data,
            self.log_likelihood * factor,
            self.output_trace * factor,
            self.sampled_trace * factor,
        )

    def __add__(self, other: KroneckerCurvature) -> KroneckerCurvature:
        if list(self) != list(other):
            raise ValueError(
                "the two curvatures cover different parameters: "
                f"{sorted(set(self) ^ set(other)) or 'in another order'}"
            )
        return KroneckerCurvature(
            {name: block + other[name] for name, block in self.items()},
            self.coverage,
            self.n_data + other.n_data,
            self.log_likelihood + other.log_likelihood,
            self.output_trace + other.output_trace,
            self.sampled_trace + other.sampled_trace,
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
    columns: int = 8,
    seed: int = 0,
    batch_size: int = 256,
    reduction: Reduction = ALONE,
) -> KroneckerCurvature:
    """Kronecker-factored curvature of the log likelihood, summed over the data.

    The model is evaluated in eval mode and left exactly as it was.

    Args:
        model: The network; returns outputs [N, K].
        data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        likelihood: "categorical", "gaussian" (unit noise), "bernoulli", or a `Likelihood`.
        estimator: "exact" (one backward pass per column of the square-root Hessian), "truncated"
            (the largest columns of each sample, and a sketch of the rest), "sketch" (one backward
            pass with random signs), "mc" (sampled labels) or "empirical".
        sharing: "expand" or "reduce", the treatment of shared positions (Eschenhagen et al. 2023).
        ekfac: Replace the factors' eigenvalues by the projected diagonal, in a second pass.
        fallback: What to do with trainable parameters that no rule covers; see `coverage`.
        only: Names of the parameters wanted; all covered ones by default.
        draws: Number of draws of the sampling estimators.
        columns: Number of exact columns of "truncated"; see `residual_mass` for what they leave.
        seed: Seed of the sampling estimators.
        batch_size: Most samples that pass through the network at once; larger batches are split.
        reduction: Processes that share the work. Each calls this with the same weights and all the
            data, computes on its rows of each batch, and gets the curvature of all; each decomposes
            a part of the factors.

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
    check_module(model)
    check_count("batch_size", batch_size)
    vectors, sampling = output_vectors(estimator), sampling_of(estimator, columns, draws, seed)
    check_separable(model)
    run = Pass(model, as_likelihood(likelihood), vectors, sampling)
    table = coverage(model, fallback=fallback, only=only)
    sites = sites_of(model, set(table.names("kronecker")), sharing)
    others = PerSample(model, table)
    if ekfac and isinstance(data, Iterator):  # it can be read once, and two passes need it
        data = [check_batch(batch, index) for index, batch in enumerate(data)]
    n_data, sums = 0, [0.0, 0.0, 0.0]
    with torch.inference_mode(False), evaluating(model):
        for batch in _pieces(data, model, batch_size):
            share = reduction.share(len(batch[0]))
            added = _add_batch(run, sites, others, batch, share)
            sums = [total + term for total, term in zip(sums, added, strict=True)]
            n_data += len(batch[0])
        for site in sites.values():
            site.reduce(reduction)
        others.reduce(reduction)
        sums = reduction.numbers(*sums)
        kron, rest = blocks_of(sites.values()), others.blocks()
        decompose((f for b in (*kron.values(), *rest.values()) for f in b.factors), reduction)
        if ekfac:
            sampling.generator.manual_seed(seed)
            pieces = _pieces(data, model, batch_size)
            kron = corrected(run, sites, kron, pieces, reduction)
    blocks = {**kron, **rest}
    ordered = {row.name: blocks[row.name] for row in table if row.name in blocks}
    return KroneckerCurvature(ordered, table, n_data, *sums)


def _pieces(data: Data, model: nn.Module, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Checked batches of at most some size: sums do not care, and memory does."""
    for x, y in batches(data, model, most):
        yield from zip(x.split(most), y.split(most), strict=True)


def _add_batch(
    run: Pass,
    sites: Mapping[nn.Module, Site],
    others: PerSample,
    batch: tuple[Tensor, Tensor],
    share: Share,
) -> list[float]:
    """Add one batch; its log likelihood, trace of output Hessians and the sampled part of it."""
    x = share.of(batch[0])
    calls: list[Call] = []

    def on_call(call: Call) -> None:
        sites[call.module].add_call(call, len(x), share.counted)
        calls.append(call)

    outputs, y, vectors = run.forward(list(sites), batch, share, on_call)

    def on_grad(call: Call, g: Tensor) -> None:
        if share.counted:
            sites[call.module].add_grads(g, len(x))

    try:
        for v in run.backward(outputs, calls, vectors, on_grad):
            if share.counted:
                others.add(x, v)
    except RuntimeError as error:
        hidden = [site.weight or site.bias for site in sites.values() if not site.called]
        if not hidden or "checkpoint" not in str(error).lower():
            raise
        raise ValueError(
            f"the modules of {hidden} run without a graph, in torch.utils.checkpoint with "
            "use_reentrant=True; use_reentrant=False gives the same gradients and keeps it"
        ) from error
    if not share.counted:
        return [0.0, 0.0, 0.0]
    f = outputs.detach()
    masses = run.likelihood.sqrt_hessian(f).masses.double()
    sampled = masses[:, run.sampling.columns :]
    log_likelihood = run.likelihood.log_prob(f.double(), y)
    return torch.stack([log_likelihood, masses.sum(), sampled.sum()]).tolist()
