"""Networks that are equivariant under a matrix group, and a check that users can call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from symlearn.emlp.layers import (
    BilinearContraction,
    EquivariantLinear,
    GatedNonlinearity,
    gated,
    uniform,
)
from symlearn.groups import Group, Rep, V

_BILINEAR = 0.1  # as published: contractions start small beside the linear part


class EMLPNonlinearity(nn.Module):
    """Contractions added to the input, and gates (Finzi et al. 2021, Fig. 2.4).

    Args:
        rep: Representation of the output; the input is of `gated`.
    """

    def __init__(self, rep: Rep):
        super().__init__()
        self.bilinear = BilinearContraction(gated(rep))
        self.gates = GatedNonlinearity(rep)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [..., dim + gates] to vectors [..., dim]."""
        out: Tensor = self.gates(x + _BILINEAR * self.bilinear(x))
        return out


class EMLPBlock(nn.Sequential):
    """A linear map, contractions added to it, and gates (Finzi et al. 2021, Fig. 2.4).

    Args:
        rep_in: Representation of the input.
        rep_out: Representation of the output.
    """

    def __init__(self, rep_in: Rep, rep_out: Rep):
        super().__init__(EquivariantLinear(rep_in, gated(rep_out)), EMLPNonlinearity(rep_out))


class EMLP(nn.Sequential):
    """An equivariant multilayer perceptron.

    Args:
        rep_in: Representation of the input; bound to the group if it is not yet.
        rep_out: Representation of the output.
        group: The group.
        width: Channels of a hidden layer, or its representation.
        depth: Number of hidden layers.

    Raises:
        ValueError: If depth is negative, or a representation belongs to another group.

    Example:
        >>> import torch
        >>> from symlearn.emlp import EMLP, assert_equivariant
        >>> from symlearn.groups import O, Scalar, V
        >>> net = EMLP(2 * V, Scalar, O(3), width=24, depth=1)
        >>> net(torch.randn(5, 6)).shape
        torch.Size([5, 1])
        >>> assert_equivariant(net, 2 * V(O(3)), Scalar, group=O(3))
    """

    def __init__(
        self, rep_in: Rep, rep_out: Rep, group: Group, width: int | Rep = 384, depth: int = 3
    ):
        if depth < 0:
            raise ValueError(f"depth is the number of hidden layers, got {depth}")
        hidden = width(group) if isinstance(width, Rep) else uniform(width, V(group))
        reps = [rep_in(group), *[hidden] * depth]
        blocks: list[nn.Module] = [EMLPBlock(a, b) for a, b in zip(reps, reps[1:], strict=False)]
        super().__init__(*blocks, EquivariantLinear(reps[-1], rep_out(group)))


def assert_equivariant(
    function: Callable[[Tensor], Tensor],
    rep_in: Rep,
    rep_out: Rep,
    *,
    group: Group | None = None,
    tolerance: float = 1e-4,
    samples: int = 8,
    seed: int = 0,
) -> None:
    """Check ``f(rho_in(g) x) = rho_out(g) f(x)`` for random x and group elements g.

    Args:
        function: Maps vectors [N, dim_in] to vectors [N, dim_out].
        rep_in: Representation of the input.
        rep_out: Representation of the output.
        group: The group; by default that of the representations.
        tolerance: Largest norm of the difference over that of the outputs.
        samples: Number of pairs of x and g.
        seed: Of the random numbers.

    Raises:
        AssertionError: If a pair differs by more, or the function returns NaN.
        ValueError: If there is no group.
    """
    group = group or rep_in.group or rep_out.group
    if group is None:
        raise ValueError("give the group: neither representation is bound to one")
    random = torch.Generator().manual_seed(seed)
    for i in range(samples):
        g = group.sample(random)
        x = torch.randn(4, rep_in.dim, generator=random, dtype=torch.float64)
        moved = (rep_in.rho(g) @ x.T).T
        dtype = torch.get_default_dtype()
        with torch.no_grad():
            y, y_moved = function(x.to(dtype)).double(), function(moved.to(dtype)).double()
        expected = (rep_out.rho(g) @ y.T).T
        scale = torch.maximum(expected.norm(), y_moved.norm()).clamp_min(1e-12)
        error = float((y_moved - expected).norm() / scale)
        if not error <= tolerance:  # NaN fails
            raise AssertionError(
                f"not equivariant under {group!r}: pair {i} differs by {error:.2e} of the outputs' "
                f"norm, tolerance {tolerance:.0e}"
            )
