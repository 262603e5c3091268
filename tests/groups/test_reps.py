"""The algebra of representations: values, laws of the actions, functions as representations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import symlearn.groups as G
from symlearn.groups import Custom, Factor, Rep, Scalar, T, V, equivariant_basis
from symlearn.groups.matrix import Element, Group

pytestmark = pytest.mark.core

GROUPS: dict[str, Group] = {
    "S(3)": G.S(3),
    "O(2)": G.O(2),
    "SE(2)": G.SE(2),
    "SU(2)": G.SU(2),
    "product": G.S(2) * G.SL(2),
}
REPS = {
    "V": V,
    "dual": V.T,
    "sum": 2 * V + 1 + V.T,
    "tensor": T(1, 1) * V,
    "mixed": (V + 2) * (V.T + V),
    "scalar": 3 * Scalar,
}


def exponential(a: Element) -> Element:
    if isinstance(a, Tensor):
        return torch.linalg.matrix_exp(a)
    return tuple(torch.linalg.matrix_exp(part) for part in a)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("rep", REPS)
def test_actions_are_representations(group: str, rep: str) -> None:
    of, bound = GROUPS[group], REPS[rep](GROUPS[group])
    g, h = of.sample(), of.sample()
    both = bound.rho(of.product(g, h)).dense()
    assert torch.allclose(both, bound.rho(g).dense() @ bound.rho(h).dense(), atol=1e-9)
    for a in of.lie[:2]:
        # rho(exp A) = exp(d rho(A)) (Eq. 2.1)
        left, right = bound.rho(exponential(a)).dense(), bound.drho(a).dense()
        assert torch.allclose(left, torch.linalg.matrix_exp(right), atol=1e-9)
    pairing = bound.T.rho(g).dense().T @ bound.rho(g).dense()
    assert torch.allclose(pairing, torch.eye(bound.dim, dtype=pairing.dtype), atol=1e-9)


def dense(rep: Rep, g: Tensor) -> Tensor:
    """The matrix of a representation, by Table 2.1."""
    if isinstance(rep, G.rep.Sum):
        return torch.block_diag(*(dense(r, g) for r, count in rep.terms for _ in range(count)))
    if isinstance(rep, G.rep.Product):
        out = torch.ones(1, 1, dtype=g.dtype)
        for factor in rep.factors:
            out = torch.kron(out, dense(factor, g))
        return out
    return torch.linalg.inv(g).T if repr(rep).startswith("(V.T)") else g


@settings(max_examples=10)
@given(data=st.data())
def test_lazy_maps_are_the_matrices_of_table_2_1(data: st.DataObject) -> None:
    group = G.SL(2)
    atom = st.sampled_from([V, V.T, Scalar])
    rep = data.draw(
        st.recursive(atom, lambda r: st.builds(_combine, st.booleans(), r, r), max_leaves=4)
    )
    bound = rep(group)
    g = group.sample()
    matrix = dense(bound, g)
    x = torch.randn(bound.dim, 3, dtype=torch.float64)
    assert torch.allclose(bound.rho(g) @ x, matrix @ x)
    assert torch.allclose(bound.rho(g) @ x[:, 0], matrix @ x[:, 0])
    assert bound.rho(g).shape == (bound.dim, bound.dim) == tuple(matrix.shape)


def _combine(add: bool, a: Rep, b: Rep) -> Rep:
    return a + b if add else a * b


def test_representations_are_values() -> None:
    group = G.SL(2)
    assert V + V == 2 * V and V * V == V**2 == T(2) and V**0 == Scalar == T(0)
    assert (V + V) + V.T == V + (V + V.T) and hash(2 * V) == hash(V + V)
    assert V + V.T != V.T + V and V * V.T != V.T * V
    assert 2 * (V + V.T) == V + V.T + V + V.T != 2 * V + 2 * V.T
    assert V.T.T == V and (V * V.T).T == V.T * V and Scalar == Scalar.T
    assert V + 2 * Scalar == V + 2 and 2 * Scalar + V == 2 + V
    assert Scalar * V == V and 1 * V == V and V * 1 == V
    assert (3 * V + T(1, 1))(group) == 3 * V(group) + V(group) * V(group).T
    assert V(group) >> V(group) == T(1, 1)(group)
    # an orthogonal representation is its own dual
    assert V(G.SO(3)) == V(G.SO(3)).T and T(1, 1)(G.SO(3)) == T(2)(G.SO(3))
    assert V(group) != V(group).T and V(G.SU(2)) != V(G.SU(2)).T
    with pytest.raises(AttributeError):
        V(group).dual = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rep", "text"),
    [
        (V, "V"),
        (V(G.SO(3)), "V(SO(3))"),
        ((3 * V + T(1, 2) + 1)(G.SL(2)), "(3 * V + V * V.T**2 + Scalar)(SL(2))"),
        ((V * (V + 1)), "V * (V + Scalar)"),
        (Factor(G.S(2) * G.SL(2), 1).T, "(V[1].T)(S(2) * SL(2))"),
        (0 * V, "0 * V"),
    ],
)
def test_how_they_are_written(rep: Rep, text: str) -> None:
    assert repr(rep) == text


def test_sizes() -> None:
    assert (3 * V + T(2, 1) + 2)(G.SO(4)).dim == 3 * 4 + 64 + 2
    assert V(G.S(3) * G.SO(2)).dim == 6 and Scalar.dim == 1 and (0 * Scalar).dim == 0
    with pytest.raises(ValueError, match="V has no size before it is bound"):
        _ = T(2).dim


def test_groups_cannot_be_mixed() -> None:
    a, b = V(G.SO(3)), V(G.O(3))
    for combine in (lambda: a + b, lambda: a * b, lambda: a >> b):
        with pytest.raises(
            ValueError, match=r"different groups \['O\(3\)', 'SO\(3\)'\].*direct product"
        ):
            combine()
    with pytest.raises(ValueError, match=r"bound to SO\(3\) and some to no group yet"):
        a + V
    with pytest.raises(ValueError, match=r"bound to SO\(3\), not to O\(3\)"):
        a(G.O(3))
    with pytest.raises(ValueError, match="is no subgroup of SO"):
        a.restrict(G.SO(2))
    with pytest.raises(TypeError, match="bound to a group"):
        V("SO(3)")  # type: ignore[arg-type]
    assert a + 1 == a + Scalar  # scalars belong to every group


@pytest.mark.parametrize("power", [-1, 1.5, "2"])
def test_powers_that_do_not_exist(power: object) -> None:
    with pytest.raises(ValueError, match="zero or more"):
        V**power  # type: ignore[operator]


def test_other_operands() -> None:
    for combine in (lambda: V + "x", lambda: V * 1.5, lambda: V >> 2, lambda: "x" * V):
        with pytest.raises(TypeError):
            combine()
    with pytest.raises(ValueError, match="a multiplicity is zero or more, got -1 of V"):
        -1 * V


def spin(g: Tensor) -> Tensor:
    """Traceless symmetric matrices of a rotation, on an orthonormal basis."""
    basis = torch.zeros(5, 3, 3, dtype=g.dtype)
    for i, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[i, a, b] = basis[i, b, a] = 0.5**0.5
    basis[3] = torch.diag(torch.tensor([1.0, -1, 0], dtype=g.dtype)) / 2**0.5
    basis[4] = torch.diag(torch.tensor([1.0, 1, -2], dtype=g.dtype)) / 6**0.5
    return torch.einsum("iab,ac,jcd,bd->ij", basis, g, basis, g)


def test_a_function_as_representation() -> None:
    group = G.O(3)
    two = Custom("spin2", spin)(group)
    assert two.dim == 5 and repr(two) == "spin2(O(3))"
    # V (x) V = spin 0 + spin 1 + spin 2
    assert equivariant_basis(V(group) ** 2 >> two).shape == (45, 1)
    assert equivariant_basis(two >> two).shape[1] == 1
    assert equivariant_basis(two**3).shape[1] == 1
    given = Custom("spin2", spin, lambda a: torch.func.jvp(spin, (torch.eye(3).double(),), (a,))[1])
    assert torch.allclose(given(group).drho(group.lie[1]).dense(), two.drho(group.lie[1]).dense())
    assert equivariant_basis(two.restrict(G.embedded(G.SO(2), 3))).shape == (5, 1)


def test_what_is_no_representation() -> None:
    group = G.SO(3)
    with pytest.raises(
        ValueError, match=r"doubled is no representation of SO\(3\): it breaks rho\(1\)"
    ):
        Custom("doubled", lambda g: 2 * g)(group)
    with pytest.raises(ValueError, match=r"breaks rho\(g h\) = rho\(g\) rho\(h\)"):
        Custom("transposed", lambda g: g.T)(group)
    with pytest.raises(ValueError, match=r"breaks rho\(exp A_0\)"):
        Custom("wrong", lambda g: g, lambda a: 2 * a)(group)
    with pytest.raises(ValueError, match=r"must be a square matrix, got shape \[3\]"):
        Custom("vector", lambda g: g[0])(group)
    with pytest.raises(ValueError, match="breaks"):
        Custom("nan", lambda g: g * torch.nan)(group)
    with pytest.raises(ValueError, match="a function of one matrix"):
        Custom("product", lambda g: g)(G.SO(3) * G.Z(2))


def test_maps_apply_to_vectors_of_their_size() -> None:
    rho = V(G.SO(3)).rho(torch.eye(3))
    with pytest.raises(ValueError, match=r"a vector \[3\] or to columns \[3, b\], got \[4\]"):
        rho @ torch.ones(4)
    with pytest.raises(TypeError, match="one matrix"):
        V(G.SO(3)).rho((torch.eye(3),))
