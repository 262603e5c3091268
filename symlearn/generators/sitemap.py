"""Fixed linear maps between the sites of two grids, given by their entries.

Index letters: ``S`` input sites, ``S'`` output sites, ``K`` nonzero entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symlearn.generators.affine import DENSE_SITES


@dataclass(frozen=True)
class FixedGenerator:
    """A generator that is given, not learned: a matrix over sites, held by its nonzero entries.

    Args:
        name: Name in reports, an identifier.
        shape: Output sites S' and input sites S.
        rows: Output site of each nonzero entry.
        columns: Input site of each.
        values: Value of each.

    Raises:
        ValueError: For a name that is no identifier, entries outside of the shape, or values that
            are not finite.

    Example:
        >>> import torch
        >>> from symlearn.generators import FixedGenerator
        >>> FixedGenerator.of("ring", torch.eye(4).roll(1, 0)).columns
        (3, 0, 1, 2)
    """

    name: str
    shape: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for field in ("shape", "rows", "columns", "values"):  # lists, where it comes from JSON
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not self.name.isidentifier() or hasattr(nn.ModuleDict, self.name):
            raise ValueError(
                f"a generator is named {self.name!r}; take letters, digits and underscores, and "
                "no name of a method of nn.ModuleDict"
            )
        if not len(self.rows) == len(self.columns) == len(self.values):
            raise ValueError(f"generator {self.name!r}: rows, columns and values differ in number")
        inside = all(
            0 <= i < n
            for n, line in zip(self.shape, (self.rows, self.columns), strict=True)
            for i in line
        )
        if not inside or not all(math.isfinite(v) for v in self.values):
            raise ValueError(
                f"generator {self.name!r} has entries that are NaN, infinite or outside of a "
                f"matrix of shape {list(self.shape)}"
            )

    @classmethod
    def of(cls, name: str, matrix: Tensor) -> FixedGenerator:
        """A generator from its matrix [S', S]; zeros cost nothing.

        Raises:
            TypeError: If it is not a tensor.
            ValueError: If it is not a matrix, or as the class.
        """
        if not isinstance(matrix, Tensor):
            raise TypeError(f"generator {name!r} must be a tensor, got {type(matrix).__name__}")
        if matrix.ndim != 2:
            raise ValueError(
                f"generator {name!r} has shape {list(matrix.shape)}; give a matrix over sites"
            )
        matrix = matrix.detach().double().cpu()
        rows, columns = matrix.nonzero(as_tuple=True)
        values = matrix[rows, columns]
        height, width = matrix.shape
        return cls(name, (height, width), *(tuple(t.tolist()) for t in (rows, columns, values)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FixedGenerator:
        """Inverse of `dataclasses.asdict`."""
        return cls(**data)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Places [2, K] (row, column) and values [K], in float64."""
        places = torch.tensor([self.rows, self.columns], dtype=torch.long)
        return places, torch.tensor(self.values, dtype=torch.float64)


class SiteMap(nn.Module):
    """``y[n, c, :] = L x[n, c, :]`` for a fixed matrix L over sites.

    Where each output site reads at most one input site with weight one, as with shifts, sites are
    picked; else L is a dense matrix, and on large maps a sparse one.

    Args:
        shape: Output sites S' and input sites S.
        places: Places [2, K] of the nonzero entries, none twice.
        values: Their values [K].
        dense: Whether to build L dense for any number of sites.
        dense_up_to: Number of sites from which on it is sparse otherwise.
    """

    index: Tensor | None
    dense: Tensor | None
    places: Tensor
    values: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        places: Tensor,
        values: Tensor,
        dense: bool = False,
        dense_up_to: int = DENSE_SITES,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("values", values.double(), persistent=False)
        index = _picked(shape, places, values)
        self.identity = index is not None and torch.equal(index, torch.arange(shape[1]))
        self.register_buffer("index", index, persistent=False)
        build = index is None and (dense or max(shape) <= dense_up_to)
        self.register_buffer("dense", self.matrix() if build else None, persistent=False)

    def matrix(self) -> Tensor:
        """L as a dense matrix [S', S] in float64."""
        values = self.values.double()
        empty = values.new_zeros(self.shape)
        return empty.index_put((self.places[0], self.places[1]), values, accumulate=True)

    def power(self) -> float:
        """Mean over output sites of the squared norm of a row of L."""
        return float(self.values.double().square().sum()) / self.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, S']."""
        if self.identity:
            return x
        if self.index is not None:
            # not x[..., index]: its backward takes 20 times as long on a CPU
            return torch.cat([x, x.new_zeros(*x.shape[:2], 1)], 2).index_select(2, self.index)
        if self.dense is not None:
            return x @ self.dense.to(x).T
        matrix = torch.sparse_coo_tensor(
            self.places, self.values.to(x), self.shape, check_invariants=False
        )
        flat: Tensor = torch.sparse.mm(matrix, x.flatten(0, 1).T)
        return flat.T.reshape(*x.shape[:2], -1)


def _picked(shape: tuple[int, int], places: Tensor, values: Tensor) -> Tensor | None:
    """Input site of each output site [S'], S where there is none; None if L mixes sites."""
    if not bool((values == 1).all()) or len(places[0].unique()) < places.shape[1]:
        return None
    index = torch.full((shape[0],), shape[1])
    index[places[0]] = places[1]
    return index
