"""The equivariant path: its maps, its dense curvature along the basis, and its share of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import curvature
import priors
from symlearn.architecture import describe
from symlearn.emlp import EquivariantLinear, EquivariantMap, assert_equivariant
from symlearn.fit.optimisers import ProximalAdam
from symlearn.fit.shares import beyond, share_out
from symlearn.fit.state import State
from symlearn.fit.weights import WeightAverage
from symlearn.geometry import Geometry
from symlearn.groups import SL, SO, Group, O, Rep, S, Scalar, T, V, Z, equivariant_basis
from symlearn.paths import FC, Emlp
from symlearn.relaxed import RelaxedLayer
from symlearn.testing import assert_path
from symlearn.wrap import prior_groups

pytestmark = pytest.mark.core

CASES: dict[str, tuple[Group, Rep, Rep]] = {
    "O(3)": (O(3), 2 * V + 1, V + T(2) + 2 * Scalar),
    "SL(3)": (SL(3), T(1, 1), V.T + T(1, 1)),
    "S(3)": (S(3), V + 1, T(2)),
}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SYMLEARN_CACHE_DIR", "")
    torch.manual_seed(0)
    yield


def relative_error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def bound(name: str) -> tuple[Rep, Rep]:
    group, rep_in, rep_out = CASES[name]
    return rep_in(group), rep_out(group)


def layer_of(rep_in: Rep, rep_out: Rep, *groups: Group, free: bool = True) -> RelaxedLayer:
    """A layer with fresh weights in equivariant paths of some groups, and in a free one."""
    specs = [Emlp(rep_in.restrict(g), rep_out.restrict(g), repr(g)) for g in groups]
    geometry = Geometry.of_vectors(rep_in.dim, rep_out.dim)
    layer = RelaxedLayer(geometry, [*specs, FC()] if free else specs, bias=False).double()
    layer.reset_parameters(torch.Generator().manual_seed(1))
    return layer


@pytest.mark.parametrize("name", CASES)
def test_it_is_a_path(name: str) -> None:
    rep_in, rep_out = bound(name)
    assert_path(Emlp(rep_in, rep_out), [Geometry.of_vectors(rep_in.dim, rep_out.dim)])


def test_it_is_a_path_of_images_too() -> None:
    """On four pixels in a ring, maps that commute with Z(4) are circular convolutions."""
    rep = V(Z(4))
    geometry = Geometry(1, 1, (4,), (4,), (1,), (1,), (0,), (1,))
    assert_path(Emlp(rep, rep), [geometry])
    path = Emlp(rep, rep).build(geometry).double()
    path.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(3, 1, 4, dtype=torch.float64)
    torch.testing.assert_close(path(x.roll(1, 2)), path(x).roll(1, 2))


@pytest.mark.parametrize("name", CASES)
def test_it_commutes_with_the_group(name: str) -> None:
    rep_in, rep_out = bound(name)
    linear = EquivariantMap(rep_in, rep_out)
    nn.init.normal_(linear.beta)
    assert_equivariant(linear, rep_in, rep_out, tolerance=1e-5)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(nn.Linear(rep_in.dim, rep_out.dim), rep_in, rep_out)


@pytest.mark.parametrize("estimator", ["exact", "sketch"])
@pytest.mark.parametrize("name", CASES)
def test_curvature_is_that_of_the_free_matrix_along_the_basis(name: str, estimator: str) -> None:
    """Both paths see the same inputs and gradients: one Kronecker product, restricted."""
    rep_in, rep_out = bound(name)
    group = CASES[name][0]
    layer = layer_of(rep_in, rep_out, group)
    net = nn.Sequential(layer, nn.Flatten(), nn.Tanh(), nn.Linear(rep_out.dim, 3).double())
    x = torch.randn(11, rep_in.dim, 1, dtype=torch.float64)
    data = (x, torch.randint(3, (11,)))
    found = curvature.kronecker(net, data, estimator=estimator)
    q = equivariant_basis(rep_in >> rep_out)
    free = found["0.paths.fc.linear.weight"].to_dense()
    beta = found[f"0.paths.{group!r}.linear.beta"]
    assert isinstance(beta, curvature.DenseBlock)
    assert relative_error(beta.to_dense(), q.T @ free @ q) < 1e-12
    doubled = (found + found).scaled(0.5)[f"0.paths.{group!r}.linear.beta"]
    assert relative_error(doubled.to_dense(), beta.to_dense()) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_corrected_curvature_is_exact(name: str) -> None:
    rep_in, rep_out = bound(name)
    group = CASES[name][0]
    layer = layer_of(rep_in, rep_out, group, free=False)
    net = nn.Sequential(layer, nn.Flatten(), nn.Tanh(), nn.Linear(rep_out.dim, 2).double())
    net[3].requires_grad_(False)
    data = (torch.randn(9, rep_in.dim, 1, dtype=torch.float64), torch.randint(2, (9,)))
    exact = curvature.dense_ggn(net, data)
    plain, better = (curvature.kronecker(net, data, ekfac=on) for on in (False, True))
    (one,), (other,) = plain.values(), better.values()
    assert relative_error(other.to_dense(), exact) < 1e-10
    assert relative_error(one.to_dense(), exact) > 1e-3


def test_a_layer_with_a_bias_is_covered_whole() -> None:
    rep = (2 * V + 2)(O(3))
    linear = EquivariantLinear(rep, rep).double()
    data = (torch.randn(7, 8, dtype=torch.float64), torch.randn(7, 8, dtype=torch.float64))
    found = curvature.kronecker(linear, data, "gaussian")
    exact = curvature.dense_ggn(linear, data, "gaussian")
    r = linear.beta.numel()
    assert relative_error(found["beta"].to_dense(), exact[:r, :r]) < 1e-12
    assert relative_error(found["bias"].to_dense(), exact[r:, r:]) < 1e-12


def test_a_basis_keeps_its_precision() -> None:
    rep = T(3)(SO(3))
    linear = EquivariantMap(rep, rep).float().double()
    w = torch.randn(linear.beta.numel(), dtype=torch.float64)
    torch.testing.assert_close(linear.basis.project(linear.basis(w)), w, rtol=0, atol=1e-13)


def state_of(model: nn.Module, precisions: dict[str, float]) -> State:
    groups = prior_groups(model)
    start = [precisions[group] for group in groups]
    prior = priors.PathPrior(groups, start)
    average = WeightAverage(model, 0.9)
    named = dict(model.named_parameters())
    return State(model, prior, curvature.Gaussian(1.0), ProximalAdam(named, 10, 1e-3), average)


def slow_split(layer: RelaxedLayer, stds: dict[str, float]) -> dict[str, Tensor]:
    """The minimal norm of scaled coefficients with the same sum, by least squares."""
    columns, sizes, total = [], {}, torch.zeros((), dtype=torch.float64)
    for name, path in layer.named_paths().items():
        spec = next(s for s in layer.specs if s.name == name)
        size = path.tested().numel()
        free = isinstance(spec, FC)
        q = torch.eye(size).double() if free else equivariant_basis(spec.rep_in >> spec.rep_out)
        columns.append(stds[name] * q)
        sizes[name] = size
        total = total + q @ path.tested().detach().flatten()
    s = torch.cat(columns, 1)
    u = torch.linalg.lstsq(s, total.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    parts = dict(zip(sizes, u.split(list(sizes.values())), strict=True))
    return {name: stds[name] * part for name, part in parts.items()}


@pytest.mark.parametrize("free", [True, False])
def test_shares_are_the_most_probable_and_leave_the_function(free: bool) -> None:
    rep = (V + 1)(O(2))
    layer = layer_of(rep, (T(2) + V)(O(2)), O(2), SO(2), free=free)
    state = state_of(layer, {"O(2)": 0.5, "SO(2)": 3.0, **({"fc": 20.0} if free else {})})
    x = torch.randn(6, 3, 1, dtype=torch.float64)
    before = layer(x).detach()
    wanted = slow_split(layer, {"O(2)": 0.5**-0.5, "SO(2)": 3.0**-0.5, "fc": 20.0**-0.5})
    share_out(state)
    for averaged in (False, True):
        with state.average.applied() if averaged else nullcontext():
            torch.testing.assert_close(layer(x).detach(), before)
            for name, path in layer.named_paths().items():
                torch.testing.assert_close(path.tested().detach().flatten(), wanted[name])


def test_an_absent_path_is_tested_beyond_the_present_ones() -> None:
    rep_in, rep_out = (V + 1)(O(2)), (T(2) + V)(O(2))
    layer = layer_of(rep_in, rep_out, O(2), SO(2))
    large, small = (equivariant_basis((rep_in >> rep_out).restrict(g)) for g in (O(2), SO(2)))
    g = torch.randn(rep_out.dim, rep_in.dim, dtype=torch.float64)
    left = beyond(layer, layer.path("fc"), g).flatten()
    assert float((small.T @ left).norm()) < 1e-12  # SO(2)'s maps hold those of O(2)
    torch.testing.assert_close(left + small @ (small.T @ g.flatten()), g.flatten())
    layer.path("SO(2)").switch_off()
    h = torch.randn(small.shape[1], dtype=torch.float64)
    left = small @ beyond(layer, layer.path("SO(2)"), h)
    assert float((large.T @ left).norm()) < 1e-12
    torch.testing.assert_close(left + large @ (large.T @ (small @ h)), small @ h)
    # the larger group's path may return beside the smaller one's
    layer.path("SO(2)").switch_on()
    layer.path("O(2)").switch_off()
    h = torch.randn(large.shape[1], dtype=torch.float64)
    assert torch.equal(beyond(layer, layer.path("O(2)"), h), h)


def test_shares_of_paths_that_are_off_or_alone_stay() -> None:
    rep = V(O(2))
    layer = layer_of(rep, rep, O(2))
    layer.path("O(2)").switch_off()
    kept = layer.path("fc").tested().detach().clone()
    share_out(state_of(layer, {"O(2)": 1.0, "fc": 1.0}))
    assert torch.equal(layer.path("fc").tested(), kept)
    assert not layer.path("O(2)").tested().any()


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"its input has 5 elements, \(2 \* V\)\(O\(3\)\) has 6"):
        Emlp((2 * V)(O(3)), V(O(3))).build(Geometry.of_vectors(5, 3))
    with pytest.raises(TypeError, match="takes representations such as"):
        Emlp("V", V(O(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="different groups"):
        Emlp(V(O(3)), V(SO(3))).build(Geometry.of_vectors(3, 3))
    monkeypatch.setattr("curvature.restricted.MAX_PARAMETERS", 1)
    linear = EquivariantMap(V(S(3)), V(S(3)))
    with pytest.raises(ValueError, match="beta has 2 coefficients, .* make the layer narrower"):
        curvature.kronecker(linear, (torch.randn(2, 3), torch.randn(2, 3)), "gaussian")
    with pytest.raises(TypeError, match="Wrong is restricted: set bias = None"):

        @curvature.register_rule(EquivariantLinear)
        class Wrong(curvature.Rule):
            restricted = True


def test_networks_are_saved_with_the_model_at_hand() -> None:
    """Representations are no JSON; a saved fit of such a network is loaded into the network."""
    assert describe(layer_of(V(O(2)), V(O(2)), O(2))) is None
