"""Tasks on vectors have the symmetry they say, and only that; their targets are the published."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from symlearn import datasets
from symlearn.datasets import VectorTask, energy, hamiltonian_field, initial_states, rollout
from symlearn.emlp import EMLP
from symlearn.groups import SO, Group, O, Scalar, V, embedded

pytestmark = pytest.mark.core

TIGHT = 1e-10
TASKS: dict[str, Callable[[], VectorTask]] = {
    "o5": lambda: datasets.o5(40),
    "scattering": lambda: datasets.scattering(40),
    **{
        f"{make.__name__}-{symmetry}": lambda make=make, symmetry=symmetry: make(
            40, symmetry=symmetry
        )
        for make in (datasets.inertia, datasets.pendulum, datasets.twist)
        for symmetry in datasets.SYMMETRIES
    },
}


def broken(task: VectorTask, group: Group, pairs: int = 6) -> float:
    """Largest relative difference of ``f(rho g x)`` and ``rho g f(x)`` on the task's own inputs."""
    assert task.target is not None
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    rep_in = task.rep_in if task.rep_in.group == group else task.rep_in(group)
    for _ in range(pairs):
        g = group.sample(random)
        moved = (rep_in.rho(g) @ task.x.T).T
        wanted = (task.rep_out(group).rho(g) @ task.y.T).T
        found = task.target(moved)
        error = float((found - wanted).detach().norm() / wanted.norm())
        assert math.isfinite(error)  # `max` would pass over NaN
        worst = max(worst, error)
    return worst


@pytest.mark.parametrize("name", [n for n in TASKS if "twist" not in n])
def test_exact_data_have_the_symmetry_and_others_do_not(name: str) -> None:
    task = TASKS[name]()
    assert task.target is not None
    assert torch.equal(task.target(task.x), task.y)
    error = broken(task, task.group)
    assert error < TIGHT if task.symmetry == "exact" else error > 1e-3, error


@pytest.mark.parametrize("name", [n for n in TASKS if "twist" in n])
def test_the_twist_has_the_symmetry_up_to_its_noise(name: str) -> None:
    task = TASKS[name]()
    assert task.target is not None
    noise = task.y - task.target(task.x)
    assert 0.08 < float(noise.std()) < 0.12
    clean = VectorTask(**{**vars(task), "y": task.target(task.x)})
    error = broken(clean, task.group)
    assert error < TIGHT if task.symmetry == "exact" else error > 1e-2, error


def test_the_check_of_a_symmetry_fails_on_nan() -> None:
    task = TASKS["o5"]()
    nan = VectorTask(**{**vars(task), "target": lambda v: task.target(v) * torch.nan})
    with pytest.raises(AssertionError):
        broken(nan, task.group)


def test_misspecified_groups_are_too_large_not_merely_wrong() -> None:
    """The data have the symmetry of a subgroup."""
    assert broken(TASKS["inertia-misspecified"](), SO(3)) < TIGHT
    assert broken(TASKS["pendulum-misspecified"](), embedded(SO(2), 3)) < TIGHT
    assert broken(TASKS["inertia-approximate"](), embedded(O(2), 3)) < TIGHT


def test_inertia_is_the_sum_over_bodies() -> None:
    x = torch.randn(3, 20, dtype=torch.float64)
    for row, found in zip(x, datasets.inertia_target(x, 0.3), strict=True):
        total = torch.zeros(3, 3, dtype=torch.float64)
        for i in range(5):
            r = row[5 + 3 * i : 8 + 3 * i]
            total += row[i] * (r @ r * torch.eye(3, dtype=torch.float64) - torch.outer(r, r))
        zz = torch.zeros(3, 3, dtype=torch.float64)
        zz[2, 2] = 1
        expected = total + 0.3 * total @ total @ zz @ total
        torch.testing.assert_close(found.reshape(3, 3), expected)


def dot(a: Tensor, b: Tensor) -> float:
    return float(a[0] * b[0] - a[1:] @ b[1:])


def test_scattering_contracts_to_products_of_momenta() -> None:
    """``L.L`` multiplied out by hand, with a = p.p' - p.p and b = q.q' - q.q."""
    x = torch.randn(4, 16, dtype=torch.float64)
    for row, found in zip(x, datasets.scattering_target(x), strict=True):
        p, p_, q, q_ = row.reshape(4, 4)
        a, b = dot(p, p_) - dot(p, p), dot(q, q_) - dot(q, q)
        expected = 2 * dot(p, q) * dot(p_, q_) + 2 * dot(p, q_) * dot(p_, q)
        expected += -2 * b * dot(p, p_) - 2 * a * dot(q, q_) + 4 * a * b
        torch.testing.assert_close(float(found), 4 * expected)


@pytest.mark.parametrize("wind", [0.0, 0.01])
def test_the_field_is_the_written_out_force(wind: float) -> None:
    z = initial_states(5, seed=3)
    x1, x2, p1, p2 = z.reshape(5, 4, 3).unbind(1)
    down = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    blown = wind * torch.tensor([-8.0, -5.0, 0.0], dtype=torch.float64)
    r1, r = x1.norm(dim=1, keepdim=True), x1 - x2
    r2 = r.norm(dim=1, keepdim=True)
    pull1, pull2 = (r1 - 1) * x1 / r1, (r2 - 1) * r / r2
    expected = torch.cat([p1, p2, -pull1 - pull2 - down + blown, pull2 - down + blown], dim=1)
    torch.testing.assert_close(hamiltonian_field(lambda v: energy(v, wind))(z), expected)


def spin(z: Tensor) -> Tensor:
    """Angular momentum about the z axis, [N]."""
    x, p = z.reshape(len(z), 2, 2, 3).unbind(1)
    return torch.linalg.cross(x, p).sum(1)[:, 2]


def test_trajectories_keep_energy_and_angular_momentum_and_run_back() -> None:
    field, z = hamiltonian_field(energy), initial_states(4)
    times = torch.linspace(0, 4, 5)
    found = rollout(field, z, times, tolerance=1e-9)
    assert found.shape == (4, 5, 12) and torch.equal(found[:, 0], z)

    for kept in (energy, spin):
        torch.testing.assert_close(kept(found[:, -1]), kept(z), rtol=1e-6, atol=1e-6)
    end = found[:, -1] * torch.tensor([1.0] * 6 + [-1.0] * 6)
    back = rollout(field, end, times, tolerance=1e-9)[:, -1]
    torch.testing.assert_close(back[:, :6], z[:, :6], rtol=1e-6, atol=1e-6)


def test_gradients_go_through_the_field_of_a_network() -> None:
    net = torch.nn.Linear(4, 1).double()
    out = hamiltonian_field(lambda z: net(z).square())(torch.randn(3, 4, dtype=torch.float64))
    out.sum().backward()
    assert net.weight.grad is not None and bool(net.weight.grad.any())


def test_a_symmetric_energy_conserves_what_noether_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hamiltonian network that turns leave alone, whatever its weights, keeps p x q along z."""
    monkeypatch.setenv("SYMLEARN_CACHE_DIR", "")
    torch.manual_seed(0)
    group = embedded(SO(2), 3)
    net = EMLP(4 * V, Scalar, group, width=3 * V + 5, depth=1).double()
    z = initial_states(2)

    def drift(energy: Callable[[Tensor], Tensor]) -> float:
        end = rollout(hamiltonian_field(energy), z, torch.tensor([0.0, 1.0]), 1e-9)[:, -1]
        assert float((end - z).abs().max()) > 1e-2
        return float((spin(end) - spin(z)).abs().max())

    assert drift(net) < 1e-6
    free = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    assert drift(free.double()) > 1e-3


@pytest.mark.parametrize("name", datasets.TABLES)
def test_tables_are_standardised_and_repeat(name: str) -> None:
    task, again = datasets.tabular(name, 1), datasets.tabular(name, 1)
    assert torch.equal(task.x, again.x) and not torch.equal(task.x, datasets.tabular(name).x)
    assert task.x.shape[1] == task.rep_in(task.group).dim
    assert task.y.shape[1] == task.rep_out.dim
    torch.testing.assert_close(task.x.std(0), torch.ones_like(task.x[0]))
    assert float(task.y.mean(0).abs().max()) < 1e-12


def test_scaling_divides_by_one_number_and_parts_share_it() -> None:
    task = datasets.inertia(60)
    train, test = task.split(40, 20)
    small = train.scaled()
    assert float(small.y.square().mean()) == pytest.approx(1.0)
    torch.testing.assert_close(test.scaled(small).y * small.scale, test.y)
    assert torch.equal(torch.cat([train.x, test.x]), task.x)
    x, y = small.pair
    assert x.dtype == y.dtype == torch.get_default_dtype()


def test_tasks_are_functions_of_their_seed() -> None:
    state = torch.get_rng_state()
    for make in (datasets.o5, datasets.inertia, datasets.scattering, datasets.twist):
        assert torch.equal(make(5, 1).x, make(5, 1).x)
        assert not torch.equal(make(5, 1).x, make(5, 2).x)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="unknown symmetry 'nearly'"):
        datasets.inertia(5, symmetry="nearly")
    with pytest.raises(ValueError, match="unknown table 'boston'"):
        datasets.tabular("boston")
    with pytest.raises(ValueError, match="one sample or more, got n=0"):
        datasets.o5(0)
    with pytest.raises(ValueError, match="wind is not zero"):
        datasets.pendulum(5, symmetry="approximate", wind=0.0)
    with pytest.raises(ValueError, match="cannot split 5 samples into parts of \\[4, 2\\]"):
        datasets.o5(5).split(4, 2)
    field = hamiltonian_field(energy)
    with pytest.raises(ValueError, match="increasing times"):
        rollout(field, initial_states(2), torch.tensor([0.0, 0.0]))
    with pytest.raises(ValueError, match="rollout failed"):
        rollout(lambda z: z * torch.nan, initial_states(2), torch.tensor([0.0, 1.0]))
