"""Equivariant layers: linear maps and biases on their bases, gates, and contractions of objects.

An **object** is one copy of one term of a representation's direct sum. Index letters: N samples,
n size of a representation, r rank of a basis, m copies.
"""

from __future__ import annotations

import math
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


class _Product(NamedTuple):
    """How objects of the kinds a and b make objects of the kind c: [p, q] times [q, r]."""

    start: tuple[int, int, int]
    copies: tuple[int, int, int]
    sizes: tuple[int, int, int]  # p, q, r
    a_order: tuple[int, ...]  # of a's factors, those that are kept before those that are summed
    c_order: tuple[int, ...]  # of the kept factors, a's before b's
    a_axes: tuple[int, ...]
    kept_axes: tuple[int, ...]

    @property
    def n_weights(self) -> int:
        """One for each pair of copies of b and c."""
        return self.copies[1] * self.copies[2]


class BilinearContraction(nn.Module):
    """Sums of products of objects a and b (Finzi et al. 2021, Sec. 2.6).

    Either a is a linear map that is applied to b, its factors being those of c and of the dual of b
    in any order, or c is the tensor product of a and b, which the paper does not have: without it
    two vectors make a matrix only by way of tensors of order three. Each pair of copies of b and c
    has one weight and one copy of a, in turn. Scalars as a or as b are left out.

    Args:
        rep: Representation of input and output.

    Attributes:
        weight: All weights, one vector.
    """

    def __init__(self, rep: Rep):
        super().__init__()
        self.sizes = [term.dim * count for term, count in objects(rep)]
        self.products = _products(rep)
        self.weight = nn.Parameter(torch.empty(sum(p.n_weights for p in self.products)))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights with which outputs have about the size of products of inputs."""
        stds = [p.copies[1] ** -0.5 for p in self.products for _ in range(p.n_weights)]
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            self.weight.mul_(torch.tensor(stds).to(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., n] to vectors [..., n]."""
        totals: dict[int, Tensor] = {}
        weights = self.weight.split([p.n_weights for p in self.products])
        for product, weight in zip(self.products, weights, strict=True):
            c, y = product.start[2], _multiply(x, product, weight)
            totals[c] = totals[c] + y if c in totals else y
        parts, start = [], 0
        for size in self.sizes:
            parts.append(totals.get(start, torch.zeros_like(x[..., start : start + size])))
            start += size
        return torch.cat(parts, dim=-1)


@curvature.register_rule(BilinearContraction)
class BilinearContractionRule(curvature.Rule):
    """The weights multiply products of inputs: their curvature is dense."""

    weight, bias, others = None, None, MappingProxyType({"weight": "dense"})


def _multiply(x: Tensor, product: _Product, weight: Tensor) -> Tensor:
    """Objects c [..., copies * size] of vectors [..., n]."""
    (a0, b0, _), (ma, mb, mc), (p, q, r) = product[:3]
    lead = x.shape[:-1]
    first = len(lead) + 1
    a = x[..., a0 : a0 + ma * p * q].reshape(*lead, ma, *product.a_axes)
    a = a.permute(*range(first), *(first + i for i in product.a_order)).reshape(*lead, ma, p, q)
    turn = torch.arange(mc * mb, device=x.device) % ma
    a = a.index_select(-3, turn) * (weight / q**0.5)[:, None, None]
    a = a.reshape(*lead, mc, mb, p, q).transpose(-3, -2).reshape(*lead, mc * p, mb * q)
    y = a @ x[..., b0 : b0 + mb * q * r].reshape(*lead, mb * q, r)
    y = y.reshape(*lead, mc, *product.kept_axes)
    y = y.permute(*range(first), *(first + i for i in product.c_order))
    out: Tensor = y.flatten(len(lead))
    return out


def _products(rep: Rep) -> list[_Product]:
    """All kinds of products within a representation."""
    found, start = [], 0
    listed: list[tuple[Sequence[Rep], int, int]] = []
    for term, count in objects(rep):
        listed.append((_factors(term), count, start))
        start += term.dim * count
    for (a, ma, a0), (b, mb, b0), (c, mc, c0) in pairs(listed, repeat=3):
        if not a or not b:
            continue
        starts, copies = (a0, b0, c0), (ma, mb, mc)
        order, unchanged = _order(a, [*c, *(factor.T for factor in b)]), tuple(range(len(c)))
        if order is not None:
            sizes = (_size(c), _size(b), 1)
            axes = tuple(factor.dim for factor in a), tuple(factor.dim for factor in c)
            found.append(_Product(starts, copies, sizes, order, unchanged, *axes))
        order, unchanged = _order([*a, *b], c), tuple(range(len(a)))
        if order is not None and a0 <= b0:  # a (x) b once, not b (x) a as well
            sizes = (_size(a), 1, _size(b))
            axes = tuple(factor.dim for factor in a), tuple(factor.dim for factor in (*a, *b))
            found.append(_Product(starts, copies, sizes, unchanged, order, *axes))
    return found


def _size(factors: Sequence[Rep]) -> int:
    return math.prod(factor.dim for factor in factors)


def _factors(rep: Rep) -> Sequence[Rep]:
    return rep.factors if isinstance(rep, Product) else (rep,)


def _order(given: Sequence[Rep], wanted: Sequence[Rep]) -> tuple[int, ...] | None:
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
