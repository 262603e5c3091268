"""Square linear maps that are applied without being formed.

They are Kronecker products, Kronecker sums and direct sums of small matrices.

Index letters: n size of a map, b columns of what it is applied to.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class LinearMap(ABC):
    """A square linear map ``x -> L x``; ``L @ x`` applies it, `dense` forms its matrix.

    Args:
        n: Size of the vectors it maps.
    """

    def __init__(self, n: int):
        self.n = n

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, both n."""
        return (self.n, self.n)

    def __matmul__(self, x: Tensor) -> Tensor:
        """Apply the map.

        Args:
            x: A vector [n], or columns [n, b].

        Returns:
            As the argument, in the larger of the two dtypes.

        Raises:
            ValueError: If the sizes do not match.
        """
        if x.ndim not in (1, 2) or x.shape[0] != self.n:
            raise ValueError(
                f"a map of size {self.n} applies to a vector [{self.n}] or to columns "
                f"[{self.n}, b], got {list(x.shape)}"
            )
        return self._matmat(x[:, None])[:, 0] if x.ndim == 1 else self._matmat(x)

    def dense(self) -> Tensor:
        """The matrix [n, n]."""
        return self._matmat(torch.eye(self.n, dtype=torch.float64))

    @abstractmethod
    def _matmat(self, x: Tensor) -> Tensor:
        """``L x`` for columns [n, b]."""


class Matrix(LinearMap):
    """A map given by its matrix [n, n]."""

    def __init__(self, matrix: Tensor):
        super().__init__(matrix.shape[0])
        self.matrix = matrix

    def _matmat(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(self.matrix.dtype, x.dtype)
        return self.matrix.to(dtype) @ x.to(dtype)


class Kron(LinearMap):
    """``L1 (x) L2 (x) ...``, with the row-major order of the axes; of nothing it is 1."""

    def __init__(self, maps: Sequence[LinearMap]):
        super().__init__(math.prod(m.n for m in maps))
        self.maps = tuple(maps)

    def _matmat(self, x: Tensor) -> Tensor:
        for axis in range(len(self.maps)):
            x = _along(self.maps, axis, x)
        return x


class KronSum(LinearMap):
    """``L1 (x) I + I (x) L2``, and so on for more factors; of nothing it is 0."""

    def __init__(self, maps: Sequence[LinearMap]):
        super().__init__(math.prod(m.n for m in maps))
        self.maps = tuple(maps)

    def _matmat(self, x: Tensor) -> Tensor:
        parts = [_along(self.maps, axis, x) for axis in range(len(self.maps))]
        return sum(parts, torch.zeros_like(x))


class DirectSum(LinearMap):
    """Maps along a diagonal, each repeated so many times."""

    def __init__(self, maps: Sequence[tuple[LinearMap, int]]):
        super().__init__(sum(m.n * count for m, count in maps))
        self.maps = tuple(maps)

    def _matmat(self, x: Tensor) -> Tensor:
        parts = x.split([m.n * count for m, count in self.maps])
        done = [
            _folded(m, part.reshape(count, m.n, -1)).reshape(part.shape)
            for (m, count), part in zip(self.maps, parts, strict=True)
        ]
        return torch.cat(done) if done else x


def _along(maps: Sequence[LinearMap], axis: int, x: Tensor) -> Tensor:
    """Apply one of the factors along its axis of columns [n1 n2 ..., b]."""
    before = math.prod(m.n for m in maps[:axis])
    return _folded(maps[axis], x.reshape(before, maps[axis].n, -1)).reshape(x.shape)


def _folded(linear: LinearMap, x: Tensor) -> Tensor:
    """Apply a map along the middle axis of a tensor [before, n, b]."""
    moved = x.movedim(1, 0)
    return (linear @ moved.reshape(linear.n, -1)).reshape(moved.shape).movedim(0, 1)
