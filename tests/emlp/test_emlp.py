"""Equivariant layers and networks: they commute with the group, and compute what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import curvature
import symlearn.groups as G
from symlearn.datasets import inertia
from symlearn.emlp import (
    EMLP,
    BilinearContraction,
    EquivariantLinear,
    GatedNonlinearity,
    assert_equivariant,
    gated,
    uniform,
)
from symlearn.groups import Factor, Group, Rep, Scalar, T, V, equivariant_basis

pytestmark = pytest.mark.core

GROUPS: dict[str, Group] = {
    "S(3)": G.S(3),
    "O(2)": G.O(2),
    "Lorentz": G.Lorentz(),
    "SL(2)": G.SL(2),
    "SE(2)": G.SE(2),
    "cloud": G.S(3) * G.SO(2),
    "D(4)": G.D(4),
}
TIGHT = 1e-9


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SYMLEARN_CACHE_DIR", "")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", GROUPS)
def test_layers_and_networks_commute_with_the_group(name: str) -> None:
    group = GROUPS[name]
    a, b = (2 * V + 1)(group), (V + T(1, 1) + 2)(group)
    linear = EquivariantLinear(a, b)
    nn.init.normal_(linear.bias)
    assert_equivariant(linear, a, b, tolerance=TIGHT)
    assert_equivariant(BilinearContraction(b), b, b, tolerance=TIGHT)
    assert_equivariant(GatedNonlinearity(b), gated(b), b, tolerance=TIGHT)
    net = EMLP(2 * V + 1, V + 1, group, width=(2 * V + 3 + V.T), depth=2)
    assert_equivariant(net, a, (V + 1)(group), tolerance=TIGHT)
    net = EMLP(a, Scalar, group, width=20, depth=1)
    assert_equivariant(net, a, Scalar, tolerance=TIGHT)


def test_the_check_fails() -> None:
    rep = V(G.SO(3))
    with pytest.raises(AssertionError, match=r"not equivariant under SO\(3\): pair 0 differs by"):
        assert_equivariant(nn.Linear(3, 3), rep, rep)
    with pytest.raises(AssertionError, match="differs by nan"):
        assert_equivariant(lambda x: x * torch.nan, rep, rep)
    with pytest.raises(AssertionError):  # rotations, but no reflections
        assert_equivariant(lambda x: torch.linalg.cross(x, x + 1), V(G.O(3)), V(G.O(3)))
    with pytest.raises(ValueError, match="give the group"):
        assert_equivariant(lambda x: x, Scalar, Scalar)
    assert_equivariant(lambda x: 2 * x, rep, rep)


def test_the_weight_is_the_basis_times_its_coefficients() -> None:
    a, b = (2 * V + 1)(G.SE(2)), (V.T + T(1, 1))(G.SE(2))
    linear = EquivariantLinear(a, b)
    q = equivariant_basis(a >> b)
    assert torch.allclose(linear.weight.flatten(), q @ linear.beta)
    bias = torch.randn_like(linear.bias)
    linear.bias = nn.Parameter(bias)
    x = torch.randn(4, a.dim)
    expected = x @ (q @ linear.beta).reshape(b.dim, a.dim).T + equivariant_basis(b) @ bias
    assert torch.allclose(linear(x), expected)
    linear(x).sum().backward()
    assert linear.beta.grad is not None and torch.allclose(
        linear.beta.grad, q.T @ x.sum(0).repeat(b.dim)
    )


def test_fresh_weights_keep_the_size_of_features() -> None:
    rep = (30 * V + 30)(G.SO(3))
    linear = EquivariantLinear(rep, rep)
    x = torch.randn(200, rep.dim)
    # an output is read from the 30 vectors or the 30 scalars, not from all entries
    assert 0.5 < float(linear(x).detach().square().mean()) < 2.0


def slow_products(layer: BilinearContraction, rep: Rep, x: Tensor) -> Tensor:
    """``m v`` and ``v (x) v`` by loops, in ``n V + k V**2``."""
    (_, n), (_, k) = rep.terms  # type: ignore[attr-defined]
    v, m = x[: 3 * n].reshape(n, 3), x[3 * n :].reshape(k, 3, 3)
    turned, outer = torch.zeros_like(v), torch.zeros_like(m)
    kinds = [(p.sizes, p.n_weights) for p in layer.products]
    assert kinds == [((3, 1, 3), n * k), ((3, 3, 1), n * n)]
    first, second = layer.weight.split([n * k, n * n])
    for turn, (j, i) in enumerate(itertools.product(range(k), range(n))):
        outer[j] += first[turn] * torch.outer(v[turn % n], v[i])
    for turn, (j, i) in enumerate(itertools.product(range(n), repeat=2)):
        turned[j] += second[turn] * m[turn % k] @ v[i] / 3**0.5
    return torch.cat([turned.flatten(), outer.flatten()])


def test_contractions_are_products_of_matrices_and_vectors() -> None:
    rep = (2 * V + 3 * T(2))(G.SO(3))
    layer = BilinearContraction(rep)
    x = torch.randn(rep.dim)
    assert torch.allclose(layer(x), slow_products(layer, rep, x))
    assert torch.allclose(layer(torch.stack([x, 2 * x])), torch.stack([layer(x), 4 * layer(x)]))
    # without a dual, vectors of SL(2) make tensors, and no scalars
    cubic = (1 * V + T(2) + T(3))(G.SL(2))
    assert [p.sizes for p in BilinearContraction(cubic).products] == [(2, 1, 2), (2, 1, 4)]
    dual = (1 * V + V.T + 1)(G.SL(2))
    layer = BilinearContraction(dual)
    assert [p.sizes for p in layer.products] == [(1, 2, 1), (1, 2, 1)]  # v . w, twice
    assert BilinearContraction((2 * Scalar)(G.SL(2)))(torch.ones(2)).tolist() == [0, 0]


def test_axes_of_products_are_those_of_their_factors() -> None:
    """A tensor V V* of SL(3) from a covector and a vector, given in the other order."""
    group = G.SL(3)
    rep = (V.T + V + V * V.T)(group)
    layer = BilinearContraction(rep)
    w, v, m = torch.randn(rep.dim).split([3, 3, 9])
    out = layer(torch.cat([w, v, m])).split([3, 3, 9])
    m = m.reshape(3, 3)
    found = {p.start: weight for p, weight in zip(layer.products, layer.weight, strict=True)}
    assert set(found) == {(0, 3, 6), (6, 0, 0), (6, 3, 3)}
    assert torch.allclose(out[2].reshape(3, 3), found[0, 3, 6] * torch.outer(v, w))
    assert torch.allclose(out[0], found[6, 0, 0] * m.T @ w / 3**0.5)
    assert torch.allclose(out[1], found[6, 3, 3] * m @ v / 3**0.5)


def test_two_vectors_make_a_matrix() -> None:
    # by contractions alone that took tensors of order three
    net = EMLP(2 * V, T(2), G.O(3), width=2 * V + 2 * T(2), depth=1)
    out = net(torch.randn(6, 6)).detach().reshape(6, 3, 3)
    assert float((out - out.diagonal(dim1=1, dim2=2).diag_embed()).abs().max()) > 1e-3


def test_all_weights_of_a_network_have_a_curvature() -> None:
    task = inertia(12)
    net = EMLP(task.rep_in, task.rep_out, task.group, width=2 + V + T(2), depth=1)
    found = curvature.kronecker(net, task.pair, "gaussian")
    full, start = curvature.dense_ggn(net, task.pair, "gaussian"), 0
    assert set(found) == {name for name, _ in net.named_parameters()}
    for name, parameter in net.named_parameters():
        end = start + parameter.numel()
        if name == "0.1.bilinear.weight":
            assert end > start
            torch.testing.assert_close(found[name].to_dense(), full[start:end, start:end])
        start = end
    scalars = EMLP(task.rep_in, Scalar, task.group, width=2 * Scalar, depth=1)  # no products
    assert curvature.kronecker(scalars, (task.x, task.x[:, :1]), "gaussian")["0.0.beta"].shape == (
        10,
    )


def test_contractions_make_what_gates_cannot() -> None:
    # Theorem A.2: with linear maps and gates only, a scalar of O(3) cannot see a vector
    group, x = G.O(3), torch.randn(6, 3)
    torch.manual_seed(0)
    net = EMLP(V, Scalar, group, width=4 * V + 4, depth=2)
    assert float(net(x).detach().std()) > 1e-4
    for module in net.modules():
        if isinstance(module, BilinearContraction):
            nn.init.zeros_(module.weight)
    assert float(net(x).detach().std()) < 1e-12


def test_gates() -> None:
    group = G.SO(3)
    rep = (2 + 2 * V)(group)
    assert gated(rep) == rep + 2
    x = torch.randn(5, gated(rep).dim)
    expected = torch.cat(
        [
            x[:, :2] * x[:, :2].sigmoid(),
            x[:, 2:5] * x[:, 8:9].sigmoid(),
            x[:, 5:8] * x[:, 9:].sigmoid(),
        ],
        dim=1,
    )
    assert torch.equal(GatedNonlinearity(rep)(x), expected)
    # entries that are permuted gate themselves
    points = (V + T(2))(G.S(3))
    assert gated(points) == points
    x = torch.randn(2, points.dim)
    assert torch.equal(GatedNonlinearity(points)(x), x * x.sigmoid())
    cloud = G.S(3) * G.SO(2)
    assert gated(V(cloud) + Factor(cloud, 0)).dim == V(cloud).dim + 3 + 1


def test_the_published_allocation() -> None:
    # Sec. 2.6: 256 channels of SO(3)
    rep = uniform(256, V(G.SO(3)))
    assert rep == (70 * Scalar + 23 * V + 7 * T(2) + 2 * T(3))(G.SO(3))


@settings(max_examples=10)
@given(channels=st.integers(1, 400), name=st.sampled_from(["S(3)", "SL(2)", "Lorentz", "cloud"]))
def test_allocations_fill_the_width(channels: int, name: str) -> None:
    rep = uniform(channels, V(GROUPS[name]))
    assert rep.dim == channels


def test_what_makes_no_network() -> None:
    with pytest.raises(ValueError, match="depth is the number of hidden layers, got -1"):
        EMLP(V, V, G.SO(3), depth=-1)
    with pytest.raises(ValueError, match="a channel or more, got 0"):
        EMLP(V, V, G.SO(3), width=0)
    with pytest.raises(ValueError, match=r"bound to O\(3\), not to SO\(3\)"):
        EMLP(V(G.O(3)), V, G.SO(3))
    with pytest.raises(ValueError, match="layers are real"):
        EquivariantLinear(V(G.SU(2)), V(G.SU(2)))
    assert len(EMLP(V, V, G.SO(3), depth=0)) == 1
