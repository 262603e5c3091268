"""Which linear maps of small inputs leave a network's outputs unchanged: gl(d).

The generators are all d x d matrices, L_ij moving number i of the input by number j:

    own_(ij)(kl)   = E J_i x_j J_k x_l          other_(ij)(kl) = E J_i J_k  E x_j x_l

with the Jacobian J(x) of the outputs. ``other`` is what ``own`` would be if J did not depend on x,
so eigenvalues of ``own`` relative to it are near one where outputs ignore how a move relates to the
input, and zero along a symmetry. A network invariant under a group has the group's Lie algebra as
its null space.

Index letters: N inputs, m rows of the Jacobian, d numbers in an input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.audit import images
from symlearn.audit.sensitivity import check_draws, p_value, rows
from symlearn.progress import Progress
from symlearn.report.text import draw_lines

MOST_NUMBERS = 32
"""Largest d; the Gram matrix has d^4 entries."""

STRONG = 0.05
"""Largest ratio of a symmetry.

Independence of J and x is no null distribution of networks without symmetry, whose J does depend on
x; so a direction must also be this much quieter than it would make the outputs."""

_UNIQUE = 0.1  # how much worse the second-best quadratic form must be preserved
_BLIND = 1e-4  # of the largest: directions of the input that data or outputs do not reach


@dataclass(frozen=True)
class LinearCandidate:
    """A generator ``x -> L x``.

    Attributes:
        matrix: L, d rows of d numbers, of unit Frobenius norm.
        change: Mean square change of the outputs per unit of its parameter.
        ratio: The same, relative to inputs unrelated to the Jacobian.
        p_value: Share of pairings of Jacobians with other inputs whose smallest ratio is as small.
    """

    matrix: tuple[tuple[float, ...], ...]
    change: float
    ratio: float
    p_value: float


@dataclass(frozen=True)
class LinearInvariances:
    """Generators of gl(d), smallest ratio first.

    Attributes:
        directions: All of them.
        level: Largest p-value of those that are found.
        blind: Dimensions of the input that the outputs ignore or the data do not fill; generators
            there are left out.
        n_inputs: Number of inputs.
        draws: Draws of the null distribution.
    """

    directions: tuple[LinearCandidate, ...]
    level: float
    blind: int
    n_inputs: int
    draws: int

    @property
    def found(self) -> tuple[LinearCandidate, ...]:
        """The directions that are significant and strong."""
        return tuple(c for c in self.directions if c.p_value <= self.level and c.ratio <= STRONG)

    def metric(self) -> tuple[Tensor, float] | None:
        """The quadratic form that the found generators preserve best, and how badly.

        Returns:
            Q [d, d] symmetric of unit norm, with the more frequent sign positive, and the root mean
            square of ``||L^T Q + Q L||``; None if nothing was found, or several forms are
            preserved alike. The signs of the eigenvalues of Q tell the group: all equal for SO(d),
            one different for the Lorentz group.
        """
        if not self.found:
            return None
        d = len(self.found[0].matrix)
        pairs = [(i, j) for i in range(d) for j in range(i, d)]
        forms = torch.zeros(len(pairs), d, d, dtype=torch.float64)
        for k, (i, j) in enumerate(pairs):
            forms[k, i, j] = forms[k, j, i] = 1.0 if i == j else 0.5**0.5
        gram = torch.zeros(len(pairs), len(pairs), dtype=torch.float64)
        for c in self.found:
            moved = forms @ torch.tensor(c.matrix, dtype=torch.float64)
            changed = (moved + moved.transpose(1, 2)).flatten(1)  # L^T Q + Q L of each form
            gram += changed @ changed.T / len(self.found)
        squares, vectors = torch.linalg.eigh(gram)
        sizes = squares.clamp(min=0.0).sqrt()
        if len(sizes) > 1 and not float(sizes[1] - sizes[0]) > _UNIQUE:
            return None
        form = torch.einsum("k,kij->ij", vectors[:, 0], forms)
        sign = 1.0 if float(torch.linalg.eigvalsh(form).sign().sum()) >= 0 else -1.0
        return sign * form, float(sizes[0])

    def __str__(self) -> str:
        body = [
            [f"{v:.3g}" for v in (c.ratio, c.p_value, c.change)]
            + ["yes" if c in self.found else "no"]
            for c in self.directions
        ]
        return "\n".join(draw_lines(["ratio", "p", "change", "found"], body, [True] * 4))


def linear_invariances(
    model: nn.Module,
    x: Tensor,
    *,
    link: str = "identity",
    draws: int = 99,
    level: float = 0.05,
    seed: int = 0,
    progress: bool | None = False,
) -> LinearInvariances:
    """Find the matrices L for which a network's outputs do not change along ``x -> x + t L x``.

    Args:
        model: The network, with outputs [N, K]; it is run in eval mode.
        x: Inputs [N, ...] of at most `MOST_NUMBERS` numbers each, many more than d^2.
        link: "identity" or "softmax".
        draws: Draws of the null distribution.
        level: Largest p-value of those that are found; at least ``1 / (1 + draws)``.
        seed: Of the draws.
        progress: Whether to show a progress bar; None on terminals only.

    Raises:
        ValueError: For inputs that are too large or too few, a level no draw can reach, or outputs
            that are not [N, K].
        NoDerivativeError: If the network cannot be differentiated.

    Example:
        >>> import torch
        >>> from symlearn.audit import linear_invariances
        >>> class Radius(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.square().sum(1, keepdim=True)
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> len(linear_invariances(Radius(), x, draws=19).found)
        3
    """
    _check(x, draws, level)
    with images.frozen(model):
        jacobian = rows(model, x, link, seed)
    flat = images.check_finite(x, "the data").flatten(1).double()
    seen, unwhiten_j = _whitened(jacobian.flatten(0, 1))
    filled, unwhiten_x = _whitened(flat)
    seen = seen.unflatten(0, jacobian.shape[:2])
    size = seen.shape[2] * filled.shape[1]
    if seen.shape[0] * seen.shape[1] < 2 * size:
        raise ValueError(
            f"{len(x)} inputs are too few for {size} generators: give at least "
            f"{-(-2 * size // seen.shape[1])}"
        )
    null = []
    order = torch.Generator().manual_seed(seed)
    with Progress(progress, "candidates", draws) as bar:
        for _ in range(draws):
            shuffled = filled[torch.randperm(len(x), generator=order).to(x.device)]
            null.append(float(torch.linalg.eigvalsh(_gram(seen, shuffled))[0]))
            bar.advance()
    ratios, vectors = torch.linalg.eigh(_gram(seen, filled))
    found = []
    for ratio, vector in zip(ratios.clamp(min=0.0).tolist(), vectors.T, strict=True):
        matrix = unwhiten_j @ vector.reshape(seen.shape[2], filled.shape[1]) @ unwhiten_x.T
        matrix = matrix / matrix.norm()
        change = float(torch.einsum("nmi,ij,nj->nm", jacobian, matrix, flat).square().mean())
        entries = tuple(map(tuple, matrix.tolist()))
        found.append(LinearCandidate(entries, change, ratio, p_value(ratio, null)))
    d = flat.shape[1]
    blind = 2 * d - seen.shape[2] - filled.shape[1]
    return LinearInvariances(tuple(found), level, blind, len(x), draws)


def _check(x: Tensor, draws: int, level: float) -> None:
    d = math.prod(x.shape[1:])
    if x.ndim < 2 or not 1 <= d <= MOST_NUMBERS:
        raise ValueError(
            f"got inputs {list(x.shape)}; gl(d) is searched for at most {MOST_NUMBERS} numbers per "
            "input: give features, or smaller images"
        )
    check_draws(draws, level)


def _whitened(v: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, d] as uncorrelated [n, k] in the k dimensions that they fill, and the map [d, k]."""
    values, vectors = torch.linalg.eigh(v.T @ v / len(v))
    kept = values > _BLIND * values[-1]
    if not bool(kept.any()):
        raise ValueError("the outputs do not depend on the inputs, or the inputs are zero")
    scale = vectors[:, kept] * values[kept].rsqrt()
    return v @ scale, scale


def _gram(seen: Tensor, filled: Tensor) -> Tensor:
    """``E (J (x) x)(J (x) x)^T`` [ij, kl] of rows [N, m, k] and inputs [N, l]."""
    products = torch.einsum("nmi,nj->nmij", seen, filled).flatten(2).flatten(0, 1)
    return products.T @ products / len(products)
