"""Equivariant bases: published ranks, counts from theory, and that elements leave them alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import symlearn.groups as G
from symlearn.groups import EquivariantBasis, Rep, T, V, equivariant_basis
from tests.groups.tables import Entry, entries

pytestmark = pytest.mark.core
FAST = 5000  # positions

FINITE = {
    "Z(6)": G.Z(6),
    "S(4)": G.S(4),
    "A(4)": G.A(4),
    "A(5)": G.A(5),
    "D(5)": G.D(5),
    "C(5)": G.C(5),
    "hexagon": G.permutations("hexagon", [[1, 2, 3, 4, 5, 0], [0, 5, 4, 3, 2, 1]], 6),
    "signed": G.MatrixGroup("signed", [torch.diag(torch.tensor([-1.0, 1, 1])), G.Z(3).discrete[0]]),
    "wreath": G.Wreath(G.Z(3), G.S(2)),
    "trivial": G.Trivial(2),
}
LIE = {
    "SO(3)": G.SO(3),
    "O(4)": G.O(4),
    "SO(2, 2)": G.SO(2, 2),
    "O(1, 3)": G.Lorentz(),
    "Sp(2)": G.Sp(2),
    "SL(3)": G.SL(3),
    "GL(2)": G.GL(2),
    "U(2)": G.U(2),
    "SU(3)": G.SU(3),
    "SE(2)": G.SE(2),
    "E(3)": G.E(3),
    "Scaling(2)": G.Scaling(2),
    "axis": G.embedded(G.O(2), 3),
}


def slow_basis(rep: Rep) -> Tensor:
    """The null space of all constraints, stacked densely."""
    assert rep.group is not None
    eye = torch.eye(rep.dim, dtype=torch.float64)
    rows = [rep.rho(h).dense() - eye for h in rep.group.discrete]
    rows += [rep.drho(a).dense() for a in rep.group.lie]
    if not rows:
        return eye
    _, s, vh = torch.linalg.svd(torch.cat(rows))
    return vh[int((s > 1e-9 * s.max()).sum()) :].mH


def same_span(a: Tensor, b: Tensor) -> bool:
    dtype = torch.promote_types(a.dtype, b.dtype)
    p, q = (m.to(dtype) @ m.mH.to(dtype) for m in (a, b))
    return a.shape == b.shape and torch.allclose(p, q, rtol=0, atol=1e-9)


def elements(group: G.MatrixGroup) -> list[Tensor]:
    """All elements of a finite group."""
    found = [torch.eye(group.dim, dtype=torch.float64)]
    for g in found:
        for h in group.discrete:
            new = h @ g
            if not any(torch.allclose(new, old, atol=1e-6) for old in found):
                found.append(new)
    return found


def worst_move(rep: Rep, basis: Tensor, times: int = 3) -> float:
    """Largest change of a basis vector under random elements, relative to their size."""
    assert rep.group is not None
    random = torch.Generator().manual_seed(1)
    worst = torch.zeros(())
    for _ in range(times):
        rho = rep.rho(rep.group.sample(random))
        probe = torch.randn(rep.dim, generator=random, dtype=torch.float64)
        size = torch.clamp((rho @ probe).norm() / probe.norm(), min=1.0)
        change = (rho @ basis - basis).abs().amax() / size if basis.numel() else torch.zeros(())
        worst = torch.maximum(worst, change)
    return float(worst)


def rank(rep: Rep) -> int:
    return EquivariantBasis(rep).rank


def _cases(*, fast: bool) -> list[object]:
    found = []
    for entry in entries():
        n = entry.group().dim ** (entry.p + entry.q)
        orbits = entry.table in ("A.1", "A.2")
        if fast == (n <= FAST or (orbits and n <= 20 * FAST)):
            found.append(entry)
    return [pytest.param(e, id=f"{e.table} {e.group()} T({e.p},{e.q})") for e in found]


@pytest.mark.parametrize("entry", _cases(fast=True))
def test_ranks_are_the_published_ones(entry: Entry) -> None:
    assert rank(T(entry.p, entry.q)(entry.group())) == entry.rank


@pytest.mark.slow
@pytest.mark.parametrize("entry", _cases(fast=False))
def test_large_ranks_are_the_published_ones(entry: Entry) -> None:
    assert EquivariantBasis(T(entry.p, entry.q)(entry.group()), limit_gib=8).rank == entry.rank


@pytest.mark.parametrize("name", [*FINITE, *LIE])
@pytest.mark.parametrize("pq", [(1, 0), (2, 0), (1, 1), (2, 1), (2, 2)], ids=str)
def test_the_basis_is_that_of_the_dense_constraints(name: str, pq: tuple[int, int]) -> None:
    rep = T(*pq)({**FINITE, **LIE}[name])
    if rep.dim > 300:
        pytest.skip("the dense oracle would take long")
    basis = equivariant_basis(rep)
    assert same_span(basis, slow_basis(rep))
    eye = torch.eye(basis.shape[1], dtype=basis.dtype)
    assert torch.allclose(basis.mH @ basis, eye, rtol=0, atol=1e-12)
    assert worst_move(rep, basis) < 1e-8


LARGE: dict[str, tuple[Rep, int]] = {
    "SO(3)": (T(7)(G.SO(3)), 36),
    "SO(5)": (T(5)(G.SO(5)), 1),
    "Lorentz": (T(4, 2)(G.SO13()), 25),
    "SU(4)": (T(3, 3)(G.SU(4)), 6),
    "S(6)": (T(5)(G.S(6)), 52),
    "products": (T(2, 2)(G.S(3) * G.SO(3)), 42),
}


@pytest.mark.parametrize("name", LARGE)
def test_random_elements_leave_large_bases_alone(name: str) -> None:
    rep, r = LARGE[name]
    basis = equivariant_basis(rep)
    assert basis.shape == (rep.dim, r)
    assert worst_move(rep, basis) < 1e-8


def test_the_check_of_random_elements_can_fail() -> None:
    rep = T(2)(G.SO(3))
    off = equivariant_basis(rep) + 1e-7 * torch.eye(9, dtype=torch.float64)[:, 1:2]
    assert worst_move(rep, off) > 1e-8
    assert not worst_move(rep, off * torch.nan) < 1e-8


@pytest.mark.parametrize("name", FINITE)
def test_finite_groups_have_the_rank_that_characters_count(name: str) -> None:
    group = FINITE[name]
    characters = torch.stack([torch.trace(g) for g in elements(group)])
    for k in range(1, 5):
        # Burnside: the number of invariants is the mean of the character
        expected = float((characters**k).mean())
        assert rank(T(k)(group)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["A(4)", "D(5)", "signed"])
def test_the_projection_is_the_mean_over_the_group(name: str) -> None:
    rep = T(3)(FINITE[name])
    mean = torch.stack([rep.rho(g).dense() for g in elements(FINITE[name])]).mean(0)
    basis = equivariant_basis(rep)
    assert torch.allclose(basis @ basis.T, mean, rtol=0, atol=1e-10)


def icosahedron() -> G.MatrixGroup:
    phi = (1 + 5**0.5) / 2
    fifth = torch.tensor(
        [[1, -phi, 1 / phi], [phi, 1 / phi, -1], [1 / phi, 1, phi]], dtype=torch.float64
    )
    return G.MatrixGroup("icosahedron", [G.Z(3).discrete[0], fifth / 2])


def test_a_finite_group_of_full_matrices() -> None:
    group = icosahedron()
    characters = torch.stack([torch.trace(g) for g in elements(group)])
    assert len(characters) == 60
    for k in (2, 5, 7):  # the last is solved axis by axis, without the sparse constraint
        assert rank(T(k)(group)) == round(float((characters**k).mean()))
    rep = T(6)(group)
    assert worst_move(rep, equivariant_basis(rep)) < 1e-8


def stirling(k: int, j: int) -> int:
    return sum((-1) ** i * math.comb(j, i) * (j - i) ** k for i in range(j + 1)) // math.factorial(
        j
    )


@settings(max_examples=8)
@given(n=st.integers(1, 7), k=st.integers(0, 5))
def test_permutations_are_counted_by_set_partitions(n: int, k: int) -> None:
    # Bell's number, cut off at n parts
    assert rank(T(k)(G.S(n))) == sum(stirling(k, j) for j in range(n + 1))


def test_rotations_are_counted_by_clebsch_gordan_and_motzkin() -> None:
    copies = {1: 1}  # of spin l in V^k
    for k in range(1, 8):
        # R_k + R_{k+1} = M_k with Motzkin numbers M
        riordan = (-1) ** k + sum((-1) ** (k - 1 - j) * motzkin(j) for j in range(k))
        assert rank(T(k)(G.SO(3))) == copies.get(0, 0) == riordan
        spins = range(k + 2)
        # spin j times spin 1 holds the spins from |j - 1| to j + 1
        copies = {s: sum(c for j, c in copies.items() if abs(j - 1) <= s <= j + 1) for s in spins}


def motzkin(k: int) -> int:
    return sum(math.comb(k, 2 * i) * math.comb(2 * i, i) // (i + 1) for i in range(k // 2 + 1))


def test_other_counts_of_theory() -> None:
    catalan = [math.comb(2 * k, k) // (k + 1) for k in range(5)]
    assert [rank(T(2 * k)(G.Sp(1))) for k in range(4)] == catalan[:4]
    assert [rank(T(2 * k)(G.SO(2))) for k in range(4)] == [math.comb(2 * k, k) for k in range(4)]
    # GL(n) is counted by permutations, SL(n) has the determinant besides
    assert [rank(T(k, k)(G.GL(3))) for k in range(4)] == [1, 1, 2, 6]
    assert rank(T(3)(G.GL(3))) == 0 and rank(T(3)(G.SL(3))) == 1
    assert [rank(T(k)(G.Z(5))) for k in (1, 2, 3)] == [1, 5, 25]


def test_known_bases() -> None:
    assert torch.allclose(
        equivariant_basis(T(2)(G.SO(3))).abs().reshape(3, 3), torch.eye(3).double() / 3**0.5
    )
    levi_civita = torch.zeros(3, 3, 3, dtype=torch.float64)
    for p in itertools.permutations(range(3)):
        levi_civita[p] = torch.linalg.det(torch.eye(3)[list(p)])
    assert same_span(equivariant_basis(T(3)(G.SO(3))), levi_civita.reshape(27, 1) / 6**0.5)
    metric = torch.diag(torch.tensor([1.0, -1, -1, -1]).double()).reshape(16, 1) / 2
    assert same_span(equivariant_basis(T(2)(G.Lorentz())), metric)


def test_the_cube_keeps_its_cubies_together() -> None:
    # 4.3e19 elements with two orbits of facets. Of pairs: in a corner the same facet, the next or
    # the one after, and another corner; of edges three; and an edge with a corner, twice.
    cube = G.RubiksCube()
    assert cube.dim == 48 and [rank(T(k)(cube)) for k in (1, 2, 3)] == [2, 9, 51]
    # Table A.3 says 2, 6, 22: what independent permutations of 24 + 24 facets give
    eye, parts = torch.eye(24, dtype=torch.float64), G.S(24).discrete
    loose = [torch.block_diag(h, eye) for h in parts] + [torch.block_diag(eye, h) for h in parts]
    assert [rank(T(k)(G.MatrixGroup("24 + 24", loose))) for k in (1, 2, 3)] == [2, 6, 22]


def test_maps_are_matrices_flattened_row_major() -> None:
    group = G.SE(2)
    rep_in, rep_out = 2 * V(group) + T(1, 1)(group), V(group).T + V(group) * V(group) + 1
    q = equivariant_basis(rep_in >> rep_out)
    assert q.shape[1] > 0
    w = (q @ torch.randn(q.shape[1], dtype=q.dtype)).reshape(rep_out.dim, rep_in.dim)
    g = group.sample()
    assert torch.allclose(rep_out.rho(g) @ w, w @ rep_in.rho(g).dense(), atol=1e-10)


SUMS: dict[str, Callable[[], Rep]] = {
    "sum": lambda: (3 * V + T(2) + 2)(G.SO(3)),
    "mixed": lambda: (V + T(1, 1) + V.T + V)(G.SE(2)),
    "product of sums": lambda: ((V + 2) * (V.T + 1 + V))(G.SL(2)),
    "inside": lambda: (V * (2 * V + 1) * V)(G.S(3)),
    "product group": lambda: (2 * V + 1)(G.S(3) * G.SO(2)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_solved_part_by_part(name: str) -> None:
    rep = SUMS[name]()
    basis = EquivariantBasis(rep)
    dense = basis.to_dense()
    assert dense.shape == basis.shape and same_span(dense, slow_basis(rep))
    assert torch.allclose(dense.mH @ dense, torch.eye(basis.rank).double(), atol=1e-12)
    # a sum is cut into its parts: no block is as large as the whole
    assert all(b.solution.shape[0] < rep.dim for b in basis.blocks)


def test_a_direct_product_is_solved_factor_by_factor() -> None:
    s, r = G.S(3), G.SO(3)
    both = s * r
    alone = [equivariant_basis(T(2)(g)) for g in (s, r)]
    rep = G.Factor(both, 0) ** 2 * G.Factor(both, 1) ** 2
    assert same_span(equivariant_basis(rep), torch.kron(*alone))
    assert rank(V(both) ** 2) == alone[0].shape[1] * alone[1].shape[1]
    grid = G.Translations(3, 4)
    assert rank(V(grid) >> V(grid)) == 12  # circular convolutions


WREATHS = {
    "sets of sets": G.Wreath(G.S(3), G.S(2)),
    "intransitive": G.Wreath(
        G.permutations("swap", [[1, 0, 2]], 3), G.permutations("p", [[1, 0, 2]], 3)
    ),
    "rotations": G.Wreath(G.SO(2), G.Z(3)),
    "not orthogonal": G.Wreath(G.SE(1), G.S(2)),
}


@pytest.mark.parametrize("name", WREATHS)
def test_the_rule_of_wreath_products(name: str) -> None:
    group = WREATHS[name]
    for rep in (V(group) >> V(group), V(group) * V(group), V(group).T * V(group).T):
        assert same_span(equivariant_basis(rep), slow_basis(rep))


def test_nested_groups_have_nested_bases() -> None:
    space = G.O(3)
    axis = space.subgroup("about z", lie=G.embedded(G.SO(2), 3).lie)
    rep = T(2)(G.GL(3)), T(2)(space), T(2)(space).restrict(axis)
    ranks = [rank(r) for r in rep]
    assert ranks == [0, 1, 3]
    larger, smaller = equivariant_basis(rep[1]), equivariant_basis(rep[2])
    assert torch.allclose(smaller @ (smaller.T @ larger), larger, atol=1e-12)


def test_memory_is_predicted() -> None:
    with pytest.raises(ValueError, match=r"needs .* GiB, limit_gib is 0\.01; use EquivariantBasis"):
        EquivariantBasis(T(6)(G.Z(4))).to_dense(limit_gib=0.01)
    with pytest.raises(ValueError, match=r"orbits of 10,077,696 positions, limit_gib is 0\.5"):
        equivariant_basis(T(9)(G.S(6)), limit_gib=0.5)
    with pytest.raises(
        ValueError, match=r"2\.24e\+04 GiB for one vector of size 1,000,000,000,000"
    ):
        equivariant_basis(T(12)(G.SO(10)))
    with pytest.raises(ValueError, match=r"16 or more vectors of size 15,625, limit_gib"):
        equivariant_basis(T(6)(G.SO(5)), limit_gib=0.003)


def test_what_has_no_basis() -> None:
    with pytest.raises(ValueError, match=r"V\*\*2 has no group yet; bind it"):
        equivariant_basis(T(2))
    with pytest.raises(TypeError, match="a basis is one of a representation"):
        equivariant_basis(G.SO(3))  # type: ignore[arg-type]
    assert torch.equal(equivariant_basis(T(0)(G.SO(3))), torch.ones(1, 1).double())
    assert equivariant_basis(0 * V(G.SO(3))).shape == (0, 0)
