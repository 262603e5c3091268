"""Random linear maps ``P: R^d -> R^D`` with ``P^T P ~ I``, as products with vectors.

Index letters: D parameters of the network, d dimensions of the subspace, s = sqrt(D), r = sqrt(d).
Entries come from the seed alone, so a projector costs nothing to send (Finzi et al., Sec. 5.4.1).
The deviation of an entry of ``P^T P`` from the identity is of order ``D ** -DEVIATION[name]``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from curvature.checking import check_count
from symlearn.datasets.imageset import seeded

_BLOCK = 1 << 24  # numbers of a dense matrix that are held at once


@dataclass(frozen=True)
class Space:
    """What a projector maps between, and where its random numbers come from.

    Attributes:
        dim: Dimensions d of the subspace.
        size: Parameters D of the network.
        film: Positions in 0..D-1 of the parameters of normalisation layers and of the head.
        seed: Seed of the random entries.

    Raises:
        ValueError: If d or D is not a positive count.
    """

    dim: int
    size: int
    film: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("the dimension of the subspace", self.dim)
        check_count("the number of parameters", self.size)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal numbers for one purpose, float32."""
        return torch.randn(*shape, generator=seeded(self.seed, f"projector {purpose}"))


class Projector(ABC):
    """A linear map from coefficients [d] to parameters [D]; see `projector`.

    Args:
        space: What it maps between.
        dtype: Type of the products.
    """

    def __init__(self, space: Space, dtype: torch.dtype = torch.float32) -> None:
        self.space, self.dtype = space, dtype
        self._build()

    def __matmul__(self, w: Tensor) -> Tensor:
        """``P w``: coefficients [d] to parameters [D].

        Raises:
            ValueError: For another shape.
        """
        return self._matvec(self._checked(w, self.space.dim))

    def adjoint(self, v: Tensor) -> Tensor:
        """``P^T v``: parameters [D] to coefficients [d].

        Raises:
            ValueError: For another shape.
        """
        return self._adjoint(self._checked(v, self.space.size))

    def _checked(self, vector: Tensor, length: int) -> Tensor:
        if vector.shape != (length,):
            raise ValueError(
                f"a projector from {self.space.dim} to {self.space.size} numbers was given "
                f"{list(vector.shape)}; it takes [{length}] here"
            )
        return vector.to(self.dtype)

    @abstractmethod
    def _build(self) -> None: ...

    @abstractmethod
    def _matvec(self, w: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, v: Tensor) -> Tensor: ...


class Dense(Projector):
    """``P = N(0, 1)^(D x d) / sqrt(D)`` (Li et al. 2018).

    A matrix of more than 2^24 numbers is drawn anew, in blocks of rows, for every product.
    """

    def _build(self) -> None:
        self._rows = max(1, _BLOCK // self.space.dim)
        small = self.space.size <= self._rows
        self._held = list(self._drawn()) if small else None

    def _drawn(self) -> Iterator[Tensor]:
        """Blocks of rows [rows, d]."""
        for start in range(0, self.space.size, self._rows):
            rows = min(self._rows, self.space.size - start)
            block = self.space.normal(f"dense {start}", rows, self.space.dim)
            yield block.to(self.dtype) / math.sqrt(self.space.size)

    def _blocks(self) -> Iterator[Tensor]:
        return self._drawn() if self._held is None else iter(self._held)

    def _matvec(self, w: Tensor) -> Tensor:
        return torch.cat([block @ w for block in self._blocks()])

    def _adjoint(self, v: Tensor) -> Tensor:
        parts = zip(self._blocks(), v.split(self._rows), strict=True)
        return torch.stack([block.T @ part for block, part in parts]).sum(0)


class Sparse(Projector):
    """Entries ``+-D^(-1/4)`` with probability ``1 / sqrt(D)``, zero otherwise (Li et al. 2006)."""

    def _build(self) -> None:
        dim, size = self.space.dim, self.space.size
        generator = seeded(self.space.seed, "projector sparse")
        density = size**-0.5
        # a binomial number of places in each column, drawn with replacement: two entries of the
        # same place are added, which keeps mean and variance
        filled = torch.full((dim,), float(size), dtype=torch.float64)
        counts = torch.binomial(filled, torch.full_like(filled, density), generator=generator)
        columns = torch.repeat_interleave(torch.arange(dim), counts.long())
        rows = torch.randint(0, size, (len(columns),), generator=generator)
        signs = torch.randint(0, 2, (len(columns),), generator=generator) * 2.0 - 1.0
        values = (signs * size**-0.25).to(self.dtype)
        self._rows, self._columns, self._values = rows, columns, values

    def _matvec(self, w: Tensor) -> Tensor:
        out = torch.zeros(self.space.size, dtype=self.dtype)
        return out.index_add(0, self._rows, self._values * w[self._columns])

    def _adjoint(self, v: Tensor) -> Tensor:
        out = torch.zeros(self.space.dim, dtype=self.dtype)
        return out.index_add(0, self._columns, self._values * v[self._rows])


class KroneckerSum(Projector):
    """``P = (1 (x) R1 + R2 (x) 1) / sqrt(2 D)`` with ``R1, R2 = N(0, 1)^(s x d)``.

    Where D is no square, s is rounded up and the rows beyond D are left out. The image of P has no
    more than 2 s - 1 dimensions.
    """

    def _build(self) -> None:
        dim, size = self.space.dim, self.space.size
        self._side = math.isqrt(size - 1) + 1
        if dim > 2 * self._side - 1:
            raise ValueError(
                f"a Kronecker sum for {size} parameters spans at most {2 * self._side - 1} "
                f"dimensions, and {dim} are asked for; take the projector 'kronecker'"
            )
        scale = 1 / math.sqrt(2 * size)
        self._inner = self.space.normal("sum inner", self._side, dim).to(self.dtype) * scale
        self._outer = self.space.normal("sum outer", self._side, dim).to(self.dtype) * scale

    def _matvec(self, w: Tensor) -> Tensor:
        square = (self._outer @ w)[:, None] + (self._inner @ w)[None, :]
        return square.reshape(-1)[: self.space.size]

    def _adjoint(self, v: Tensor) -> Tensor:
        square = v.new_zeros(self._side**2)
        square[: len(v)] = v
        square = square.reshape(self._side, self._side)
        return self._outer.T @ square.sum(1) + self._inner.T @ square.sum(0)


class Kronecker(Projector):
    """``P = Q1 (x) Q2 / s`` with ``Q1, Q2 = N(0, 1)^(s x r)``, of ``O(sqrt(d D))`` numbers.

    Where d or D is no square, a dense block ``N(0, 1) / sqrt(rows)`` for what is left of both
    stands on the diagonal beside the product of the square parts (the footnote of Sec. 5.4.1). It
    has at least as many rows as columns: s is taken smaller where that needs it.
    """

    def _build(self) -> None:
        dim, size = self.space.dim, self.space.size
        if dim > size:
            raise ValueError(
                f"a subspace of {dim} dimensions does not fit {size} parameters; give smaller ones"
            )
        self._r = math.isqrt(dim)
        self._s = math.isqrt(size)
        left = dim - self._r**2
        while size - self._s**2 < left:
            self._s -= 1
        if self._s < self._r:  # nearly all of a small network
            self._s = self._r = 0
        rows, columns = size - self._s**2, dim - self._r**2
        scale = 1 / math.sqrt(max(self._s, 1))
        self._outer = self.space.normal("outer", self._s, self._r).to(self.dtype) * scale
        self._inner = self.space.normal("inner", self._s, self._r).to(self.dtype) * scale
        padding = self.space.normal("padding", rows, columns).to(self.dtype)
        self._padding = padding / math.sqrt(max(rows, 1))

    def _matvec(self, w: Tensor) -> Tensor:
        square = w[: self._r**2].reshape(self._r, self._r)
        product = self._outer @ square @ self._inner.T
        return torch.cat([product.reshape(-1), self._padding @ w[self._r**2 :]])

    def _adjoint(self, v: Tensor) -> Tensor:
        square = v[: self._s**2].reshape(self._s, self._s)
        product = self._outer.T @ square @ self._inner
        return torch.cat([product.reshape(-1), self._padding.T @ v[self._s**2 :]])


class Film(Projector):
    """Normalisation layers and the head alone: ``N(0, 1) / sqrt(D_film)`` in their rows.

    The paper divides by ``sqrt(D)``; with the number of rows that are not zero, ``P^T P ~ I``.
    """

    def _build(self) -> None:
        rows = len(self.space.film)
        if not rows:
            raise ValueError(
                "the network has neither normalisation layers nor a head with weights; take the "
                "projector 'kronecker'"
            )
        self._where = torch.tensor(self.space.film)
        matrix = self.space.normal("film", rows, self.space.dim).to(self.dtype)
        self._matrix = matrix / math.sqrt(rows)

    def _matvec(self, w: Tensor) -> Tensor:
        out = torch.zeros(self.space.size, dtype=self.dtype)
        out[self._where] = self._matrix @ w
        return out

    def _adjoint(self, v: Tensor) -> Tensor:
        return self._matrix.T @ v[self._where]


class FilmKronecker(Projector):
    """``P = (P_film + P_kronecker) / sqrt(2)``."""

    def _build(self) -> None:
        self._parts = (Film(self.space, self.dtype), Kronecker(self.space, self.dtype))

    def _matvec(self, w: Tensor) -> Tensor:
        film, kronecker = self._parts
        return (film @ w + kronecker @ w) / math.sqrt(2)

    def _adjoint(self, v: Tensor) -> Tensor:
        film, kronecker = self._parts
        return (film.adjoint(v) + kronecker.adjoint(v)) / math.sqrt(2)


PROJECTORS: dict[str, Callable[..., Projector]] = {
    "dense": Dense,
    "sparse": Sparse,
    "kronecker-sum": KroneckerSum,
    "kronecker": Kronecker,
    "film": Film,
    "film+kronecker": FilmKronecker,
}

DEVIATION = {"dense": 0.5, "sparse": 0.25, "kronecker-sum": 0.25, "kronecker": 0.25, "film": 0.5}
"""Exponents of the deviation of ``P^T P`` from the identity (of D_film for "film")."""
