"""The solvers: null spaces by either method, orbits, sectors, and what was solved before."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import symlearn.groups as G
from symlearn.groups import T, cache, equivariant_basis, solver
from symlearn.groups.nullspace import Array, dense_null, krylov_null, project_null, real_basis
from symlearn.groups.orbits import is_signed_permutation, orbit_basis
from symlearn.groups.sector import Constraints, Sector, kron_apply

pytestmark = pytest.mark.core


def singular(rows: int, columns: int, nullity: int, *, is_real: bool, seed: int = 0) -> Array:
    """A matrix of a given nullity whose other singular values lie between one and three."""
    random = np.random.default_rng(seed)

    def orthonormal(n: int) -> Array:
        x = random.standard_normal((n, n)) + (0 if is_real else 1j) * random.standard_normal((n, n))
        return np.asarray(np.linalg.qr(x)[0])

    rank = columns - nullity
    sigma = np.zeros((rows, columns))
    sigma[np.arange(rank), np.arange(rank)] = random.uniform(1, 3, rank)
    return np.asarray(orthonormal(rows) @ sigma @ orthonormal(columns))


def no_limit(columns: int) -> None:
    del columns


@settings(max_examples=12)
@given(st.integers(1, 30), st.integers(0, 30), st.booleans(), st.integers(0, 5))
def test_null_spaces(columns: int, nullity: int, is_real: bool, seed: int) -> None:
    nullity = min(nullity, columns)
    c = singular(columns + 3, columns, nullity, is_real=is_real, seed=seed)
    found = [
        dense_null(c),
        krylov_null(lambda x: c.conj().T @ (c @ x), columns, is_real=is_real, check=no_limit),
    ]
    for q in found:
        assert q.shape == (columns, nullity)
        assert np.abs(c @ q).max(initial=0) < 1e-9
        assert np.allclose(q.conj().T @ q, np.eye(nullity), rtol=0, atol=1e-10)


def test_wide_null_spaces_take_several_blocks() -> None:
    c = singular(120, 120, 100, is_real=True)
    asked: list[int] = []
    q = krylov_null(lambda x: c.T @ (c @ x), 120, is_real=True, check=asked.append)
    assert q.shape == (120, 100) and asked == [16, 32, 64, 120]
    assert np.abs(c @ q).max() < 1e-10


def test_conjugate_gradients_need_a_step_per_eigenvalue() -> None:
    values = np.repeat([0.0, 1.0, 4.0, 9.0], 25)
    steps = []

    def gram(x: Array) -> Array:
        steps.append(1)
        return values[:, None] * x

    x = project_null(gram, np.random.default_rng(0).standard_normal((100, 8)))
    assert np.abs(x[25:]).max() < 1e-12 and len(steps) == 4


def test_nearly_singular_constraints() -> None:
    c = np.diag([1.0, 1e-8, 0.0])
    with pytest.warns(UserWarning, match="rank of the equivariant basis is uncertain"):
        assert dense_null(c).shape == (3, 1)
    with pytest.raises(ValueError, match="did not converge"):
        project_null(lambda x: x * np.nan, np.ones((3, 1)))


def test_a_real_basis_of_a_space_closed_under_conjugation() -> None:
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 4)))[0]
    phases = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 8)).view(complex))[0]
    found = real_basis(q @ phases)
    assert not np.iscomplexobj(found)
    assert np.allclose(found @ found.T, q @ q.T) and np.allclose(found.T @ found, np.eye(4))


@settings(max_examples=12)
@given(data=st.data())
def test_orbits_of_signed_permutations(data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    generators = []
    for _ in range(data.draw(st.integers(1, 2))):
        matrices = []
        for d in dims:
            p = data.draw(st.permutations(range(d)))
            signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=d, max_size=d))
            matrices.append(np.eye(d)[:, list(p)] * np.array(signs))
        generators.append(matrices)
    q = orbit_basis(generators, dims).toarray()
    eye = np.eye(len(q))
    c = np.concatenate([kron_apply(m, eye) - eye for m in generators])
    expected = dense_null(c)
    assert np.allclose(q @ q.T, expected @ expected.T) and q.shape == expected.shape


def test_what_is_a_signed_permutation() -> None:
    assert is_signed_permutation(np.array([[0.0, -1], [1, 0]]))
    for bad in ([[1.0, 1], [0, 0]], [[2.0, 0], [0, 1]], [[1.0, 1], [1, 0]], [[np.nan, 0], [0, 1]]):
        assert not is_signed_permutation(np.array(bad))
    assert not is_signed_permutation(np.eye(2) * 1j)


def test_a_sector_holds_the_tensors_of_weight_zero() -> None:
    lie = tuple((a.numpy(),) for a in G.SO(3).lie)
    sector = Sector(Constraints(lie, (), (0,) * 6))
    # central trinomial coefficient: 6 spins of -1, 0, 1 that add to zero
    assert sector.size == 141 and sector.n == 729
    basis = sector.expand(np.eye(141))
    about_z = next(g for g in lie if np.abs(kron_sum(g[0], 6, basis)).max() < 1e-12)
    assert about_z is lie[0]
    assert np.allclose(basis.conj().T @ basis, np.eye(141))


def kron_sum(a: Array, k: int, x: Array) -> Array:
    eye = np.eye(len(a))
    return np.asarray(
        sum(kron_apply([a if i == j else eye for i in range(k)], x) for j in range(k))
    )


def test_the_dense_and_the_krylov_way_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for rep in (T(5)(G.SO(3)), T(2, 2)(G.SE(2)), T(2, 2)(G.SU(3)), T(4)(G.O(4)), T(4)(G.D(5))):
        found = []
        for columns in (10_000, 0):
            cache.clear()
            monkeypatch.setattr(solver, "DENSE", columns)
            found.append(equivariant_basis(rep))
        a, b = (q @ q.mH for q in found)
        assert found[0].shape == found[1].shape and torch.allclose(a, b, rtol=0, atol=1e-10)


def test_generators_of_any_scale() -> None:
    for scale in (1e-9, 1e7):
        group = G.MatrixGroup("scaled", lie=[scale * a for a in G.SL(2).lie])
        assert equivariant_basis(T(2, 2)(group)).shape[1] == 2
    uneven = G.MatrixGroup("uneven", lie=[a * 10.0**i for i, a in enumerate(G.SO(4).lie)])
    assert equivariant_basis(T(4)(uneven)).shape[1] == 4


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "bases"))
    cache.clear()
    return tmp_path / "bases"


BIG = T(6)(G.SO(3))  # 729 x 15 doubles


def test_solutions_are_kept_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = equivariant_basis(BIG)
    (file,) = folder.iterdir()
    assert file.suffix == ".npy"
    cache.clear()
    monkeypatch.setattr(solver, "_fresh", lambda *_: pytest.fail("solved again"))
    assert torch.equal(equivariant_basis(BIG), first)
    # the key is the content: another name, and an order of factors, are the same problem
    same = G.MatrixGroup("renamed", lie=G.SO(3).lie)
    assert torch.equal(equivariant_basis(T(6)(same)), first)


def test_the_order_of_factors_does_not_matter(folder: Path) -> None:
    group = G.SL(2)
    v, w = T(1)(group), T(0, 1)(group)
    for rep in (v * v * v * w * w * w, v * w * v * w * v * w, w * w * v * v * w * v):
        basis = equivariant_basis(rep)
        g = group.sample()
        assert basis.shape[1] == 5 and torch.allclose(rep.rho(g) @ basis, basis, atol=1e-9)
    assert len(cache._recent) == 1


@pytest.mark.parametrize("damage", ["truncated", "foreign", "numbers", "pickle", "shape"])
def test_damaged_files_count_as_absent(folder: Path, damage: str) -> None:
    first = equivariant_basis(BIG)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        file.write_bytes(b"not a numpy file")
    elif damage == "numbers":
        file.write_bytes(content[:-800] + b"\0" * 800)
    elif damage == "pickle":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    else:
        np.save(file, np.eye(3))
    cache.clear()
    assert torch.equal(equivariant_basis(BIG), first)
    assert file.read_bytes() == content


def test_concurrent_writers(folder: Path) -> None:
    value = np.linalg.qr(np.random.default_rng(0).standard_normal((3000, 8)))[0]
    faults: list[str] = []

    def work() -> None:
        for _ in range(5):
            cache.keep("key", value)
            found = cache._read("key", 3000)
            if found is None or not np.array_equal(found, value):
                faults.append("a reader saw a file that was not whole")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and [f.name for f in folder.iterdir()] == ["key.npy"]


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.folder() is None  # the fixture of all tests here turns files off
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "symlearn"
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(blocked))
    with pytest.warns(UserWarning, match=r"not kept.*SYMLEARN_CACHE_DIR"):
        equivariant_basis(BIG)


def test_memory_of_recent_solutions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_IN_MEMORY", 1000)
    for i in range(5):
        cache.keep(str(i), np.ones((10, 5)))
    assert list(cache._recent) == ["3", "4"]
    assert cache.find("3", 10) is not None and cache.find("0", 10) is None
