"""Hamiltonian networks have the curvature of their outputs; rollouts agree and carry gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import curvature
import symlearn
from symlearn import datasets
from symlearn.dynamics import HamiltonianNetwork, rollout, rollout_error
from symlearn.groups import SO, Scalar, V, embedded
from tests.conftest import need

TURNS = embedded(SO(2), 3)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(**options: object) -> HamiltonianNetwork:
    options = {"width": 3 + 2 * V, "depth": 1, "start": "fresh", **options}
    energy = symlearn.relaxed_mlp(4 * V, Scalar, TURNS, **options)  # type: ignore[arg-type]
    return HamiltonianNetwork(energy)


@pytest.mark.core
@pytest.mark.parametrize("depth", [0, 1])
def test_forward_and_backward_derivatives_agree(depth: int) -> None:
    net, z = network(depth=depth), torch.randn(5, 12)
    backward, forward = net.train()(z), net.eval()(z)
    assert bool(backward.any()) and forward.requires_grad
    torch.testing.assert_close(forward, backward)
    for found, wanted in zip(
        torch.autograd.grad(forward.square().sum(), list(net.parameters()), allow_unused=True),
        torch.autograd.grad(backward.square().sum(), list(net.parameters()), allow_unused=True),
        strict=True,
    ):
        assert (found is None) == (wanted is None)
        assert found is None or torch.allclose(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(net(z), backward.detach())


@pytest.mark.core
def test_its_curvature_is_exact_where_it_can_be() -> None:
    """Strict paths and contractions have the exact block, the free path the exact trace."""
    net = network()
    data = torch.randn(6, 12), torch.randn(6, 12)
    found = curvature.kronecker(net, data, "gaussian", ekfac=True)
    full, start = curvature.dense_ggn(net, data, "gaussian"), 0
    for name, parameter in net.named_parameters():
        end = start + parameter.numel()
        block, wanted = found[name].to_dense(), full[start:end, start:end]
        assert float(wanted.trace()) > 1e-3
        if "fc" in name:
            torch.testing.assert_close(block.trace(), wanted.trace())
        else:
            torch.testing.assert_close(block, wanted)
        start = end
    assert start == len(full)


@pytest.mark.core
def test_a_fit_of_an_energy(tmp_path: Path) -> None:
    task = datasets.pendulum(40, seconds=2)
    net = network(start="strict")
    config = symlearn.FitConfig(
        **{"epochs": 6, "likelihood": "gaussian", "noise": 0.3, "challenge_epochs": 1},
        **{"check_images": 0, "progress": False},
    )
    result = symlearn.fit(net, task.scaled().pair, config)
    assert [layer.name for layer in result.report] == ["energy.0.layer", "energy.1.layer"]
    assert math.isfinite(result.log_evidence)
    plain, z = result.collapse(), task.pair[0]
    assert not any(isinstance(m, symlearn.RelaxedLayer) for m in plain.modules())
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            torch.testing.assert_close(plain(z), result.model(z))
    result.save(tmp_path)
    again = symlearn.load(tmp_path, network(start="strict", seed=1))
    assert torch.equal(again.model(z), result.model(z))


@pytest.mark.core
def test_bad_networks_and_bad_states() -> None:
    with pytest.raises(TypeError, match=r"takes a network of symlearn.relaxed_mlp, got Linear"):
        HamiltonianNetwork(torch.nn.Linear(12, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got Sequential"):
        HamiltonianNetwork(torch.nn.Sequential(torch.nn.Linear(12, 1)))
    with pytest.raises(ValueError, match="an energy is one scalar, the network has 3 outputs"):
        HamiltonianNetwork(symlearn.relaxed_mlp(4 * V, V, TURNS, depth=0))
    with pytest.raises(ValueError, match=r"got \[1, 1, 2\] and \[1, 1, 2\]"):
        rollout_error(torch.ones(1, 1, 2), torch.ones(1, 1, 2))


@pytest.mark.core
def test_without_torchdiffeq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'symlearn-torch\[ode\]'"):
        rollout(lambda z: z, torch.ones(1, 2), torch.tensor([0.0, 1.0]))


@pytest.mark.core
def test_rollout_errors_are_geometric_means() -> None:
    true = torch.randn(3, 4, 6)
    # |z' - z| / (|z'| + |z|) of z' = (1 + e) z is e / (2 + e)
    size = torch.tensor([0.5, 0.1, 0.02, 0.3])
    found = true * (1 + size[None, :, None])
    relative = (size / (2 + size))[1:]
    torch.testing.assert_close(rollout_error(found, true), relative.prod().pow(1 / 3).expand(3))
    assert float(rollout_error(true, true)[0]) == pytest.approx(1e-7)
    assert bool(rollout_error(true * math.nan, true).isnan().all())


def test_rollouts_agree_with_scipy_and_carry_gradients() -> None:
    need("torchdiffeq")
    field = datasets.hamiltonian_field(datasets.energy)
    z, times = datasets.initial_states(3), torch.linspace(0, 2, 5)
    found = rollout(field, z, times, tolerance=1e-9)
    wanted = datasets.rollout(field, z, times, tolerance=1e-11)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)

    # z' = a z: z(1) = exp(a) z, whose derivative by a is itself
    rate = torch.tensor(0.3, requires_grad=True)
    end = rollout(lambda v: rate * v, torch.ones(1, 2), torch.tensor([0.0, 1.0]), tolerance=1e-9)
    (slope,) = torch.autograd.grad(end[0, -1, 0], rate)
    assert float(slope) == pytest.approx(math.exp(0.3), rel=1e-6)

    net = network().train()
    rollout(net, z, times[:2]).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_rollouts_that_fail() -> None:
    need("torchdiffeq")
    z, times = torch.ones(1, 2), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="the field is not finite at t = 0"):
        rollout(lambda v: v * torch.nan, z, times)
    with pytest.raises(ValueError, match="increasing times"):
        rollout(lambda v: v, z, times.flip(0))
    with pytest.raises(ValueError, match='Invalid method "leapfrog"'):
        rollout(lambda v: v, z, times, method="leapfrog")
