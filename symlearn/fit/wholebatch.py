"""A network on some rows of a batch, as if it saw the whole batch.

Most modules treat samples one by one; batch normalisation in training does not, and neither do
random numbers, of which a process that sees fewer samples would draw fewer. In this context batch
statistics are those of all rows, and each row has the random numbers that it has in the whole
batch, so that a step does not depend on how many processes share it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from curvature import Reduction
from curvature.reduce import Share

_ROWWISE = {
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(F.rrelu, torch.rand_like, torch.randn_like, torch.bernoulli),
}
"""Functions of a tensor that draw random numbers for each of its elements, or rows."""

_FACTORIES = {torch.rand, torch.randn}
"""Functions of a shape; a first axis as long as there are rows is taken to be the samples'."""


_HANDLED = {F.batch_norm, *_ROWWISE, *_FACTORIES}


def whole_batch(share: Share, processes: Reduction) -> AbstractContextManager[object]:
    """The context in which a network computes on its share of a batch."""
    return nullcontext() if processes.size == 1 else _WholeBatch(share, processes)


class _WholeBatch(TorchFunctionMode):
    def __init__(self, share: Share, processes: Reduction) -> None:
        super().__init__()
        self.share, self.processes = share, processes
        self._rows = share.stop - share.start

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _HANDLED:
            return func(*args, **kwargs)
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _ROWWISE and self._of_rows(args[0].shape):
            return self._rowwise(func, *args, **kwargs)
        if func in _FACTORIES:
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            if len(shape) and shape[0] == self._rows:
                return self.share.of(func(self.share.whole(shape), **kwargs))
        return func(*args, **kwargs)

    def _of_rows(self, shape: torch.Size) -> bool:
        """Whether the first axis is the samples', each perhaps several times."""
        return len(shape) > 0 and shape[0] % self._rows == 0

    def _rowwise(self, func: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        share, times = self.share, len(x) // self._rows
        before, after = share.start * times, (share.total - share.stop) * times
        whole = F.pad(x, [0, 0] * (x.ndim - 1) + [before, after])
        return func(whole, *args, **kwargs)[before : before + len(x)]

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            stored = (running_mean, running_var, weight, bias, False, momentum, eps)
            return F.batch_norm(x, *stored)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = x.numel() // x.shape[1] // self._rows * self.share.total
        if count == 1:
            raise ValueError("batch normalisation in training needs several values per channel")
        wide = x.double() * self.share.counted
        moments = torch.stack([wide.sum(axes), wide.square().sum(axes)])
        mean, square = _Sum.apply(moments, self.processes) / count
        var = (square - mean.square()).clamp(min=0)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        scale = (var + eps).rsqrt().to(x.dtype).view(shape)
        scale = scale if weight is None else scale * weight.view(shape)
        found: Tensor = (x - mean.to(x.dtype).view(shape)) * scale
        return found if bias is None else found + bias.view(shape)


class _Sum(torch.autograd.Function):
    """Sum over processes; each process's loss depends on it, so that gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Reduction) -> Tensor:
        ctx.processes, total = processes, x.clone()
        processes.sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        total = g.clone()
        ctx.processes.sum(total)
        return total, None
