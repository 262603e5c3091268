"""How a transformation acts on a network's tensors: on maps, on tokens, or not at all.

A tensor's layout says which of its axes run over the sites of a grid. A layer measured by the Lie
derivative needs one for all its inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Action = Callable[[Tensor], Tensor]
"""A map of [..., h, w] to the same shape."""

_MOST_PREFIX_TOKENS = 8


@dataclass(frozen=True)
class Grid:
    """One or two axes of a tensor that run over the sites of a grid.

    Attributes:
        axes: The axes (rows, columns), or one axis that runs over all sites row by row.
        size: Size (h, w) of the grid.
        prefix: Leading entries of a single axis that are no sites (class and register tokens).
    """

    axes: tuple[int, ...]
    size: tuple[int, int]
    prefix: int = 0

    def apply(self, v: Tensor, action: Action, prefix: float) -> Tensor:
        """Apply an action to the sites; prefix entries are multiplied by ``prefix``."""
        if len(self.axes) == 2:
            return action(v.movedim(self.axes, (-2, -1))).movedim((-2, -1), self.axes)
        moved = v.movedim(self.axes[0], -1)
        sites = action(moved[..., self.prefix :].unflatten(-1, self.size)).flatten(-2)
        out = torch.cat([prefix * moved[..., : self.prefix], sites], -1)
        return out.movedim(-1, self.axes[0])


@dataclass(frozen=True)
class Layout:
    """The grids of a tensor [N, ...]; none for a vector, on which transformations do nothing.

    Attributes:
        grids: The grids. Attention weights [N, heads, T, T] have two.
    """

    grids: tuple[Grid, ...] = ()

    def act(self, v: Tensor, action: Action) -> Tensor:
        """Apply a group element: to one grid after the other."""
        for grid in self.grids:
            v = grid.apply(v, action, 1.0)
        return v

    def derive(self, v: Tensor, generator: Action) -> Tensor:
        """Apply a generator: the sum over grids (Leibniz' rule), zero on vectors."""
        out = torch.zeros_like(v)
        for grid in self.grids:
            out = out + grid.apply(v, generator, 0.0)
        return out

    def __str__(self) -> str:
        names = [
            f"{g.size[0]}x{g.size[1]} " + ("map" if len(g.axes) == 2 else f"tokens + {g.prefix}")
            for g in self.grids
        ]
        return ", ".join(names) or "vector"


VECTOR = Layout()
OUTPUTS = ("auto", "image", "vector")


def output_layout(y: Tensor, output: str) -> Layout:
    """Layout of a network's output.

    Args:
        y: The output [N, ...].
        output: "auto" takes [N, C, H, W] for images and all else for vectors; "image" or "vector".

    Raises:
        ValueError: For another word, or "image" for outputs that are not [N, C, H, W].
    """
    if output not in OUTPUTS:
        raise ValueError(f"unknown output {output!r}; choose one of {list(OUTPUTS)}")
    if output == "vector" or (output == "auto" and y.ndim != 4):
        return VECTOR
    if y.ndim != 4:
        raise ValueError(f"output='image' needs outputs [N, C, H, W], got {list(y.shape)}")
    return Layout((Grid((2, 3), (y.shape[2], y.shape[3])),))


class Layouts:
    """Finds the layouts of a network's tensors from their shapes.

    A map has the proportions of the image, channels first or last. Tokens are an axis as long as a
    map of the network has sites, plus up to eight leading entries that are none. The same shape
    has the same layout everywhere in a network, apart from the modules that take maps only.

    Args:
        images: Shape [N, C, H, W] of the network's input.
        maps: Shapes of the tensors that enter and leave modules which take maps only
            (convolutions, pools over two axes and the like).
        others: Shapes of all other tensors that enter and leave modules.
    """

    def __init__(
        self,
        images: torch.Size,
        maps: Iterable[torch.Size],
        others: Iterable[torch.Size],
    ) -> None:
        others = [s for s in others if s and s[0] == images[0]]
        self.n, self.size = images[0], (images[2], images[3])
        self.known = {self.size} | {(s[2], s[3]) for s in maps if len(s) == 4}
        # channels last, and no proportions of a map the other way round
        self.known |= {
            (s[1], s[2])
            for s in others
            if len(s) == 4 and self._fits((s[1], s[2])) and not self._fits((s[2], s[3]))
        }
        lengths = {s[1] for s in others if len(s) == 3}
        found = {length: self._grid_of(length) for length in lengths}
        self.tokens = {length: grid for length, grid in found.items() if grid is not None}

    def __call__(self, shape: torch.Size, takes_maps: bool = False) -> Layout | None:
        """The layout of a tensor, or None where none is found.

        Args:
            shape: Its shape.
            takes_maps: Whether it enters or leaves a module that takes maps only.
        """
        if not shape or shape[0] != self.n:
            return None
        if len(shape) == 2 or (len(shape) == 4 and shape[2] == shape[3] == 1):
            return VECTOR
        if len(shape) == 4 and (takes_maps or (shape[2], shape[3]) in self.known):
            return Layout((Grid((2, 3), (shape[2], shape[3])),))
        if len(shape) in (3, 4):
            return self._token_layout(shape) or self._map_layout(shape)
        return None

    def _token_layout(self, shape: torch.Size) -> Layout | None:
        """Tokens [N, T, C], [N, C, T], [N, heads, T, d] or [N, heads, T, T]."""
        axes = [i for i in range(1, len(shape)) if shape[i] in self.tokens]
        if len(shape) == 4:
            axes = [i for i in axes if i >= 2]
        if shape[-2] != shape[-1]:
            axes = axes[:1]  # the other one is as long by chance
        grids = tuple(Grid((axis,), *self.tokens[shape[axis]]) for axis in axes)
        return Layout(grids) if grids else None

    def _map_layout(self, shape: torch.Size) -> Layout | None:
        if len(shape) != 4:
            return VECTOR if shape[1] == 1 else None
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        fitting = [
            Layout((Grid(axes, size),))
            for axes, size in (((2, 3), first), ((1, 2), last))
            if self._fits(size)
        ]
        if last in self.known and len(fitting) == 2:
            return fitting[1]
        return fitting[0] if fitting else None

    def _fits(self, size: tuple[int, int]) -> bool:
        """Whether a map has the proportions of the image, to within a pixel."""
        (height, width), (h, w) = self.size, size
        return abs(h * width - w * height) <= max(height, width)

    def _grid_of(self, length: int) -> tuple[tuple[int, int], int] | None:
        """The largest map with as many sites, and the number of leading entries that are none."""
        fitting = [
            ((h, w), length - h * w)
            for h, w in self.known
            if h * w > 1 and 0 <= length - h * w <= _MOST_PREFIX_TOKENS
        ]
        return max(fitting, key=lambda g: g[0][0] * g[0][1]) if fitting else None
