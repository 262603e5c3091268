"""Symmetries of linear regression, in closed form (L-conv, Theorem 1 and Corollary 1).

For inputs X [d, N] and labels Y [c, N] the linear map ``A = Y X^T (X X^T)^-1`` is equivariant under
(u, u_c) if ``u H u^T = H`` and ``u_c C u^T = C``, with ``H = X X^T / N`` and ``C = Y X^T / N``. For
generators, ``u = exp(t L)`` and ``u_c = exp(t M)``,

    L H + H L^T = 0      so that  L = H^1/2 S H^-1/2  with S antisymmetric (Eq. 15),
    M C + C L^T = 0      so that  M C' = C' S         with C' = C H^-1/2.

C' has a row space of dimension r, the rank of the regression. Labels that do not change, ``M = 0``,
ask for ``C' S = 0``: S turns the complement of the row space, so(d - r). Where labels may change, S
must map the row space to itself, for else M would not be a function of C': so(r) + so(d - r), and
M turns the labels' signal. So every linear regression has these symmetries; what the data decide is
which subspaces are turned. With samples, C' has noise of size ``s / sqrt(N)`` in every entry (of
standardised labels), whose largest singular value is about ``(sqrt c + sqrt d) / sqrt N``
(Marchenko and Pastur 1967). Singular values below that do not count to r.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

LABELS = ("invariant", "equivariant")
"""What a symmetry does to labels: nothing, or any linear map."""
_SINGULAR = 1e-12


@dataclass(frozen=True)
class RegressionSymmetry:
    """The Lie algebra of symmetries of one linear regression.

    Attributes:
        generators: A basis of pairs: L on inputs, [k, d, d].
        label_generators: M on labels, [k, c, c]; zero for invariant labels.
        second_moment: ``H = X X^T / N``, [d, d].
        cross_moment: ``C = Y X^T / N``, [c, d].
        rank: Rank r of the regression: singular values of the whitened C above those of noise.
        singular_values: Of the whitened C, falling; standardised by the residuals if there are any.
        threshold: What they are compared with: the size of noise, or of rounding without noise.
    """

    generators: Tensor
    label_generators: Tensor
    second_moment: Tensor
    cross_moment: Tensor
    rank: int
    singular_values: Tensor
    threshold: float

    def violation(self, inputs: Tensor, labels: Tensor | None = None) -> tuple[float, float]:
        """How far a generator is from a symmetry: both conditions, each relative, in [0, 1].

        The first is ``||S + S^T|| / 2||S||`` for ``S = H^-1/2 L H^1/2``, 0 for an exact symmetry of
        the covariance and about 0.7 for a random L. The second is ``||M C' + C' S^T|| / ||C'||
        (||M|| + ||S||)``.

        Args:
            inputs: L, [d, d].
            labels: M, [c, c]; zero without.

        Raises:
            ValueError: If a shape does not fit.
        """
        d, c = len(self.second_moment), len(self.cross_moment)
        given = torch.zeros(c, c) if labels is None else labels
        if inputs.shape != (d, d) or given.shape != (c, c):
            raise ValueError(
                f"got generators {list(inputs.shape)} on inputs and {list(given.shape)} on labels; "
                f"this regression is from {d} to {c} numbers"
            )
        root, inverse = _roots(self.second_moment)
        turned = inverse @ inputs.double() @ root
        whitened = self.cross_moment @ inverse
        moved = given.double() @ whitened + whitened @ turned.T
        tiny = torch.finfo(moved.dtype).tiny
        size = whitened.norm() * (given.double().norm() + turned.norm())
        first = (turned + turned.T).norm() / (2 * turned.norm()).clamp(min=tiny)
        return float(first), float(moved.norm() / size.clamp(min=tiny))


def regression_symmetry(x: Tensor, y: Tensor, labels: str = "invariant") -> RegressionSymmetry:
    """The Lie algebra ``H^1/2 so(d) H^-1/2``, intersected with the label condition.

    Args:
        x: Inputs [N, d]; append a column of ones for a bias, which the source counts as an input.
        y: Labels [N, c] or [N].
        labels: "invariant" (M = 0) or "equivariant" (any M).

    Raises:
        TypeError: If x or y is no tensor.
        ValueError: For shapes that do not fit, values that are not finite, an unknown choice, or
            inputs with a singular second moment (fewer samples than inputs, or a redundant one).

    Example:
        >>> import torch
        >>> from symlearn.generators import regression_symmetry
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> found = regression_symmetry(x, 2 * x[:, 0])
        >>> found.rank, tuple(found.generators.shape)  # turns what the label does not see
        (1, (1, 3, 3))
    """
    x, y = _checked(x, y)
    if labels not in LABELS:
        raise ValueError(f"unknown labels {labels!r}; choose one of {list(LABELS)}")
    n, d = x.shape
    moment, cross = x.T @ x / n, y.T @ x / n
    root, inverse = _roots(moment)
    whitened = cross @ inverse
    values, threshold = _signal(x, y, whitened, inverse)
    rank = int((values > threshold).sum())
    u, s, v = torch.linalg.svd(whitened)
    chosen = [(a, b) for a, b in itertools.combinations(range(d), 2) if (a < rank) == (b < rank)]
    if labels == "invariant":
        chosen = [pair for pair in chosen if pair[0] >= rank]
    inputs, outputs = x.new_zeros(len(chosen), d, d), x.new_zeros(len(chosen), *[y.shape[1]] * 2)
    for i, (a, b) in enumerate(chosen):
        turn = torch.outer(v[a], v[b]) - torch.outer(v[b], v[a])
        inputs[i] = root @ turn @ inverse
        if a < rank:  # M u_a s_a = C' S v_b, ...
            outputs[i] = s[a] / s[b] * torch.outer(u[:, a], u[:, b])
            outputs[i] -= s[b] / s[a] * torch.outer(u[:, b], u[:, a])
    return RegressionSymmetry(inputs, outputs, moment, cross, rank, values, threshold)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs [N, d] and labels [N, c] in float64."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"x and y must be tensors, got {type(x).__name__}, {type(y).__name__}")
    y = y.unsqueeze(1) if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"x is {list(x.shape)} and y {list(y.shape)}; give [N, d] and [N, c]")
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        raise ValueError("x or y contain NaN or infinite values")
    return x.detach().cpu().double(), y.detach().cpu().double()


def _roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """``H^1/2`` and ``H^-1/2``."""
    values, vectors = torch.linalg.eigh(moment)
    if not float(values[0]) > _SINGULAR * float(values[-1]):
        raise ValueError(
            "the second moment of the inputs is singular: give more samples than inputs, and leave "
            "out inputs that are sums of others"
        )
    return (vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T


def _signal(x: Tensor, y: Tensor, whitened: Tensor, inverse: Tensor) -> tuple[Tensor, float]:
    """Singular values of the whitened C in units of the residuals' size, and those of noise."""
    (n, d), c = x.shape, y.shape[1]
    residuals = y - x @ inverse @ whitened.T
    left = max(n - d, 1)
    values, vectors = torch.linalg.eigh(residuals.T @ residuals / left)
    scale = float(y.square().sum()) / n
    if float(values.max()) <= _SINGULAR * scale:  # labels without noise
        found = torch.linalg.svdvals(whitened)
        return found, _SINGULAR**0.5 * float(found.max())
    floor = _SINGULAR * float(values.max())
    standard = (vectors * values.clamp(min=floor).rsqrt()) @ vectors.T
    noise = (math.sqrt(c) + math.sqrt(d)) / math.sqrt(n)
    return torch.linalg.svdvals(standard @ whitened), noise
