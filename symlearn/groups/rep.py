"""The algebra of representations: V, its dual ``V.T``, sums ``+``, products ``*``, powers ``**``.

Representations are immutable values; equal ones compare and hash equal. One without a group, such
as ``3 * V + T(2)``, is bound by a call: ``(3 * V + T(2))(SO(3))``. Vectors of a sum are
concatenated; vectors of a product are flattened row-major, so that the rightmost factor runs
fastest. ``rep_in >> rep_out`` is ``rep_out * rep_in.T``: its vectors are the matrices
[dim_out, dim_in] of linear maps, flattened row-major.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from symlearn.groups.linear_maps import DirectSum, Kron, KronSum, LinearMap
from symlearn.groups.matrix import Element, Group


class Rep(ABC):
    """A representation: how a group acts on vectors of a kind."""

    @property
    @abstractmethod
    def group(self) -> Group | None:
        """The group, or None for scalars and for what is not bound to one yet."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Size of its vectors.

        Raises:
            ValueError: If the representation is not bound to a group.
        """

    @property
    @abstractmethod
    def T(self) -> Rep:  # noqa: N802
        """The dual: ``rho*(g) = rho(g^-1)^T``. A real orthogonal representation is its own."""

    @abstractmethod
    def __call__(self, group: Group) -> Rep:
        """Bind to a group.

        Raises:
            ValueError: If it is bound to another group.
        """

    @abstractmethod
    def restrict(self, subgroup: Group) -> Rep:
        """The same action, of a subgroup in the same base representation.

        Raises:
            ValueError: If the base representations differ in size.
        """

    @abstractmethod
    def rho(self, g: Element) -> LinearMap:
        """The action of a group element, as a lazy map."""

    @abstractmethod
    def drho(self, a: Element) -> LinearMap:
        """The action of a Lie algebra element, as a lazy map."""

    def __add__(self, other: Rep | int) -> Rep:
        """Direct sum; an integer stands for so many scalars."""
        if isinstance(other, int):
            return direct_sum([(self, 1), (Scalar, other)])
        return direct_sum([(self, 1), (other, 1)]) if isinstance(other, Rep) else NotImplemented

    def __radd__(self, other: int) -> Rep:
        return (
            direct_sum([(Scalar, other), (self, 1)]) if isinstance(other, int) else NotImplemented
        )

    def __mul__(self, other: Rep | int) -> Rep:
        """Tensor product; by an integer, so many copies."""
        if isinstance(other, int):
            return direct_sum([(self, other)])
        return tensor_product([self, other]) if isinstance(other, Rep) else NotImplemented

    def __rmul__(self, other: int) -> Rep:
        return self * other if isinstance(other, int) else NotImplemented

    def __pow__(self, power: int) -> Rep:
        """Tensor power; the zeroth is the scalar."""
        if not isinstance(power, int) or power < 0:
            raise ValueError(f"a tensor power is an integer of zero or more, got {power!r}")
        return tensor_product([self] * power)

    def __rshift__(self, other: Rep) -> Rep:
        """Linear maps from this representation to another."""
        return tensor_product([other, self.T]) if isinstance(other, Rep) else NotImplemented

    def __repr__(self) -> str:
        text = self._text()
        if self.group is None:
            return text
        return f"{text}({self.group!r})" if text.isidentifier() else f"({text})({self.group!r})"

    @abstractmethod
    def _text(self) -> str:
        """How it is written, without the group."""


@dataclass(frozen=True, repr=False)
class Sum(Rep):
    """A direct sum of representations with multiplicities, in order; made by `direct_sum`."""

    terms: tuple[tuple[Rep, int], ...]

    @property
    def group(self) -> Group | None:
        """The group of the terms."""
        return common_group([rep for rep, _ in self.terms])

    @property
    def dim(self) -> int:
        """Sum of the sizes."""
        return sum(rep.dim * count for rep, count in self.terms)

    @property
    def T(self) -> Rep:  # noqa: N802
        """The dual of every term."""
        return direct_sum([(rep.T, count) for rep, count in self.terms])

    def __call__(self, group: Group) -> Rep:
        """Bind every term."""
        return direct_sum([(rep(group), count) for rep, count in self.terms])

    def restrict(self, subgroup: Group) -> Rep:
        """Restrict every term."""
        return direct_sum([(rep.restrict(subgroup), count) for rep, count in self.terms])

    def rho(self, g: Element) -> LinearMap:
        """The actions along a diagonal."""
        return DirectSum([(rep.rho(g), count) for rep, count in self.terms])

    def drho(self, a: Element) -> LinearMap:
        """The actions along a diagonal."""
        return DirectSum([(rep.drho(a), count) for rep, count in self.terms])

    def _text(self) -> str:
        parts = [(f"{n} * " if n > 1 else "") + rep._text() for rep, n in self.terms]
        return " + ".join(parts) or "0 * V"


@dataclass(frozen=True, repr=False)
class Product(Rep):
    """A tensor product of representations in order; made by `tensor_product`. Empty: the scalar."""

    factors: tuple[Rep, ...]

    @property
    def group(self) -> Group | None:
        """The group of the factors."""
        return common_group(self.factors)

    @property
    def dim(self) -> int:
        """Product of the sizes."""
        return math.prod(rep.dim for rep in self.factors)

    @property
    def T(self) -> Rep:  # noqa: N802
        """The product of the duals, in the same order."""
        return tensor_product([rep.T for rep in self.factors])

    def __call__(self, group: Group) -> Rep:
        """Bind every factor."""
        return tensor_product([rep(group) for rep in self.factors])

    def restrict(self, subgroup: Group) -> Rep:
        """Restrict every factor."""
        return tensor_product([rep.restrict(subgroup) for rep in self.factors])

    def rho(self, g: Element) -> LinearMap:
        """The Kronecker product of the actions."""
        return Kron([rep.rho(g) for rep in self.factors])

    def drho(self, a: Element) -> LinearMap:
        """The Kronecker sum of the actions."""
        return KronSum([rep.drho(a) for rep in self.factors])

    def _text(self) -> str:
        runs = [(rep, len(list(same))) for rep, same in groupby(self.factors)]
        texts = []
        for rep, power in runs:
            text = f"({rep._text()})" if isinstance(rep, Sum) else rep._text()
            texts.append(f"{text}**{power}" if power > 1 else text)
        return " * ".join(texts) or "Scalar"


Scalar = Product(())
"""The scalar, on which every group acts trivially."""


def direct_sum(terms: Iterable[tuple[Rep, int]]) -> Rep:
    """The sum of representations with multiplicities, nested sums opened, equal neighbours merged.

    Raises:
        ValueError: If a multiplicity is negative, or the groups differ.
    """
    flat: list[tuple[Rep, int]] = []
    for rep, count in terms:
        if count < 0:
            raise ValueError(f"a multiplicity is zero or more, got {count} of {rep!r}")
        # several copies of a sum alternate its terms, so they are written out
        flat += list(rep.terms) * count if isinstance(rep, Sum) else [(rep, count)]
    merged = [
        (rep, sum(count for _, count in same))
        for rep, same in groupby(flat, key=lambda term: term[0])
    ]
    kept = tuple((rep, count) for rep, count in merged if count)
    common_group([rep for rep, _ in kept])
    return kept[0][0] if len(kept) == 1 and kept[0][1] == 1 else Sum(kept)


def tensor_product(factors: Iterable[Rep]) -> Rep:
    """The product of representations, nested products opened.

    Raises:
        ValueError: If the groups differ.
    """
    flat: list[Rep] = []
    for rep in factors:
        flat += rep.factors if isinstance(rep, Product) else [rep]
    common_group(flat)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def common_group(reps: Sequence[Rep]) -> Group | None:
    """The group of all representations, None if none has one.

    Raises:
        ValueError: If there are two groups, or only some are bound to one; scalars fit to all.
    """
    groups = {rep.group for rep in reps if rep.group is not None}
    if len(groups) > 1:
        names = sorted(map(repr, groups))
        raise ValueError(
            f"representations of different groups {names} cannot be combined; for a direct product "
            f"make the group first, G = {' * '.join(names)}, and take V(G), or Factor(G, i) for "
            "one factor; for a subgroup restrict the larger group's representation"
        )
    if groups and any(rep.group is None and unbound(rep) for rep in reps):
        raise ValueError(
            f"some representations are bound to {groups.pop()!r} and some to no group yet; bind "
            "all, as in V(G) + T(2)(G)"
        )
    return groups.pop() if groups else None


def unbound(rep: Rep) -> bool:
    """Whether a part of a representation waits for a group."""
    if isinstance(rep, Sum):
        return any(unbound(term) for term, _ in rep.terms)
    if isinstance(rep, Product):
        return any(unbound(factor) for factor in rep.factors)
    return rep.group is None
