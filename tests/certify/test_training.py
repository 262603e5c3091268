"""Training in a subspace: gradients against autograd, mistakes by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from symlearn.certify.projectors import Kronecker, Space
from symlearn.certify.quantise import quantised
from symlearn.certify.start import redraw
from symlearn.certify.subspace import FlatNetwork, film_parameters
from symlearn.certify.training import Schedule, Subspace, descend, mistakes, train_whole
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return x, torch.randint(0, 3, (n,), generator=g)


def schedule(epochs: int, rate: float) -> Schedule:
    return Schedule(epochs, rate, 16, 0, lambda: None)


def test_mistakes_by_brute_force() -> None:
    x, y = data(1203)  # several batches, the last one smaller
    network = FlatNetwork(net())
    with torch.no_grad():
        out = network.model(x)
    want = sum(int(row.argmax() != label) for row, label in zip(out, y, strict=True))
    assert mistakes(network, network.start, (x, y)) == want
    right = out.argmax(1)
    assert mistakes(network, network.start, (x, right)) == 0
    assert mistakes(network, network.start, (x, (right + 1) % 3)) == 1203
    # a NaN is never right
    x[[0, 700]] = float("nan")
    assert mistakes(network, network.start, (x, right)) == 2


@pytest.mark.parametrize("levels", [None, 3])
def test_gradients(levels: int | None) -> None:
    network = FlatNetwork(net())
    subspace = Subspace(network, Kronecker(Space(9, len(network), seed=2), torch.float64))
    x, y = data(20)
    g = torch.Generator().manual_seed(3)
    w = torch.randn(9, generator=g, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    coefficients = w * 1.0 if levels is None else quantised(w, c)
    want_loss = nn.functional.cross_entropy(
        network(network.start + subspace.projector @ coefficients, x), y
    )
    wanted = [w] if levels is None else [w, c]
    want = torch.autograd.grad(want_loss, wanted, retain_graph=True)
    assert subspace._gradient(coefficients, x, y) == pytest.approx(float(want_loss))
    for parameter, gradient in zip(wanted, want, strict=True):
        assert_near(parameter.grad, gradient)


def test_training_lowers_the_loss_and_nothing_else_moves() -> None:
    model = net()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    network = FlatNetwork(model)
    x, _ = data(200)
    y = (x[:, 0] > 0).long()
    start = mistakes(network, network.start, (x, y))
    theta = train_whole(network, (x, y), schedule(10, 0.05))
    assert mistakes(network, theta, (x, y)) < 0.2 * start
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name])
    network.put(theta)
    with torch.no_grad():
        assert_near(network.model(x), network(theta, x))


def test_rates_fall_as_a_cosine_and_batches_cover_the_data() -> None:
    rates, seen = [], []
    weight = torch.zeros(1, requires_grad=True)

    def gradient(x: torch.Tensor, y: torch.Tensor) -> float:
        seen.append(y)
        before.append(float(weight.detach()))
        weight.grad = torch.ones(1)
        return 0.0

    before: list[float] = []
    descend(gradient, [weight], (torch.zeros(64), torch.arange(64)), schedule(2, 0.1))
    before.append(float(weight.detach()))
    # Adam's steps are as long as its rate where the gradient is always the same
    rates = -torch.tensor(before).diff()
    want = 0.05 * (1 + torch.cos(torch.pi * torch.arange(8) / 8))
    torch.testing.assert_close(rates, want, rtol=1e-4, atol=1e-6)
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, torch.arange(64))


def test_a_loss_that_is_not_finite_stops() -> None:
    weight = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match="the loss became nan at learning rate 0.1"):
        descend(lambda x, y: float("nan"), [weight], data(20), schedule(1, 0.1))


def test_film_parameters_are_those_of_normalisation_and_head() -> None:
    assert film_parameters(net()) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    network = FlatNetwork(net())
    assert network.film == (*range(30, 42), *range(42, 63))


def test_fresh_weights() -> None:
    model = net().train()
    model(data(50)[0])
    redraw(model, 0)
    again = net()
    redraw(again, 0)
    for (name, t), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(t, other), name
    assert float(model[0].weight.std()) == pytest.approx((2 / 4) ** 0.5, rel=0.4)
    assert float(model[0].bias.abs().max()) == 0
    redraw(again, 1)
    assert not torch.equal(model[0].weight, again[0].weight)
