"""Dynamics of networks: Hamiltonian vector fields, rollouts, and how far these go astray.

Index letters: N trajectories, n size of a state, T times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from symlearn.datasets.pendulum import Field, canonical, check_times, hamiltonian_field
from symlearn.relaxedmlp import RelaxedBlock

__all__ = ["HamiltonianNetwork", "rollout", "rollout_error"]

_SMALLEST = 1e-7  # of a relative error, as published: its logarithm is averaged


class HamiltonianNetwork(nn.Module):
    """The vector field ``dx/dt = dH/dp, dp/dt = -dH/dx`` of an energy H that is a network.

    `symlearn.fit` takes it like a plain network, with derivatives of states as targets (Greydanus
    et al. 2019). If the network is invariant under a group of canonical transformations, the field
    is equivariant, and what belongs to the group is conserved.

    The slope of H is computed backward in training and without gradients. In eval mode, where
    curvature is measured, it is computed forward, one derivative along each axis: so each layer
    sees the derivatives as further inputs, and its weights act by products only.

    Args:
        energy: A network of `symlearn.relaxed_mlp` to one scalar.

    Raises:
        TypeError: If it is another kind of network.
        ValueError: If its output is not one scalar.

    Example:
        >>> import symlearn, torch
        >>> from symlearn.dynamics import HamiltonianNetwork
        >>> from symlearn.groups import SO, Scalar, V
        >>> energy = symlearn.relaxed_mlp(4 * V, Scalar, SO(3), width=8, depth=1)
        >>> HamiltonianNetwork(energy)(torch.randn(5, 12)).shape
        torch.Size([5, 12])
    """

    def __init__(self, energy: nn.Sequential) -> None:
        super().__init__()
        blocks = list(energy) if isinstance(energy, nn.Sequential) else [energy]
        ours = [block for block in blocks if isinstance(block, RelaxedBlock)]
        if not ours or len(ours) < len(blocks):
            raise TypeError(
                "HamiltonianNetwork takes a network of symlearn.relaxed_mlp, got "
                f"{type(energy).__name__}"
            )
        outputs = ours[-1].layer.geometry.out_channels
        if outputs != 1:
            raise ValueError(f"an energy is one scalar, the network has {outputs} outputs")
        self.energy = energy

    def forward(self, z: Tensor) -> Tensor:
        """States [N, n] to their derivatives in time [N, n]."""
        if self.training or not torch.is_grad_enabled():
            return hamiltonian_field(self.energy)(z)
        n = z.shape[1]
        along = torch.eye(n, dtype=z.dtype, device=z.device)
        tangents = [axis.expand(len(z), n) for axis in along]
        for block in cast(Iterable[RelaxedBlock], self.energy):
            z, tangents = block.with_tangents(z, tangents)
        return canonical(torch.cat(tangents, dim=1))


def rollout(
    field: Field, z: Tensor, times: Tensor, *, tolerance: float = 1e-6, method: str = "dopri5"
) -> Tensor:
    """States at some times, by torchdiffeq (Chen et al. 2018); gradients go through.

    `symlearn.datasets.rollout` needs no extra and has a method of higher order, but no gradients.

    Args:
        field: Vector field, [N, n] to [N, n]: a network, or `HamiltonianNetwork`.
        z: States at the first time [N, n].
        times: Increasing times [T].
        tolerance: Relative and absolute error of a step.
        method: One of torchdiffeq's solvers.

    Returns:
        States [N, T, n].

    Raises:
        ValueError: If times do not increase, the field is not finite, or torchdiffeq refuses.
        ModuleNotFoundError: If torchdiffeq is not installed.
    """
    check_times(times)
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ModuleNotFoundError(
            "rollouts with gradients need torchdiffeq: pip install 'symlearn-torch[ode]'"
        ) from error

    def slope(t: Tensor, states: Tensor) -> Tensor:
        found = field(states)
        if not bool(torch.isfinite(found).all()):  # the solver would halve its step for ever
            raise ValueError(f"the rollout failed: the field is not finite at t = {float(t):.3g}")
        return found

    try:
        states = odeint(slope, z, times.to(z), rtol=tolerance, atol=tolerance, method=method)
    except AssertionError as error:  # as when a step underflows
        raise ValueError(f"the rollout failed: {error}") from error
    found: Tensor = states.transpose(0, 1)
    return found


def rollout_error(found: Tensor, true: Tensor) -> Tensor:
    """Geometric mean over time of the relative error ``|z' - z| / (|z'| + |z|)``, [N].

    As in Finzi et al. (2021, Sec. 2.7.2). The first time, where both are equal, is left out.

    Args:
        found: Predicted states [N, T, n].
        true: True states [N, T, n].

    Raises:
        ValueError: If shapes differ, or there is one time only.
    """
    if found.shape != true.shape or found.ndim != 3 or found.shape[1] < 2:
        raise ValueError(
            "give predicted and true states of one shape [N, T, n] at two or more times, got "
            f"{list(found.shape)} and {list(true.shape)}"
        )
    found, true = found[:, 1:].double(), true[:, 1:].double()
    relative = (found - true).norm(dim=2) / (found.norm(dim=2) + true.norm(dim=2))
    mean: Tensor = relative.clamp_min(_SMALLEST).log().mean(1)
    return mean.exp()
