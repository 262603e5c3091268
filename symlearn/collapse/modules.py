"""The plain modules of a collapsed layer that torch has no class for.

Index letters: ``C`` input channels, ``C'`` output channels, ``S`` input sites, ``S'`` output sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symlearn.generators.powermaps import DensePowers, PickedPowers, stacked
from symlearn.geometry import Geometry, Sizes, wrap_pad
from symlearn.paths import Path, PathSpec
from symlearn.relaxed import sum_paths
from symlearn.subsample import Align


class FactoredMap(nn.Module):
    """Two maps of sites per pair of channels (paper, Eq. 5), as batched matrix products.

        y[c', x'] = sum_c write[c', c, x'] sum_x read[c', c, x] x[c, x] + bias[c']

    Maps over a finite group are read with its elements as sites: a *field* is |G| channels. Where
    ``coordinates`` are given, a map is read and written as that many combinations of its sites:
    ``read`` acts on ``x reader`` and ``write`` on ``writer``, fixed matrices (paper, Eq. 7).

    Args:
        in_shape: Channels C and spatial size of the input.
        out_shape: Channels C' and spatial size of the output.
        channels_per_field: Of the input and of the output.
        coordinates: Combinations of the sites of an input and of an output field; None for sites.
        bias: Whether there is a bias [C'].
    """

    bias: nn.Parameter | None
    reader: Tensor | None
    writer: Tensor | None

    def __init__(
        self,
        in_shape: Sizes,
        out_shape: Sizes,
        channels_per_field: tuple[int, int] = (1, 1),
        coordinates: tuple[int | None, int | None] = (None, None),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape
        self.channels_per_field, self.coordinates = channels_per_field, coordinates
        shapes = zip((in_shape, out_shape), channels_per_field, strict=True)
        (c_in, n_in), (c_out, n_out) = [
            (shape[0] // each, each * math.prod(shape[1:])) for shape, each in shapes
        ]
        d_in, d_out = coordinates
        self.read = nn.Parameter(torch.zeros(c_out, c_in, d_in or n_in))
        self.write = nn.Parameter(torch.zeros(c_out, c_in, d_out or n_out))
        self.register_buffer("reader", None if d_in is None else torch.zeros(n_in, d_in))
        self.register_buffer("writer", None if d_out is None else torch.zeros(d_out, n_out))
        bias_values = nn.Parameter(torch.zeros(out_shape[0])) if bias else None
        self.register_parameter("bias", bias_values)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        fields = x.reshape(x.shape[0], self.read.shape[1], -1)
        if self.reader is not None:
            fields = fields @ self.reader
        hidden = torch.einsum("ncx,dcx->ndc", fields, self.read)
        out = torch.einsum("ndc,dcy->ndy", hidden, self.write)
        if self.writer is not None:
            out = out @ self.writer
        out = out.reshape(x.shape[0], *self.out_shape)
        if self.bias is None:
            return out
        return out + self.bias.reshape(-1, *[1] * (len(self.out_shape) - 1))

    def extra_repr(self) -> str:
        """Shapes, as torch's own modules print theirs."""
        return f"{list(self.in_shape)}, {list(self.out_shape)}, bias={self.bias is not None}"


class GeneratorMap(nn.Module):
    """One generator of a Lie algebra convolution: ``mix x L^T``, sites and channels on their own.

    Args:
        in_shape: Channels C and spatial size of the input.
        out_shape: Channels C' and spatial size of the output.
        rank: Rank of ``L = write read``; None for a given matrix L [S', S], which is no weight.
    """

    matrix: Tensor | None

    def __init__(self, in_shape: Sizes, out_shape: Sizes, rank: int | None) -> None:
        super().__init__()
        self.in_shape, self.out_shape, self.rank = in_shape, out_shape, rank
        n_in, n_out = math.prod(in_shape[1:]), math.prod(out_shape[1:])
        self.mix = nn.Parameter(torch.zeros(out_shape[0], in_shape[0]))
        self.register_buffer("matrix", torch.zeros(n_out, n_in) if rank is None else None)
        if rank is not None:
            self.read = nn.Parameter(torch.zeros(rank, n_in))
            self.write = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        flat = x.flatten(2)
        if self.matrix is not None:
            out = self.mix @ (flat @ self.matrix.T)
        else:
            out = self.mix @ (flat @ self.read.T) @ self.write.T
        return out.reshape(x.shape[0], *self.out_shape)

    def extra_repr(self) -> str:
        """Shapes, as torch's own modules print theirs."""
        return f"{list(self.in_shape)}, {list(self.out_shape)}, rank={self.rank}"


class PowerMap(nn.Module):
    """A power series of base matrices: ``mix`` times the stacked products of their powers.

    Args:
        in_shape: Channels C and spatial size of the input.
        out_shape: Channels C' and spatial size of the output.
        bases: For each base matrix whether its powers are sites to pick (True) or matrices.
        powers: Number P of powers of each.
        zero: Place of the identity among them.
        picks: Whether output sites are picked from the input's, or the same.
    """

    picked: Tensor | None

    def __init__(
        self,
        in_shape: Sizes,
        out_shape: Sizes,
        bases: tuple[bool, ...],
        powers: int,
        zero: int,
        picks: bool,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape
        self.bases, self.powers, self.zero, self.picks = bases, powers, zero, picks
        sites = math.prod(in_shape[1:])
        self.series = nn.ModuleList()
        for picking in bases:
            if picking:
                index = torch.zeros(powers, sites, dtype=torch.long)
                self.series.append(PickedPowers(index, persistent=True))
            else:
                matrices = torch.zeros(powers - 1, sites, sites)
                self.series.append(DensePowers(matrices, zero, persistent=True))
        # the site behind the last one is zero, as padding is
        picked = torch.zeros(math.prod(out_shape[1:]), dtype=torch.long) if picks else None
        self.register_buffer("picked", picked)
        self.mix = nn.Parameter(torch.zeros(out_shape[0], in_shape[0] * powers ** len(bases)))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        moved = stacked(x.flatten(2), self.series).flatten(1, 2)
        if self.picked is not None:
            moved = torch.cat([moved, moved.new_zeros(*moved.shape[:2], 1)], 2)[..., self.picked]
        return (self.mix @ moved).reshape(x.shape[0], *self.out_shape)

    def extra_repr(self) -> str:
        """Shapes, as torch's own modules print theirs."""
        return f"{list(self.in_shape)}, {list(self.out_shape)}, powers={self.powers}"


class ConstantMap(nn.Module):
    """A layer that has lost all its paths: its bias at every site, whatever the input.

    Args:
        out_shape: Channels C' and spatial size of the output.
        bias: Whether there is a bias [C']; zeros otherwise.
    """

    bias: nn.Parameter | None

    def __init__(self, out_shape: Sizes, bias: bool = True) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_shape[0])) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out = x.new_zeros(x.shape[0], *self.out_shape)
        return out if self.bias is None else out + self.bias.reshape(-1, *[1] * (out.ndim - 2))

    def extra_repr(self) -> str:
        """Shapes, as torch's own modules print theirs."""
        return f"{list(self.out_shape)}, bias={self.bias is not None}"


class MapSum(nn.ModuleDict):
    """The sum of named maps of the same input."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        first, *others = self.values()
        out: Tensor = first(x)
        for part in others:
            out = out + part(x)
        return out


class CircularConv(nn.Module):
    """A convolution that wraps around, on the sampling grid chosen for each sample.

    Args:
        conv: The convolution, unpadded and without bias.
        geometry: Geometry of the layer.
        align: Chooses the grid, or None for the fixed one.
        bias: Whether there is a bias [C'].
    """

    bias: nn.Parameter | None

    def __init__(
        self, conv: nn.Module, geometry: Geometry, align: Align | None, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv, self.geometry, self.align = conv, geometry, align
        values = nn.Parameter(torch.zeros(geometry.out_channels)) if bias else None
        self.register_parameter("bias", values)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        grid = x if self.align is None else self.align(x, self._dense)
        out: Tensor = self.conv(wrap_pad(grid, self.geometry.circular_pads()))
        out = out if self.align is None else self.align.restore(out)
        return out if self.bias is None else out + self.bias.reshape(-1, *[1] * (x.ndim - 2))

    def _dense(self, x: Tensor) -> Tensor:
        """The convolution at stride one, without bias: all sampling grids at once."""
        geo = self.geometry.at_stride_one()
        none, weight = (0,) * len(geo.in_size), self.conv.get_parameter("weight")
        x = wrap_pad(x, geo.circular_pads())
        return torch.convolution(
            x, weight, None, geo.stride, none, geo.dilation, False, none, geo.groups
        )


class KeptPaths(nn.Module):
    """Paths that have no plain form, as they are: their sum, strict ones on each sample's grid.

    Args:
        geometry: Geometry of the layer.
        specs: The paths.
        align: Chooses the grid, or None.
    """

    def __init__(self, geometry: Geometry, specs: Sequence[PathSpec], align: Align | None) -> None:
        super().__init__()
        self.geometry, self.specs, self.align = geometry, tuple(specs), align
        self.paths = nn.ModuleList([spec.build(geometry) for spec in specs])

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        return sum_paths(x, [p for p in self.paths if isinstance(p, Path)], self.align)
