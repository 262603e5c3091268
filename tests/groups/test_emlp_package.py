"""The published package as an oracle: bases of the same groups span the same spaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import symlearn.groups as G
from symlearn.groups import MatrixGroup, T, equivariant_basis

# no extra brings it: it needs jax, and `pip install emlp six`, as it does not say itself
WHY = "the published package is the oracle here: pip install emlp six"
published = pytest.importorskip("emlp.groups", reason=WHY)
PublishedT = pytest.importorskip("emlp.reps", reason=WHY).T

SAME = {
    "SO(3)": (G.SO(3), "SO", (3,)),
    "O(3)": (G.O(3), "O", (3,)),
    "Sp(2)": (G.Sp(2), "Sp", (2,)),
    "SL(3)": (G.SL(3), "SL", (3,)),
    "Lorentz": (G.Lorentz(), "Lorentz", ()),
    "S(4)": (G.S(4), "S", (4,)),
    "Z(4)": (G.Z(4), "Z", (4,)),
    "D(5)": (G.D(5), "D", (5,)),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("pq", [(2, 0), (1, 1), (3, 0), (2, 2)], ids=str)
def test_bases_are_those_of_the_package(name: str, pq: tuple[int, int]) -> None:
    ours, theirs, arguments = SAME[name]
    found = np.asarray(PublishedT(*pq)(getattr(published, theirs)(*arguments)).equivariant_basis())
    # it reorders factors: V before V*, as ours are given here
    basis = equivariant_basis(T(*pq)(ours)).numpy()
    assert basis.shape == found.shape
    assert np.allclose(basis @ basis.T, found @ found.T, atol=2e-4)  # single precision


def test_its_cube_is_not_the_cube() -> None:
    facets = [h @ np.eye(48) for h in published.RubiksCube().discrete_generators]
    theirs = MatrixGroup("published", [torch.tensor(np.asarray(h)).double() for h in facets])
    ranks = [equivariant_basis(T(k)(theirs)).shape[1] for k in (1, 2)]
    assert ranks == [2, 6]  # as published; ours, of the cube's order, has 2, 9
