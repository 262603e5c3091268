"""Checking that two networks are one function, and by how much they differ where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import curvature

_ROUNDINGS = 500
"""Rounding errors, relative to the largest output, by which equal networks may differ."""


class CollapseError(RuntimeError):
    """A collapsed network, or a layer of it, does not compute what the relaxed one does."""


@dataclass(frozen=True)
class Difference:
    """The largest difference between two outputs, and the size of the outputs.

    Attributes:
        error: Largest absolute difference; NaN if an output is NaN.
        tolerance: Largest difference that rounding explains.
    """

    error: float
    tolerance: float

    @property
    def explained(self) -> bool:
        """Whether rounding explains the difference; never where it is NaN or infinite."""
        return math.isfinite(self.error) and self.error <= self.tolerance

    def check(self, what: str) -> None:
        """Accept the difference, or refuse it.

        Raises:
            CollapseError: If rounding does not explain the difference, or it is NaN.
        """
        if not self.explained:
            raise CollapseError(
                f"{what} differs from the relaxed one by {self.error:.3g}, and rounding explains "
                f"{self.tolerance:.3g}. Use the relaxed network, and report this as a bug"
            )


@torch.no_grad()
def difference(first: nn.Module, second: nn.Module, inputs: Iterable[Tensor]) -> Difference:
    """Compare the outputs of two networks in eval mode.

    Args:
        first: The reference.
        second: What is to compute the same.
        inputs: Batches [N, ...].

    Raises:
        ValueError: If there is no batch, or a network returns something other than one tensor.
    """
    error, size, eps = torch.zeros(()), torch.zeros(()), 0.0
    with curvature.evaluating(first), curvature.evaluating(second):
        for x in inputs:
            wanted, got = first(x), second(x)
            if not (isinstance(wanted, Tensor) and isinstance(got, Tensor)):
                raise ValueError(
                    f"the network returns a {type(wanted).__name__}; outputs are compared where "
                    "it returns one tensor"
                )
            eps = torch.finfo(wanted.dtype).eps
            # torch.maximum keeps a NaN, max() may lose it
            error = torch.maximum(error, (wanted - got).abs().max().double().cpu())
            size = torch.maximum(size, wanted.abs().max().double().cpu())
    if not eps:
        raise ValueError("there are no inputs to compare the networks on")
    return Difference(float(error), _ROUNDINGS * eps * max(1e-3, float(size)))
