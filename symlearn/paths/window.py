"""What convolution-like paths share: one weight that meets patches of the map."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry, wrap_pad
from symlearn.paths.base import Path, normal_


class WindowPath(Path):
    """A path whose map is a module with one weight, linear in it, on circularly padded maps.

    In a circular layer the input is padded circularly here and the module sees it unpadded, so that
    its curvature rule sees the patches that are really used.

    Args:
        geometry: Shapes of the layer.
        conv: The module, with a parameter ``weight``.
    """

    reads_aligned = True

    def __init__(self, geometry: Geometry, conv: nn.Module) -> None:
        super().__init__(geometry)
        self.conv = conv
        self._pads = geometry.circular_pads() if geometry.circular else []

    @abstractmethod
    def _std(self) -> float:
        """Size of the filters' values that is He's, and of the weight that they are drawn from."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.conv(wrap_pad(x, self._pads))
        return out

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Gaussian weights, with filters of He's size over the window and a group's channels."""
        normal_(self.tested(), self._std(), generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All filters zero."""
        nn.init.zeros_(self.tested())

    def tested(self) -> Tensor:
        """The weight of the filters."""
        # not get_parameter: within functional_call it is a plain tensor
        weight: Tensor = cast(Any, self.conv).weight
        return weight

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Filters at zero."""
        nn.init.zeros_(self.tested())

    def seed(self, descent: Tensor, size: float) -> None:
        """Filters along the descent direction, at a fraction of the initial size."""
        self.set_along(self.tested(), descent, size * self._std())
