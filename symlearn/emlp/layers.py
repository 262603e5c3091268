"""Equivariant layers: linear maps and biases on their bases, gates, and contractions of objects.

An **object** is one copy of one term of a representation's direct sum. Index letters: N samples,
n size of a representation, r rank of a basis, m copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as pairs
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

import curvature
from symlearn.emlp.basis import BasisExpansion, EquivariantMap, EquivariantMapRule
from symlearn.groups import EquivariantBasis, Rep, Scalar, orbits
from symlearn.groups.rep import Product, Sum, direct_sum


class EquivariantLinear(EquivariantMap):
    """``y = W x + b`` with ``vec W = Q beta`` and b in the invariants of the output.

    Args:
        rep_in: Representation of the input, bound to a group.
        rep_out: Representation of the output.

    Attributes:
        beta: Coefficients [r] of the basis of ``rep_in >> rep_out``, the single weight.
        bias: Coefficients [r'] of the basis of ``rep_out``.

    Raises:
        ValueError: If the groups differ, or their bases are complex or too large.
    """

    def __init__(self, rep_in: Rep, rep_out: Rep):
        super().__init__(rep_in, rep_out)
        self.biases = BasisExpansion(EquivariantBasis(rep_out))
        self.beta = nn.Parameter(self.fresh_std * torch.randn(self.basis.rank))
        self.bias = nn.Parameter(torch.zeros(self.biases.rank))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., dim_in] to vectors [..., dim_out]."""
        return nn.functional.linear(x, self.weight, self.biases(self.bias))


@curvature.register_rule(EquivariantLinear)
class EquivariantLinearRule(EquivariantMapRule):
    """The map's rule; the few coefficients of the bias have a dense curvature."""

    others = MappingProxyType({"bias": "dense"})


def objects(rep: Rep) -> list[tuple[Rep, int]]:
    """The terms of a representation and their numbers of copies, in order."""
    return list(rep.terms) if isinstance(rep, Sum) else [(rep, 1)]


def is_permutation(rep: Rep) -> bool:
    """Whether a group acts by permuting entries, so that functions of one entry are equivariant."""
    parts = [term for term, _ in rep.terms] if isinstance(rep, Sum) else []
    parts += rep.factors if isinstance(rep, Product) else ()
    if parts or rep.group is None:
        return all(map(is_permutation, parts))
    turns = any(bool(rep.drho(a).dense().any()) for a in rep.group.lie)
    matrices = [rep.rho(h).dense().numpy() for h in rep.group.discrete]
    return not turns and all(map(orbits.is_permutation, matrices))


def gated(rep: Rep) -> Rep:
    """A representation with one scalar more for every object that needs a gate."""
    return rep + sum(count for term, count in objects(rep) if not is_permutation(term))


class GatedNonlinearity(nn.Module):
    """``v sigmoid(s)``: s is the entry itself where entries are permuted, else a scalar per object.

    Args:
        rep: Representation of the output; the input is of `gated`.
    """

    gate: Tensor

    def __init__(self, rep: Rep):
        super().__init__()
        self.dim = rep.dim
        gate: list[int] = []
        scalars = rep.dim
        for term, count in objects(rep):
            for _ in range(count):
                own = is_permutation(term)
                gate += range(len(gate), len(gate) + term.dim) if own else [scalars] * term.dim
                scalars += not own
        self.register_buffer("gate", torch.tensor(gate, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., dim + gates] to vectors [..., dim]."""
        return x[..., : self.dim] * torch.sigmoid(x[..., self.gate])


class _Contraction(NamedTuple):
    """Objects of a kind a as maps from objects b to objects c; starts and copies of each."""

    start: tuple[int, int, int]
    copies: tuple[int, int, int]
    sizes: tuple[int, int]  # of b and c
    shape: tuple[int, ...]
    order: tuple[int, ...]


class BilinearContraction(nn.Module):
    """Sums of products of objects: a as a linear map, applied to b (Finzi et al. 2021, Sec. 2.6).

    a acts as a map from b to c if its factors are those of c and of the dual of b, in any order.
    Each pair of copies of b and c has one weight and one copy of a, in turn. Scalars as a or as b
    are left out.

    Args:
        rep: Representation of input and output.
    """

    def __init__(self, rep: Rep):
        super().__init__()
        self.dim = rep.dim
        self.contractions = _contractions(rep)
        self.weights = nn.ParameterList(
            torch.randn(c.copies[2], c.copies[1]) / c.copies[1] ** 0.5 for c in self.contractions
        )

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., n] to vectors [..., n]."""
        out = torch.zeros_like(x)
        for contraction, weight in zip(self.contractions, self.weights, strict=True):
            (a0, b0, c0), (ma, mb, mc), (nb, nc) = contraction[:3]
            lead = x.shape[:-1]
            a = x[..., a0 : a0 + ma * nb * nc].reshape(*lead, ma, *contraction.shape)
            first = len(lead) + 1
            a = a.permute(*range(first), *(first + i for i in contraction.order))
            turn = torch.arange(mc * mb, device=x.device).reshape(mc, mb) % ma
            a = a.reshape(*lead, ma, nc, nb).index_select(-3, turn.flatten())
            a = a.reshape(*lead, mc, mb, nc, nb)
            b = x[..., b0 : b0 + mb * nb].reshape(*lead, mb, nb)
            y = torch.einsum("...jicb,...ib,ji->...jc", a, b, weight) / nb**0.5
            spread = out[..., c0 : c0 + mc * nc] + y.flatten(-2)
            out = torch.cat([out[..., :c0], spread, out[..., c0 + mc * nc :]], dim=-1)
        return out


def _contractions(rep: Rep) -> list[_Contraction]:
    """All kinds of contractions within a representation."""
    found, start = [], 0
    listed: list[tuple[Rep, int, int]] = []
    for term, count in objects(rep):
        listed.append((term, count, start))
        start += term.dim * count
    for (a, ma, a0), (b, mb, b0), (c, mc, c0) in pairs(listed, repeat=3):
        order = _matched(_factors(a), [*_factors(c), *_factors(b.T)])
        if order is not None and a != Scalar and b != Scalar:
            shape = tuple(f.dim for f in _factors(a))
            sizes = (b.dim, c.dim)
            found.append(_Contraction((a0, b0, c0), (ma, mb, mc), sizes, shape, order))
    return found


def _factors(rep: Rep) -> Sequence[Rep]:
    return rep.factors if isinstance(rep, Product) else (rep,)


def _matched(given: Sequence[Rep], wanted: Sequence[Rep]) -> tuple[int, ...] | None:
    """Which of the given factors stands for each wanted one; None if they are others."""
    left = dict(enumerate(given))
    order = []
    for factor in wanted:
        place = next((i for i, other in left.items() if other == factor), None)
        if place is None:
            return None
        order.append(place)
        del left[place]
    return None if left else tuple(order)


def uniform(channels: int, rep: Rep) -> Rep:
    """Tensors of all orders with about as many channels each (Finzi et al. 2021, App. A.1.9).

    Args:
        channels: Size of the representation that is returned.
        rep: Base representation V; tensors are products of V and of its dual.

    Raises:
        ValueError: If there is no channel.

    Example:
        >>> from symlearn.emlp import uniform
        >>> from symlearn.groups import SO, V
        >>> uniform(256, V(SO(3)))
        (70 * Scalar + 23 * V + 7 * V**2 + 2 * V**3)(SO(3))
    """
    if channels < 1:
        raise ValueError(f"a layer needs a channel or more, got {channels}")
    top = 0
    while rep.dim > 1 and (top + 2) * rep.dim ** (top + 1) <= channels:
        top += 1
    terms: list[tuple[Rep, int]] = []
    left = channels
    for order in range(top, 0, -1):
        kinds = [rep ** (order - q) * rep.T**q for q in range(order + 1)]
        kinds = list(dict.fromkeys(kinds))
        total = left // (order + 1) // rep.dim**order
        share, more = divmod(total, len(kinds))
        terms = [(kind, share + (i < more)) for i, kind in enumerate(kinds)] + terms
        left -= total * rep.dim**order
    return direct_sum([(Scalar, left), *terms])
