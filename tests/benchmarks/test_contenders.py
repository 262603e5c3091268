"""What the benchmarks time is what they say: the plain contenders against the library's pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import curvature
from benchmarks.support import accuracy, hooks, nets, peers
from benchmarks.support.harness import Missing
from tests.conftest import need
from tests.oracles import assert_near


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.CircularPad2d(1), nn.Conv2d(1, 3, 3), nn.ReLU()),
        *(nn.CircularPad2d(1), nn.Conv2d(3, 4, 3, 2), nn.ReLU()),
        *(nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(45, 3)),
    ).double()


@pytest.fixture
def batches() -> nets.Batches:
    return nets.Batches(torch.randn(10, 1, 6, 6, dtype=torch.float64), torch.randint(3, (10,)), 4)


@pytest.mark.core
def test_batches_are_the_data(batches: nets.Batches) -> None:
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert len(batches.dataset) == 10


@pytest.mark.core
def test_paper_net_is_the_papers() -> None:
    """Table 7's classical CNN has 338,770 parameters on three channels; on one, 180 less."""
    net = nets.paper_conv()
    assert sum(p.numel() for p in net.parameters()) == 338_770 - 180
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.core
def test_plain_hooks_find_the_librarys_factors(net: nn.Sequential, batches: nets.Batches) -> None:
    factors = hooks.exact_factors(net, batches)
    found = curvature.kronecker(net, batches)
    weights = [name for name in found if name.endswith("weight")]
    for name, (a, g), sites in zip(weights, factors, (36, 9, 9, 1), strict=True):
        assert_near(found[name].to_dense(), torch.kron(g, a) / (10 * sites))
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.core
@pytest.mark.parametrize("cheap", [False, True])
def test_bare_pass_sends_the_columns_back(
    net: nn.Sequential, batches: nets.Batches, cheap: bool
) -> None:
    backwards: list[int] = []
    handle = net[-1].register_full_backward_hook(lambda *_: backwards.append(1))
    hooks.bare_pass(net, batches, 2, cheap_padding=cheap)
    handle.remove()
    assert len(backwards) == 2 * len(batches)


@pytest.mark.core
def test_learned_precision_maximises_the_evidence() -> None:
    lam, norm = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64), 2.0
    best = accuracy.log_precision(lam, norm)

    def objective(log_delta: float) -> float:
        delta = math.exp(log_delta)
        return -0.5 * (delta * norm + float(torch.log1p(lam / delta).sum()))

    assert objective(best) > max(objective(best - 1e-3), objective(best + 1e-3))


@pytest.mark.core
def test_exact_estimates_have_no_error(batches: nets.Batches) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    estimators = {"same": {"estimator": "exact"}, "sketch": {"estimator": "sketch"}}
    same, sketch = accuracy.moment(net, batches, "now", estimators, range(3))
    assert len(same) == len(accuracy.COLUMNS)
    assert same[4:] == [0.0] * 5
    assert all(isinstance(value, float) and value > 0 for value in sketch[4:])


@pytest.mark.parametrize("name", list(peers.FITS))
def test_peers_fit(name: str, net: nn.Sequential, batches: nets.Batches) -> None:
    need("laplace")
    fit = peers.fits(net, [name])[name]
    assert not isinstance(fit, Missing)
    value = float(fit(batches).log_marginal_likelihood())
    assert math.isfinite(value)
    # a second fit starts anew
    assert float(fit(batches).log_marginal_likelihood()) == pytest.approx(value, rel=0.05)


@pytest.mark.core
def test_backpack_extension_is_the_adjoint_of_circular_padding() -> None:
    pads = (1, 2, 2, 1)
    x, g = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 7, 8)
    padded = nn.CircularPad2d(pads)(x)
    assert_near((padded * g).sum(), (x * peers.unpad_transposed(g, pads)).sum(), 1e-5)


def test_backpack_agrees_where_its_factors_are_right(
    net: nn.Sequential, batches: nets.Batches
) -> None:
    """Its gradients pass circular padding rightly: the first bias has the exact factor."""
    need("backpack")
    need("laplace")
    whole = nets.Batches(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]), 10)
    fit = peers.fits(net, ["BackPACK"])["BackPACK"]
    assert not isinstance(fit, Missing)
    factors = fit(whole).H_facs.kfacs
    names = [name for name, _ in net.named_parameters()]
    exact = curvature.dense_ggn(net, whole)
    position = 0
    for name, p in net.named_parameters():
        if name == "1.bias":
            want = exact[position : position + p.numel(), position : position + p.numel()]
        position += p.numel()
    assert_near(factors[names.index("1.bias")][0], want, 1e-9)
