"""The primitive of factored paths: one small linear map per block, and its Kronecker rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import curvature


class BlockLinear(nn.Module):
    """``out[n, b, :] = W[b] @ in[n, b, :]`` with ``W [B, O, I]`` stored in any axis order.

    Two batched matrix products on strided views: no block-diagonal matrix is ever built.

    Args:
        shape: Shape of the stored weight, three axes.
        order: Axes of the stored weight that are B, O and I.
        samples_last: Memory layout of the result: the samples next to each other, or the outputs.
            It is a matter of speed only.

    Example:
        >>> import torch
        >>> layer = BlockLinear((5, 3, 4), order=(1, 0, 2))  # stored [O=5, B=3, I=4]
        >>> layer(torch.randn(2, 3, 4)).shape
        torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        order: tuple[int, int, int],
        samples_last: bool = False,
    ) -> None:
        super().__init__()
        self.order, self.samples_last = order, samples_last
        self.weight = nn.Parameter(torch.zeros(shape))

    def blocks(self) -> Tensor:
        """The weight as a view [B, O, I]."""
        return self.weight.permute(self.order)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, B, I] to [N, B, O]."""
        if self.samples_last:
            return torch.bmm(self.blocks(), x.permute(1, 2, 0)).permute(2, 0, 1)
        return torch.bmm(x.transpose(0, 1), self.blocks().transpose(1, 2)).transpose(0, 1)


@curvature.register_rule(BlockLinear)
class BlockLinearRule(curvature.Rule):
    """Every block sees its own input once per sample: R = 1, one pair of factors per block."""

    bias = None

    def inputs(self, module: nn.Module, x: Tensor) -> Tensor:
        """[N, B, I] as [N, 1, B, I]."""
        return x.unsqueeze(1)

    def grads(self, module: nn.Module, g: Tensor) -> Tensor:
        """[N, B, O] as [N, 1, B, O]."""
        return g.unsqueeze(1)

    def to_blocks(self, weight: Tensor) -> Tensor:
        """The stored weight permuted to [B, O, I]."""
        return weight.permute(self.module.order)
