"""The published construction of the F-FC layer, rebuilt from its description in plain torch.

Each of the layer's two maps is an ordinary linear layer on an input that is written as a matrix
with the channels along a diagonal (Learning Layer-wise Equivariances, App. C.1): ``theta2
[C', C S]`` times ``x [C S, C]``, then ``theta1 [S', C' C]`` times the hidden values ``[C' C, C']``.
All but one in C (or C') of the matrix's numbers are zero. Index letters as in `symlearn.paths.ffc`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry
from symlearn.paths.ffc import FFC, FFCPath


def along_diagonal(x: Tensor) -> Tensor:
    """Rows [N, B, I] as [N, B, B I]: row b holds its I numbers in block b, and zeros elsewhere."""
    return torch.diag_embed(x.transpose(1, 2), dim1=1, dim2=2).flatten(2)


class PublishedFFC(nn.Module):
    """F-FC by two linear layers on expanded inputs, with the weights of a path.

    Args:
        path: The path whose map it is to compute.
    """

    def __init__(self, path: FFCPath) -> None:
        super().__init__()
        geometry = path.geometry
        self.out_size = geometry.out_size
        c_out, c_in = geometry.out_channels, geometry.in_channels
        self.read = nn.Linear(c_in * geometry.in_sites, c_out, bias=False)
        self.write = nn.Linear(c_out * c_in, geometry.out_sites, bias=False)
        self.to(path.theta1.weight.dtype)
        with torch.no_grad():
            self.read.weight.copy_(path.theta2.weight.flatten(1))
            self.write.weight.copy_(path.theta1.weight.flatten(0, 1).T)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        hidden = self.read(along_diagonal(x.flatten(2)))
        out: Tensor = self.write(along_diagonal(hidden.transpose(1, 2)))
        return out.reshape(*out.shape[:2], *self.out_size)


class EinsumFFC(nn.Module):
    """F-FC as two einsums, with the weights of a path (copied).

    Args:
        path: The path whose map it is to compute.
    """

    def __init__(self, path: FFCPath) -> None:
        super().__init__()
        self.out_size = path.geometry.out_size
        self.theta1 = nn.Parameter(path.theta1.weight.detach().clone())
        self.theta2 = nn.Parameter(path.theta2.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        hidden = torch.einsum("ncx,dcx->ndc", x.flatten(2), self.theta2)
        out = torch.einsum("ndc,dcy->ndy", hidden, self.theta1)
        return out.reshape(*out.shape[:2], *self.out_size)


def ffc_path(channels: int, size: int, seed: int = 0) -> FFCPath:
    """A random path between maps of ``channels`` channels and ``size x size`` sites."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    path = FFC().build(Geometry.of(conv, (size, size), (size, size)))
    path.reset_parameters(torch.Generator().manual_seed(seed))
    return path
