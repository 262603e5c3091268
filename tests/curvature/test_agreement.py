"""Weights that reach the outputs by another way than their modules' calls are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
import symlearn
from symlearn.dynamics import HamiltonianNetwork
from symlearn.groups import SO, Scalar, V
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_cnn

pytestmark = pytest.mark.core


class Slope(nn.Module):
    """The gradient of an energy, by differentiating inside of the forward pass."""

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            return torch.autograd.grad(self.energy(z).sum(), z, create_graph=True)[0]


class ReadTwice(nn.Module):
    """A layer whose weight is also read beside its call."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.first, self.second, self.share = nn.Linear(4, 4), nn.Linear(4, 2), share

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.second(x + self.share * (x @ self.first.weight))
        return out


def inputs(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def energy() -> nn.Sequential:
    return symlearn.relaxed_mlp(4 * V, Scalar, SO(3), width=8)


def test_a_network_that_differentiates_inside_is_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"'energy.0.weight', 'energy.2.weight'\] in another way"):
        curvature.check_rules(Slope(plain), inputs(4))
    config = symlearn.FitConfig(epochs=1, likelihood="gaussian")
    with pytest.raises(ValueError, match="in another way"):
        symlearn.fit(Slope(energy()), (inputs(12), inputs(12)), config)


def test_only_what_is_read_elsewhere_is_named() -> None:
    with pytest.raises(ValueError, match=r"depend on \['first.weight'\] in another way"):
        curvature.check_rules(ReadTwice(0.5), inputs(4))
    curvature.check_rules(ReadTwice(0.0), inputs(4))
    frozen = ReadTwice(0.5)
    frozen.first.weight.requires_grad_(False)
    curvature.check_rules(frozen, inputs(4))


def test_weights_that_are_not_finite_do_not_pass() -> None:
    net = nn.Linear(4, 2)
    nn.init.constant_(net.weight, float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        curvature.check_rules(net, inputs(4))


def reused() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.Linear(4, 2))


def relaxed(*paths: str) -> nn.Module:
    example = torch.zeros(2, 1, 8, 8)
    model = symlearn.wrap(tiny_cnn(), example, paths=paths, boundary="circular", init="fresh")
    for layer in relaxed_layers(model).values():
        for path in layer.named_paths().values():
            path.reset_parameters(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (reused, (4,)),
        (tiny_cnn, (1, 8, 8)),
        (lambda: relaxed("conv", "ffc"), (1, 8, 8)),
        (lambda: relaxed("sconv", "sfc"), (1, 8, 8)),
        (lambda: relaxed("conv", "lconv", "power:rotation"), (1, 8, 8)),
        (lambda: HamiltonianNetwork(energy()), (12,)),
    ],
    ids=["reused", "cnn", "ffc", "sparse", "generators", "hamiltonian"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_that_use_their_layers_pass(make: Any, shape: Any, dtype: torch.dtype) -> None:
    model = make().to(dtype).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    curvature.check_rules(model, inputs(*shape).to(dtype))
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_wrong_rule_is_found() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    curvature.register_rule(Twice)(curvature.rules.LinearRule)
    try:
        with pytest.raises(ValueError, match="another way"):
            curvature.check_rules(nn.Sequential(Twice(4, 2)), inputs(4))
    finally:
        del curvature.rules._RULES[Twice]


def test_a_fit_of_a_wrapped_network_still_runs() -> None:
    x, y = blobs(24)
    model = symlearn.wrap(tiny_cnn(), x[:2])
    symlearn.fit(model, (x, y), symlearn.FitConfig(epochs=1, progress=False))
