"""Groups of matrices: their defining equations, what is checked when one is made, and subgroups."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import symlearn.groups as G
from symlearn.groups import MatrixGroup, T, V, equivariant_basis

pytestmark = pytest.mark.core


def form(p: int, q: int) -> Tensor:
    return torch.diag(torch.tensor([1.0] * p + [-1.0] * q, dtype=torch.float64))


def symplectic(n: int) -> Tensor:
    zero, one = torch.zeros(n, n), torch.eye(n)
    return torch.cat([torch.cat([zero, one], 1), torch.cat([-one, zero], 1)]).double()


def det(g: Tensor) -> complex:
    return complex(torch.linalg.det(g))


def is_permutation(g: Tensor) -> bool:
    rounded = g.round()
    return bool((g - rounded).abs().max() < 1e-9 and (rounded.sum(0) == 1).all() and g.min() > -0.5)


LAWS: dict[str, tuple[MatrixGroup, Callable[[Tensor], bool]]] = {
    "Z": (G.Z(5), is_permutation),
    "S": (G.S(4), is_permutation),
    "A": (G.A(5), lambda g: is_permutation(g) and abs(det(g) - 1) < 1e-9),
    "cube": (G.RubiksCube(), is_permutation),
    "D": (G.D(7), lambda g: torch.allclose(g.T @ g, form(2, 0))),
    "SO": (G.SO(4), lambda g: torch.allclose(g.T @ g, form(4, 0)) and abs(det(g) - 1) < 1e-9),
    "O": (G.O(3), lambda g: torch.allclose(g.T @ g, form(3, 0))),
    "SO pq": (
        G.SO(2, 3),
        lambda g: torch.allclose(g.T @ form(2, 3) @ g, form(2, 3)) and abs(det(g) - 1) < 1e-9,
    ),
    "SO+": (G.SO13p(), lambda g: bool(g[0, 0] > 0.9) and abs(det(g) - 1) < 1e-9),
    "O pq": (G.Lorentz(), lambda g: torch.allclose(g.T @ form(1, 3) @ g, form(1, 3))),
    "Sp": (G.Sp(2), lambda g: torch.allclose(g.T @ symplectic(2) @ g, symplectic(2))),
    "SL": (G.SL(3), lambda g: abs(det(g) - 1) < 1e-9),
    "GL": (G.GL(2), lambda g: abs(det(g)) > 1e-6),
    "U": (G.U(3), lambda g: torch.allclose(g.mH @ g, torch.eye(3, dtype=g.dtype))),
    "SU": (G.SU(3), lambda g: abs(det(g) - 1) < 1e-9),
    "SE": (G.SE(2), lambda g: torch.allclose(g[2], form(3, 0)[2]) and abs(det(g) - 1) < 1e-9),
    "E": (G.E(3), lambda g: torch.allclose(g[:3, :3].T @ g[:3, :3], form(3, 0))),
    "scaling": (G.Scaling(3), lambda g: torch.allclose(g, g[0, 0] * form(3, 0)) and g[0, 0] > 0),
}


@pytest.mark.parametrize("name", LAWS)
def test_elements_obey_what_defines_the_group(name: str) -> None:
    group, law = LAWS[name]
    random = torch.Generator().manual_seed(0)
    samples = [group.sample(random) for _ in range(12)]
    assert all(law(g) for g in samples)
    assert any(not torch.allclose(g, torch.eye(group.dim, dtype=g.dtype)) for g in samples)


COMPONENTS = {"O": {-1, 1}, "O pq": {-1, 1}, "GL": {-1, 1}, "D": {-1, 1}, "SO": {1}, "SU": {1}}


@pytest.mark.parametrize("name", COMPONENTS)
def test_samples_come_from_all_components(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    signs = {round(det(LAWS[name][0].sample(random)).real) > 0 for _ in range(30)}
    assert signs == {sign > 0 for sign in COMPONENTS[name]}


def test_dimensions_of_the_algebras() -> None:
    groups = (G.SO(4), G.SO(2, 3), G.Sp(3), G.SL(3), G.GL(3), G.U(3), G.SU(3), G.SE(3))
    assert [len(g.lie) for g in groups] == [6, 10, 21, 8, 9, 9, 8, 6]
    for group in groups:
        rows = torch.view_as_real(torch.stack(group.lie).to(torch.complex128)).flatten(1)
        assert torch.linalg.matrix_rank(rows) == len(group.lie)


def test_small_members_of_each_family() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ones = [G.Z(1), G.S(1), G.A(2), G.SO(1), G.SL(1), G.SU(1), G.Trivial(1)]
        others = [G.S(2), G.O(1), G.GL(1), G.U(1), G.Sp(1), G.SO0(1, 1), G.O(0, 2), G.E(1), G.C(1)]
    for group in ones:
        assert equivariant_basis(V(group)).shape == (group.dim, group.dim)
    assert all(group.dim >= 1 for group in others)


@pytest.mark.parametrize("make", [G.Z, G.S, G.A, G.D, G.SO, G.O, G.Sp, G.SL, G.SU, G.Scaling])
@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_sizes_that_do_not_exist(make: Callable[..., MatrixGroup], n: float) -> None:
    with pytest.raises(ValueError, match=rf"of (one|zero) or more.*{n}"):
        make(n)


def test_groups_are_values() -> None:
    assert G.SO(3) == G.SO(3) and hash(G.SO(3)) == hash(G.SO(3))
    assert G.SO(3) != G.O(3) and G.SO(3) != G.SO(4)
    assert repr(G.SO(3)) == "SO(3)" and repr(G.SO(1, 3)) == "SO(1, 3)"
    assert G.SO13() == G.SO(1, 3) and G.Lorentz() == G.O13()
    named = MatrixGroup("mine", lie=G.SO(3).lie)
    assert named == G.SO(3) and repr(named) == "mine"
    assert G.SO(3) != "SO(3)"
    both = G.S(3) * G.SO(2) * G.Z(2)
    assert len(both.factors) == 3 and both.dim == 12 and both == G.S(3) * (G.SO(2) * G.Z(2))


def test_generators_given_as_products_with_vectors() -> None:
    turn, shift = G.SO(2).lie[0], G.Z(4).discrete[0]
    assert MatrixGroup("a", lie=[lambda v: turn @ v], dim=2) == MatrixGroup("b", lie=[turn])
    rolled = MatrixGroup("roll", discrete=[lambda v: v.roll(1)], dim=4)
    assert torch.equal(rolled.discrete[0], shift)
    with pytest.raises(ValueError, match="give dim"):
        MatrixGroup("roll", discrete=[lambda v: v.roll(1)])


def test_all_faults_of_generators_at_once() -> None:
    bad = [[[1, 0], [0, 1]], [[1, 2, 3], [4, 5, 6]], [[1, 1], [1, 1]], [[1, 0], [0, torch.nan]]]
    with pytest.raises(ValueError) as error:
        MatrixGroup("bad", discrete=bad, lie=[torch.eye(3), torch.zeros(2)], dim=2)
    for part in (
        r"group 'bad'",
        r"discrete generator 1: a generator is a square matrix, got shape [2, 3]",
        r"discrete generator 2: it is not invertible (singular values",
        r"discrete generator 3: it holds NaN or infinite numbers",
        r"Lie algebra element 0: the size is 2, got shape [3, 3]",
        r"Lie algebra element 1: a generator is a square matrix, got shape [2]",
    ):
        assert part in str(error.value)
    assert "generator 0" not in str(error.value)


def test_an_algebra_that_is_not_closed_warns_of_the_missing_bracket() -> None:
    x, y, z = G.SO(3).lie
    with pytest.warns(
        UserWarning, match=r"'open' is not closed: \[A_0, A_1\] =\n\[\[(.|\n)*add it"
    ) as seen:
        opened = MatrixGroup("open", lie=[x, y])
    bracket = x @ y - y @ x
    assert np.array2string(bracket.numpy(), precision=3, suppress_small=True) in str(
        seen[0].message
    )
    # the basis is that of the group which the two generate
    found, full = (equivariant_basis(T(3)(g)) for g in (opened, G.SO(3)))
    assert torch.allclose(found @ found.T, full @ full.T, atol=1e-12)
    with pytest.warns(UserWarning, match=r"h_0 A_0 h_0\^-1"):
        MatrixGroup("moved", discrete=G.Z(3).discrete, lie=[z])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MatrixGroup("closed", lie=[x, y, z])


def test_subgroups() -> None:
    axis = G.O(3).subgroup("axis", lie=[G.O(3).lie[0]])
    assert axis.dim == 3 and repr(axis) == "axis"
    with pytest.raises(ValueError, match=r"elements \[1\] do not belong to the algebra of SO\(3\)"):
        G.SO(3).subgroup("stretched", lie=[G.SO(3).lie[0], torch.eye(3)])
    # the complex numbers are no room for more: i A belongs to gl(n, C), not to the real algebra
    with pytest.raises(ValueError, match=r"elements \[0\] do not belong"):
        G.SU(2).subgroup("boost", lie=[1j * G.SU(2).lie[0]])
    with pytest.raises(ValueError, match="coordinates 2..3 do not exist in a space of size 3"):
        G.embedded(G.SO(2), 3, at=2)


def test_what_is_no_group() -> None:
    with pytest.raises(ValueError, match=r"no permutations of 0, ..., 2: \[\[0, 0, 1\]\]"):
        G.permutations("p", [[0, 1, 2], [0, 0, 1]], 3)
    with pytest.raises(ValueError, match=r"permutes blocks, SO\(2\) does not"):
        G.Wreath(G.S(2), G.SO(2))
    with pytest.raises(ValueError, match=r"permutes blocks, O\(1\) does not"):
        G.Wreath(G.S(2), G.O(1))
    with pytest.raises(TypeError, match="a direct product is one of groups"):
        G.DirectProduct(G.SO(3), "SO(2)")  # type: ignore[arg-type]
