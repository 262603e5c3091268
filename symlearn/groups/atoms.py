"""Representations that are no sum and no product: the base representation, and functions of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from symlearn.groups.linear_maps import LinearMap, Matrix
from symlearn.groups.matrix import DirectProduct, Element, Group, MatrixGroup
from symlearn.groups.rep import Rep, tensor_product

_TOLERANCE = 1e-8


class Atom(Rep):
    """A representation that is no sum and no product; `matrix` and `generator` give it densely.

    Attributes:
        dual: Whether it is the dual of what `plain_matrix` and `plain_generator` give.
    """

    dual: bool

    def restrict(self, subgroup: Group) -> Rep:
        """The same action, of a subgroup in the same base representation."""
        if self.group is not None and self.group.dim != subgroup.dim:
            raise ValueError(
                f"{subgroup!r} of size {subgroup.dim} is no subgroup of {self.group!r} of size "
                f"{self.group.dim} in the same base representation"
            )
        return self._bound(subgroup)

    def __call__(self, group: Group) -> Rep:
        """Bind to a group."""
        if self.group is not None and self.group != group:
            raise ValueError(
                f"{self!r} is bound to {self.group!r}, not to {group!r}; restrict it to a subgroup"
            )
        return self._bound(group)

    def rho(self, g: Element) -> LinearMap:
        """The action of a group element."""
        return Matrix(self.matrix(g))

    def drho(self, a: Element) -> LinearMap:
        """The action of a Lie algebra element."""
        return Matrix(self.generator(a))

    def matrix(self, g: Element) -> Tensor:
        """``rho(g)`` [dim, dim]."""
        found = self.plain_matrix(g)
        return torch.linalg.inv(found).T if self.dual else found

    def generator(self, a: Element) -> Tensor:
        """``d rho(a)`` [dim, dim]."""
        found = self.plain_generator(a)
        return -found.T if self.dual else found

    @abstractmethod
    def plain_matrix(self, g: Element) -> Tensor:
        """``rho(g)`` of the representation that is no dual [dim, dim]."""

    @abstractmethod
    def plain_generator(self, a: Element) -> Tensor:
        """``d rho(a)`` of the representation that is no dual [dim, dim]."""

    @abstractmethod
    def _bound(self, group: Group) -> Rep:
        """The same representation of a group."""


@dataclass(frozen=True, repr=False)
class Base(Atom):
    """The base representation V: a group's matrices as they are, or their duals."""

    of: MatrixGroup | None = None
    dual: bool = False

    @property
    def group(self) -> Group | None:
        """The group."""
        return self.of

    @property
    def dim(self) -> int:
        """Size of the matrices."""
        if self.of is None:
            raise ValueError(f"{self!r} has no size before it is bound to a group, as in V(SO(3))")
        return self.of.dim

    @property
    def T(self) -> Rep:  # noqa: N802
        """The dual."""
        if self.of is not None and self.of.is_orthogonal:
            return self
        return Base(self.of, not self.dual)

    def plain_matrix(self, g: Element) -> Tensor:
        """The matrix itself [d, d]."""
        return _one(g)

    def plain_generator(self, a: Element) -> Tensor:
        """The matrix itself [d, d]."""
        return _one(a)

    def _bound(self, group: Group) -> Rep:
        if isinstance(group, DirectProduct):
            parts = [Factor(group, i) for i in range(len(group.factors))]
            return tensor_product([p.T for p in parts] if self.dual else parts)
        if not isinstance(group, MatrixGroup):
            raise TypeError(f"a representation is bound to a group, got {type(group)}")
        return Base(group, self.dual and not group.is_orthogonal)

    def _text(self) -> str:
        return "V.T" if self.dual else "V"


@dataclass(frozen=True, repr=False)
class Factor(Atom):
    """The base representation of one factor of a direct product; the other factors do nothing."""

    of: DirectProduct
    index: int
    dual: bool = False

    @property
    def group(self) -> Group | None:
        """The direct product."""
        return self.of

    @property
    def dim(self) -> int:
        """Size of the factor's matrices."""
        return self.of.factors[self.index].dim

    @property
    def T(self) -> Rep:  # noqa: N802
        """The dual."""
        orthogonal = self.of.factors[self.index].is_orthogonal
        return self if orthogonal else Factor(self.of, self.index, not self.dual)

    def plain_matrix(self, g: Element) -> Tensor:
        """The factor's matrix [d, d]."""
        return g[self.index]

    def plain_generator(self, a: Element) -> Tensor:
        """The factor's matrix [d, d]."""
        return a[self.index]

    def _bound(self, group: Group) -> Rep:
        if not isinstance(group, DirectProduct) or len(group.factors) <= self.index:
            raise ValueError(
                f"{self._text()} needs a direct product of as many groups, got {group!r}"
            )
        orthogonal = group.factors[self.index].is_orthogonal
        return Factor(group, self.index, self.dual and not orthogonal)

    def _text(self) -> str:
        return f"V[{self.index}]" + (".T" if self.dual else "")


@dataclass(frozen=True, repr=False)
class Custom(Atom):
    """A representation given by a function of the group's matrices.

    Args:
        name: How it is printed.
        function: ``rho``: a base matrix [d, d] to a matrix [n, n], in torch operations.
        derivative: ``d rho``: likewise for Lie algebra elements. By default it is the derivative of
            ``rho`` at the identity along the element (paper, App. A.1.6), in forward mode.

    Raises:
        ValueError: When it is bound to a group, if ``rho`` is not square, does not map the identity
            to the identity or products to products, or ``d rho`` is not its derivative; tested on
            random elements.

    Example:
        >>> import torch
        >>> from symlearn.groups import O, Custom, V, equivariant_basis
        >>> sign = Custom("det", lambda g: torch.linalg.det(g).reshape(1, 1))
        >>> equivariant_basis((V(O(3)) ** 3) * sign(O(3))).shape  # the Levi-Civita symbol
        torch.Size([27, 1])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor] | None = None
    of: MatrixGroup | None = None
    dual: bool = False

    def __post_init__(self) -> None:
        if self.of is not None:
            _check_representation(self, self.of)

    @property
    def group(self) -> Group | None:
        """The group."""
        return self.of

    @property
    def dim(self) -> int:
        """Size of its matrices."""
        if self.of is None:
            raise ValueError(f"{self!r} has no size before it is bound to a group")
        return int(self.function(_identity(self.of)).shape[0])

    @property
    def T(self) -> Rep:  # noqa: N802
        """The dual."""
        return Custom(self.name, self.function, self.derivative, self.of, not self.dual)

    def plain_matrix(self, g: Element) -> Tensor:
        """The function of the matrix [n, n]."""
        return self.function(_one(g))

    def plain_generator(self, a: Element) -> Tensor:
        """The given derivative, or that of the function at the identity [n, n]."""
        a = _one(a)
        if self.derivative is not None:
            return self.derivative(a)
        eye = torch.eye(a.shape[0], dtype=a.dtype)
        found: Tensor = torch.func.jvp(self.function, (eye,), (a,))[1]
        return found

    def _bound(self, group: Group) -> Rep:
        if not isinstance(group, MatrixGroup):
            raise ValueError(f"{self.name} is a function of one matrix, but {group!r} has several")
        return Custom(self.name, self.function, self.derivative, group, self.dual)

    def _text(self) -> str:
        return self.name + (".T" if self.dual else "")


V = Base()
"""The base representation of a group, once bound: ``V(SO(3))``."""


def T(p: int, q: int = 0) -> Rep:  # noqa: N802
    """Tensors ``V**p * V.T**q``, to be bound to a group: ``T(2)(SO(3))``.

    Raises:
        ValueError: If p or q is not an integer of zero or more.
    """
    return V**p * V.T**q


def _one(element: Element) -> Tensor:
    if not isinstance(element, Tensor):
        raise TypeError(f"expected an element of a matrix group, one matrix, got {type(element)}")
    return element


def _identity(group: MatrixGroup) -> Tensor:
    return torch.eye(group.dim, dtype=torch.complex128 if group.is_complex else torch.float64)


def _check_representation(rep: Custom, group: MatrixGroup) -> None:
    """Test a representation given by a function, on random elements."""
    eye = rep.function(_identity(group))
    if eye.ndim != 2 or eye.shape[0] != eye.shape[1]:
        raise ValueError(f"{rep.name}: rho(g) must be a square matrix, got shape {list(eye.shape)}")
    random = torch.Generator().manual_seed(0)
    g, h = (group.sample(random).to(eye.dtype) for _ in range(2))
    faults: dict[str, tuple[Tensor, Tensor]] = {
        "rho(1) = 1": (eye, torch.eye(len(eye), dtype=eye.dtype)),
        "rho(g h) = rho(g) rho(h)": (rep.function(g @ h), rep.function(g) @ rep.function(h)),
    }
    for i, a in enumerate(group.lie):
        left = rep.function(torch.linalg.matrix_exp(a.to(eye.dtype)))
        right = torch.linalg.matrix_exp(rep.plain_generator(a))
        faults[f"rho(exp A_{i}) = exp(d rho(A_{i}))"] = (left, right)
    wrong = [
        law
        for law, (left, right) in faults.items()
        if left.shape != right.shape or not _close(left, right)
    ]
    if wrong:
        raise ValueError(
            f"{rep.name} is no representation of {group!r}: it breaks {', '.join(wrong)}"
        )


def _close(left: Tensor, right: Tensor) -> bool:
    scale = float(torch.maximum(left.abs().amax(), right.abs().amax()))
    return float((left - right).abs().amax()) <= _TOLERANCE * max(1.0, scale)
