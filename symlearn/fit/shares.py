"""Which path of a layer holds what several could: the shares that the prior asks for.

Equivariant paths and the free one overlap: the data see only the sum ``W = B + sum_i Q_i beta_i``
of their matrices, and along that sum gradients vanish but for the prior's. The most probable split
under Gaussian priors of variances ``s_i^2`` has a closed form, with the columns ``s_i Q_i`` of S
and the variance ``s^2`` of the free path:

    u = (S^T S + s^2 1)^-1 S^T vec W        beta_i = s_i u_i        vec B = vec W - S u

Weights are moved there after each evidence step, which leaves the network's function as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from symlearn.fit.state import State
from symlearn.paths import EmlpPath, FCPath, Path
from symlearn.relaxed import RelaxedLayer, relaxed_layers


def share_out(state: State) -> None:
    """Split the matrices of all layers with an equivariant path; weights and their average."""
    precision = state.prior.precisions_by_parameter()
    names = {id(p): name for name, p in state.model.named_parameters()}
    for layer in relaxed_layers(state.model).values():
        strict, free = _overlapping(layer)
        if not strict or len(strict) + len(free) < 2:
            continue
        held = [names[id(p)] for path in (*strict, *free) for p in path.parameters()]
        split = _Split(strict, [precision[name] ** -0.5 for name in held])
        for values in (dict(state.model.named_parameters()), state.average.values):
            split.apply({name: values[name] for name in held})


@torch.no_grad()
def beyond(layer: RelaxedLayer, path: Path, gradient: Tensor) -> Tensor:
    """The part of an absent path's gradient that no equivariant path with fewer maps could follow.

    Such a path is present, and until it has converged one that holds its maps too would seem to pay
    for them; or it is absent and tested itself.

    Args:
        layer: The layer.
        path: The absent path.
        gradient: Gradient of its tested weight.
    """
    paths = [p for p in layer.named_paths().values() if isinstance(p, EmlpPath)]
    strict = [p for p in paths if p.tested().numel() < gradient.numel()]
    if not strict or not isinstance(path, (EmlpPath, FCPath)):
        return gradient
    held = torch.cat([p.linear.columns() for p in strict], dim=1)
    maps = torch.linalg.svd(held, full_matrices=False)
    span = maps.U[:, maps.S > 1e-8]  # bases of nested groups overlap
    if isinstance(path, EmlpPath):
        span = torch.linalg.qr(path.linear.columns().T @ span).Q
    flat = gradient.flatten().to(span)
    left: Tensor = flat - span @ (span.T @ flat)
    return left.reshape(gradient.shape).to(gradient)


def _overlapping(layer: RelaxedLayer) -> tuple[list[EmlpPath], list[FCPath]]:
    """Equivariant paths and the free one, as far as they are on and trainable."""
    on = [
        path
        for path in layer.named_paths().values()
        if path.enabled and all(p.requires_grad for p in path.parameters())
    ]
    strict = [path for path in on if isinstance(path, EmlpPath)]
    return strict, [path for path in on if isinstance(path, FCPath)]


class _Split:
    """The most probable split of one layer's matrix.

    Args:
        strict: Its equivariant paths.
        stds: Prior standard deviations of these, and of the free path if there is one.
    """

    def __init__(self, strict: list[EmlpPath], stds: list[float]) -> None:
        columns = [std * path.linear.columns() for path, std in zip(strict, stds, strict=False)]
        self.ranks = [c.shape[1] for c in columns]
        self.s = torch.cat(columns, dim=1)
        self.stds = stds[: len(strict)]
        free = stds[-1] ** 2 if len(stds) > len(strict) else 0.0
        gram = self.s.T @ self.s + free * torch.eye(self.s.shape[1]).to(self.s)
        self.inverse = torch.linalg.pinv(gram, hermitian=True)

    @torch.no_grad()
    def apply(self, weights: Mapping[str, Tensor]) -> None:
        """Move weights to it: coefficients of the equivariant paths, then the free matrix."""
        held = list(weights.values())
        pairs = zip(held, self.s.split(self.ranks, dim=1), self.stds, strict=False)
        total = sum((q @ beta.to(q) / std for beta, q, std in pairs), torch.zeros(()))
        total = total + sum(w.flatten().to(self.s) for w in held[len(self.ranks) :])
        u = self.inverse @ (self.s.T @ total)
        for beta, part, std in zip(held, u.split(self.ranks), self.stds, strict=False):
            beta.copy_(std * part)
        for free in held[len(self.ranks) :]:
            free.copy_((total - self.s @ u).reshape(free.shape))
