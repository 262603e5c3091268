"""Groups of matrices, given by discrete generators and a basis of their Lie algebra.

An element is ``g = exp(sum_i a_i A_i) h_k1 h_k2 ...`` (Finzi et al. 2021, Eq. A.10), with Lie
algebra elements A_i and discrete generators h_k. Index letter: d size of the matrices.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Generator: TypeAlias = (
    Tensor | np.ndarray | Sequence[Sequence[complex]] | Callable[[Tensor], Tensor]
)
"""A matrix [d, d], or a function that multiplies a vector [d] by it."""

Element: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""An element of a group or of its algebra: a matrix, or one per factor of a direct product."""

_CLOSED = 1e-8
_SINGULAR = 1e-10
_ROUNDS, _MIXED = 3, 8


class Group(ABC):
    """What representations need to know of a group.

    Attributes:
        name: How it is printed.
        discrete: Discrete generators h_k.
        lie: Basis A_i of the Lie algebra.
    """

    name: str
    discrete: tuple[Element, ...]
    lie: tuple[Element, ...]

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of the generators; groups of equal generators are equal, whatever their name."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Size of the base representation."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Element:
        """A random element, from all components; not uniform."""

    @abstractmethod
    def product(self, g: Element, h: Element) -> Element:
        """The element g h."""

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __mul__(self, other: Group) -> DirectProduct:
        """The direct product."""
        if not isinstance(other, Group):
            return NotImplemented
        return DirectProduct(self, other)


class MatrixGroup(Group):
    """A group of invertible matrices [d, d], real or complex.

    Args:
        name: How it is printed.
        discrete: Generators h_k, each a matrix or a function that multiplies a vector by it.
        lie: Lie algebra elements A_i, likewise.
        dim: Size d; needed only if nothing given is a matrix.

    Raises:
        ValueError: If a generator is not square, not finite, of another size than the others, or a
            discrete one is not invertible; all of them are named.

    Warns:
        UserWarning: If the span of the A_i is not closed under brackets, or under conjugation by
            the h_k. The missing element is named. Equivariant bases do not change if it is added:
            what A_i and A_j annihilate, their bracket does too.

    Example:
        >>> from symlearn.groups import MatrixGroup, T, equivariant_basis
        >>> turns = MatrixGroup("quarter turns", discrete=[[[0, -1], [1, 0]]])
        >>> equivariant_basis(T(2)(turns)).shape
        torch.Size([4, 2])
    """

    discrete: tuple[Tensor, ...]
    lie: tuple[Tensor, ...]

    def __init__(
        self,
        name: str,
        discrete: Sequence[Generator] = (),
        lie: Sequence[Generator] = (),
        *,
        dim: int | None = None,
    ):
        self.name = name
        given = [(f"discrete generator {k}", h) for k, h in enumerate(discrete)]
        given += [(f"Lie algebra element {i}", a) for i, a in enumerate(lie)]
        self._dim = _size(name, given, dim)
        matrices = [(what, _as_matrix(g, self._dim)) for what, g in given]
        faults = [
            f"{what}: {fault}" for what, m in matrices for fault in _faults(m, self._dim, what)
        ]
        if faults:
            raise ValueError(f"group {name!r}: " + "; ".join(faults))
        self.is_complex = any(m.is_complex() for _, m in matrices)
        same = [m.to(torch.complex128) if self.is_complex else m for _, m in matrices]
        self.discrete, self.lie = tuple(same[: len(discrete)]), tuple(same[len(discrete) :])
        self._check_closed()

    @property
    def dim(self) -> int:
        """Size d of the matrices."""
        return self._dim

    @cached_property
    def digest(self) -> str:
        """A hash of the generators."""
        seen = hashlib.sha256(f"{self.dim} {len(self.discrete)}".encode())
        for m in (*self.discrete, *self.lie):
            seen.update(digest_of(m).encode())
        return seen.hexdigest()

    @cached_property
    def is_orthogonal(self) -> bool:
        """Whether all elements are real and orthogonal, so that V and its dual are the same."""
        eye = torch.eye(self.dim, dtype=torch.float64)
        return (
            not self.is_complex
            and all(torch.allclose(h.T @ h, eye, rtol=0, atol=1e-12) for h in self.discrete)
            and all(torch.allclose(a, -a.T, rtol=0, atol=1e-12) for a in self.lie)
        )

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A random element [d, d], from all components; not uniform.

        Args:
            generator: Source of random numbers; torch's own by default.
        """
        dtype = torch.complex128 if self.is_complex else torch.float64
        g = torch.eye(self.dim, dtype=dtype)
        for _ in range(_ROUNDS):
            if self.lie:
                # noncompact groups: large elements would drown equations in rounding
                w = torch.randn(len(self.lie), generator=generator, dtype=torch.float64)
                w = (w / (_ROUNDS * len(self.lie) ** 0.5)).to(dtype)
                a = torch.einsum("i,ijk->jk", w, torch.stack(self.lie))
                g = g @ torch.linalg.matrix_exp(a)
            for k in torch.randperm(len(self.discrete), generator=generator).tolist()[:_MIXED]:
                power = int(torch.randint(-2, 3, (), generator=generator))
                g = g @ torch.linalg.matrix_power(self.discrete[k], power)
        return g

    def product(self, g: Element, h: Element) -> Tensor:
        """The element g h [d, d]."""
        if not isinstance(g, Tensor) or not isinstance(h, Tensor):
            raise TypeError(f"elements of {self} are matrices, got {type(g)} and {type(h)}")
        dtype = torch.promote_types(g.dtype, h.dtype)
        return g.to(dtype) @ h.to(dtype)

    def subgroup(
        self, name: str, discrete: Sequence[Generator] = (), lie: Sequence[Generator] = ()
    ) -> MatrixGroup:
        """A subgroup, given by generators in the same base representation.

        Representations are restricted to it by `Rep.restrict`.

        Args:
            name: How it is printed.
            discrete: Its discrete generators. Whether they belong to this group is not checked.
            lie: Its Lie algebra elements.

        Raises:
            ValueError: If a Lie algebra element does not belong to this group's algebra.
        """
        sub = MatrixGroup(name, discrete, lie, dim=self.dim)
        span = _Span(self.lie, self.dim)
        strangers = [i for i, a in enumerate(sub.lie) if span.distance(a) > _CLOSED]
        if strangers:
            raise ValueError(
                f"group {name!r}: the Lie algebra elements {strangers} do not belong to the "
                f"algebra of {self}; give combinations of its {len(self.lie)} elements"
            )
        return sub

    def _check_closed(self) -> None:
        """Warn of the first bracket, or conjugate, that the algebra's basis does not span."""
        if not self.lie:
            return
        span = _Span(self.lie, self.dim)
        missing = _outside(span, _brackets(self.lie)) or _outside(
            span, _conjugates(self.discrete, self.lie)
        )
        if missing:
            what, matrix = missing
            warnings.warn(
                f"the Lie algebra of group {self.name!r} is not closed: {what} =\n"
                f"{np.array2string(matrix.numpy(), precision=3, suppress_small=True)}\nis no "
                "combination of its elements; add it. Equivariant bases are those of the larger "
                "group that the elements generate",
                stacklevel=3,
            )


class DirectProduct(Group):
    """The direct product of groups; its elements are tuples with one matrix per factor.

    ``V(G)`` is the product of the factors' base representations, and ``Factor(G, i)`` is the
    representation on which factor i acts alone.

    Example:
        >>> from symlearn.groups import SO, Factor, S, V, equivariant_basis
        >>> G = S(4) * SO(3)  # a cloud of four points
        >>> equivariant_basis(V(G) >> V(G)).shape
        torch.Size([144, 2])
        >>> equivariant_basis(V(G) >> Factor(G, 1)).shape  # to one vector
        torch.Size([36, 1])
    """

    def __init__(self, *groups: Group):
        parts: list[MatrixGroup] = []
        for group in groups:
            if isinstance(group, DirectProduct):
                parts += group.factors
            elif isinstance(group, MatrixGroup):
                parts.append(group)
            else:
                raise TypeError(f"a direct product is one of groups, got {type(group)}")
        self.factors: tuple[MatrixGroup, ...] = tuple(parts)
        self.name = " * ".join(g.name for g in parts)
        eyes = [torch.eye(g.dim, dtype=torch.float64) for g in parts]
        self.discrete = tuple(
            (*eyes[:i], h, *eyes[i + 1 :]) for i, g in enumerate(parts) for h in g.discrete
        )
        self.lie = tuple(
            tuple(a if j == i else 0 * eye for j, eye in enumerate(eyes))
            for i, g in enumerate(parts)
            for a in g.lie
        )

    @cached_property
    def digest(self) -> str:
        """A hash of the generators."""
        text = "product " + " ".join(g.digest for g in self.factors)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def dim(self) -> int:
        """Size of the base representation, the product of the factors'."""
        return int(np.prod([g.dim for g in self.factors]))

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """One random element of each factor."""
        return tuple(g.sample(generator) for g in self.factors)

    def product(self, g: Element, h: Element) -> tuple[Tensor, ...]:
        """The element g h."""
        return tuple(f.product(a, b) for f, a, b in zip(self.factors, g, h, strict=True))


def digest_of(matrix: Tensor) -> str:
    """A hash of a tensor's shape, dtype and numbers; the two zeros are the same."""
    numbers = (matrix + 0.0).contiguous().numpy()
    return hashlib.sha256(
        f"{numbers.shape}{numbers.dtype}".encode() + numbers.tobytes()
    ).hexdigest()


class _Span:
    """The linear span of matrices."""

    def __init__(self, matrices: Sequence[Tensor], dim: int):
        rows = [m.to(torch.complex128).flatten() for m in matrices]
        stacked = torch.stack(rows) if rows else torch.zeros(1, dim * dim, dtype=torch.complex128)
        # over the reals: i A need not belong to a real algebra that A belongs to
        split = torch.view_as_real(stacked).flatten(1)
        _, s, vh = torch.linalg.svd(split, full_matrices=False)
        self.basis = vh[s > _CLOSED * s.amax().clamp_min(1e-300)]

    def distance(self, matrix: Tensor) -> float:
        """Norm of the part outside the span over the matrix's norm; zero for a zero matrix."""
        x = torch.view_as_real(matrix.to(torch.complex128)).flatten()
        outside = x - self.basis.T @ (self.basis @ x)
        return float(outside.norm() / x.norm().clamp_min(1e-12))


def _brackets(lie: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    return [
        (f"[A_{i}, A_{j}]", a @ b - b @ a) for j, b in enumerate(lie) for i, a in enumerate(lie[:j])
    ]


def _conjugates(discrete: Sequence[Tensor], lie: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    return [
        (f"h_{k} A_{i} h_{k}^-1", h @ a @ torch.linalg.inv(h))
        for k, h in enumerate(discrete)
        for i, a in enumerate(lie)
    ]


def _outside(span: _Span, named: Sequence[tuple[str, Tensor]]) -> tuple[str, Tensor] | None:
    """The first matrix that is not in a span."""
    return next((pair for pair in named if span.distance(pair[1]) > _CLOSED), None)


def _size(name: str, given: Sequence[tuple[str, Generator]], dim: int | None) -> int:
    """Size d of the base representation: as given, or that of the first matrix."""
    if dim is not None:
        return dim
    for _, g in given:
        if not callable(g) or isinstance(g, Tensor):
            return int(np.shape(g)[-1]) if np.ndim(g) else 0
    raise ValueError(f"group {name!r}: give dim, as no generator is a matrix that would tell it")


def _as_matrix(g: Generator, dim: int) -> Tensor:
    """A generator as a tensor in double precision; a function is applied to the unit vectors."""
    if callable(g) and not isinstance(g, Tensor):
        columns = [g(unit) for unit in torch.eye(dim, dtype=torch.float64)]
        g = torch.stack(columns, dim=-1)
    matrix = torch.as_tensor(g).detach().cpu()
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def _faults(m: Tensor, dim: int, what: str) -> list[str]:
    """What is wrong with a generator."""
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        return [f"a generator is a square matrix, got shape {list(m.shape)}"]
    if m.shape[0] != dim:
        return [f"the size is {dim}, got shape {list(m.shape)}"]
    if not bool(torch.isfinite(m).all()):
        return ["it holds NaN or infinite numbers"]
    if what.startswith("discrete"):
        s = torch.linalg.svdvals(m)
        if float(s[-1]) <= _SINGULAR * float(s[0]):
            return [
                f"it is not invertible (singular values {float(s[-1]):.1e} to {float(s[0]):.1e})"
            ]
    return []
