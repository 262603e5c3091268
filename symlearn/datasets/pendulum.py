"""Two masses in space, hung from each other by springs: Hamiltonian dynamics with a symmetry axis.

Finzi, Welling and Wilson (2021, App. A.1.10 in Finzi's thesis), with the wind of App. A.2.3.1. A
state z is x1, x2, p1, p2, positions and momenta in space, [N, 12]. All masses, springs' constants
and rest lengths are one, and gravity pulls along -z.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from symlearn.datasets.imageset import seeded
from symlearn.datasets.vectors import VectorTask, check_symmetry
from symlearn.groups import SO, O, V, embedded

Field = Callable[[Tensor], Tensor]

_WIND = (-8.0, -5.0, 0.0)
_TOLERANCE = 2e-6  # as published


def energy(z: Tensor, wind: float = 0.0) -> Tensor:
    """The Hamiltonian, [N, 12] to [N].

    Without wind it is invariant under rotations about the z axis and reflections that keep it.

    Args:
        z: States.
        wind: Strength of a constant force along (-8, -5, 0); published: 0.01.
    """
    x1, x2, p1, p2 = z.reshape(len(z), 4, 3).unbind(1)
    springs = (x1.norm(dim=1) - 1).square() + ((x1 - x2).norm(dim=1) - 1).square()
    kinetic = p1.square().sum(1) + p2.square().sum(1)
    both = x1 + x2
    found: Tensor = (springs + kinetic) / 2 + both[:, 2] - wind * both @ both.new_tensor(_WIND)
    return found


def hamiltonian_field(energy: Callable[[Tensor], Tensor]) -> Field:
    """The vector field ``dx/dt = dH/dp, dp/dt = -dH/dx`` of an energy H.

    Args:
        energy: States [N, 2d] to energies [N] or [N, 1]: `energy`, or a network (Greydanus et al.
            2019). Gradients go through.
    """

    def field(z: Tensor) -> Tensor:
        building = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(z).sum(), z, create_graph=building)
        return canonical(slope)

    return field


def canonical(slope: Tensor) -> Tensor:
    """``J grad H``, [N, 2d] of the slope [N, 2d] of an energy along x and p."""
    by_x, by_p = slope.chunk(2, dim=1)
    return torch.cat([by_p, -by_x], dim=1)


def rollout(field: Field, z: Tensor, times: Tensor, tolerance: float = _TOLERANCE) -> Tensor:
    """States at some times, by an adaptive Runge-Kutta method of order 8; no gradients.

    `symlearn.dynamics.rollout` has gradients.

    Args:
        field: Vector field, [N, n] to [N, n].
        z: States at the first time [N, n].
        times: Increasing times [T].
        tolerance: Relative and absolute error of a step.

    Returns:
        States [N, T, n].

    Raises:
        ValueError: If times do not increase, or the method fails, as for a field that is not
            finite.
    """
    check_times(times)

    def derivative(t: float, flat: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            states = torch.from_numpy(flat).reshape(z.shape).to(z)
            slope: np.ndarray = field(states).double().cpu().numpy().reshape(-1)
        if not np.isfinite(slope).all():  # the solver would halve its step for ever
            raise ValueError(f"the rollout failed: the field is not finite at t = {t:.3g}")
        return slope

    start = z.detach().double().cpu().numpy().reshape(-1)
    ends = (float(times[0]), float(times[-1]))
    at = times.double().numpy()
    found = solve_ivp(derivative, ends, start, "DOP853", at, rtol=tolerance, atol=tolerance)
    if not found.success:
        raise ValueError(f"the rollout failed: {found.message}")
    return torch.from_numpy(found.y.T.copy()).reshape(len(at), *z.shape).transpose(0, 1).to(z)


def check_times(times: Tensor) -> None:
    """Check the times of a rollout.

    Raises:
        ValueError: If there are fewer than two, or they do not increase.
    """
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError(f"give two or more increasing times, got {times.tolist()}")


def initial_states(n: int, seed: int = 0) -> Tensor:
    """Random states near rest, [n, 12]."""
    noise = torch.randn(n, 12, generator=seeded(seed, "pendulum"), dtype=torch.float64)
    spread = torch.tensor([0.2] * 6 + [0.4] * 6, dtype=torch.float64)
    mean = torch.zeros(12, dtype=torch.float64)
    mean[2], mean[5] = -1.5, -3.0
    return mean + spread * noise


def pendulum(
    n: int, seed: int = 0, *, symmetry: str = "exact", wind: float = 0.01, seconds: float = 30.0
) -> VectorTask:
    """The vector field of the pendulum at states along its trajectories, vectors to vectors.

    Each sample is the state of a trajectory of its own at a random time, with its derivative. The
    group acts on the x and y axes: O(2). The approximate data have wind; the misspecified group is
    SO(3), which gravity breaks.

    Args:
        n: Samples.
        seed: Of initial states and times.
        symmetry: One of `symlearn.datasets.SYMMETRIES`.
        wind: Strength of the wind in approximate data.
        seconds: Length of the trajectories.

    Raises:
        ValueError: For another symmetry, or a wind that is zero.
    """
    check_symmetry(symmetry)
    if not wind or not seconds > 0:
        raise ValueError(f"wind is not zero, and seconds are positive, got {wind} and {seconds}")
    strength = wind if symmetry == "approximate" else 0.0
    field = hamiltonian_field(lambda z: energy(z, strength))
    times = torch.linspace(0, seconds, 301, dtype=torch.float64)
    states = rollout(field, initial_states(n, seed), times)
    chosen = torch.randint(len(times), (n,), generator=seeded(seed, "pendulum times"))
    x = states[torch.arange(n), chosen]
    group = SO(3) if symmetry == "misspecified" else embedded(O(2), 3)
    name = f"pendulum-{symmetry}"
    return VectorTask(name, x, field(x).detach(), 4 * V, 4 * V, group, symmetry, field)
