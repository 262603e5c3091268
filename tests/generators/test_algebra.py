"""Brackets, structure constants, canonical form and spectra of generators."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from symlearn.generators import (
    affine_generators,
    canonical,
    derivative,
    spectrum,
    structure,
    unscrambled,
)

pytestmark = pytest.mark.core


def so(d: int) -> Tensor:
    """The basis ``E_ab - E_ba`` of so(d)."""
    pairs = list(itertools.combinations(range(d), 2))
    out = torch.zeros(len(pairs), d, d, dtype=torch.float64)
    for i, (a, b) in enumerate(pairs):
        out[i, a, b], out[i, b, a] = 1.0, -1.0
    return out


def slow_constants(given: Tensor) -> tuple[Tensor, Tensor]:
    """One bracket at a time, by least squares on its entries."""
    n = len(given)
    constants = torch.zeros(n, n, n, dtype=torch.float64)
    errors = torch.zeros(n, n, dtype=torch.float64)
    for i, j in itertools.product(range(n), repeat=2):
        bracket = (given[i] @ given[j] - given[j] @ given[i]).flatten()
        constants[i, j] = torch.linalg.lstsq(given.flatten(1).T, bracket.unsqueeze(1)).solution[
            :, 0
        ]
        rest = bracket - constants[i, j] @ given.flatten(1)
        errors[i, j] = rest.norm() / bracket.norm() if i != j else 0
    return constants, errors


@pytest.mark.parametrize("d", [3, 4, 5])
def test_rotations_close(d: int) -> None:
    generator = torch.Generator().manual_seed(d)
    mixed = torch.randn(d * (d - 1) // 2, d * (d - 1) // 2, generator=generator).double()
    basis = torch.einsum("ij,jab->iab", mixed, so(d))
    found = structure(basis)
    torch.testing.assert_close(
        found.closure_error, torch.zeros_like(found.closure_error), atol=1e-9, rtol=0
    )
    brackets = torch.einsum("ijk,kab->ijab", found.constants, basis)
    products = basis.unsqueeze(1) @ basis.unsqueeze(0)
    torch.testing.assert_close(brackets, products - products.transpose(0, 1))
    torch.testing.assert_close(found.constants, -found.constants.transpose(0, 1))


def test_random_matrices_do_not_close() -> None:
    given = torch.randn(3, 6, 6, dtype=torch.float64)
    found = structure(given)
    constants, errors = slow_constants(given)
    torch.testing.assert_close(found.constants, constants, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.closure_error, errors, rtol=1e-8, atol=1e-8)
    assert float(found.closure_error[0, 1]) > 0.5


def test_commuting_generators_have_no_closure_error() -> None:
    d = derivative(5)
    eye = torch.eye(5, dtype=torch.float64)
    shifts = torch.stack([torch.kron(d, eye), torch.kron(eye, d)])
    found = structure(shifts)
    assert not found.constants.any()
    assert not found.closure_error.any()


def test_the_identity_may_be_in_the_brackets() -> None:
    """Generators that are known up to multiples of the identity have the same brackets."""
    shifted = so(3) + torch.tensor([1.0, -2.0, 0.5]).reshape(3, 1, 1) * torch.eye(3)
    assert float(structure(shifted).closure_error.max()) > 0.2
    found = structure(shifted, identity=True)
    assert float(found.closure_error.max()) < 1e-10
    torch.testing.assert_close(found.constants, structure(so(3)).constants)


def test_affine_generators_nearly_close_on_smooth_maps() -> None:
    """[rotation, translation_x] is a translation along y, but for the seam of the periodic map."""
    names = ("rotation", "translation_x", "translation_y")
    turn, right, down = (g.matrix() for g in affine_generators((17, 17), names))
    y, x = torch.meshgrid(*[torch.arange(17, dtype=torch.float64) - 8] * 2, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / 6).flatten()
    # turned against the clock, with rows downwards, a step to the right is one upwards
    torch.testing.assert_close(
        (turn @ right - right @ turn) @ blob, -down @ blob, rtol=0, atol=1e-3
    )
    assert float((down @ blob).abs().max()) > 0.2


def test_canonical_form_is_the_same_map_in_one_basis() -> None:
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    given, w = torch.randn(3, 5, 6, **options), torch.randn(3, 2, 4, **options)
    mix = torch.randn(3, 3, **options)
    other = torch.einsum("ij,jab->iab", mix, given)
    weights = torch.einsum("ij,jab->iab", torch.linalg.inv(mix).T, w)
    whole = torch.einsum("iab,icd->acbd", given, w)
    for basis, basis_w in ((given, w), (other, weights)):
        found = canonical(basis, basis_w)
        rebuilt = torch.einsum("k,kab,kcd->acbd", found.strengths, found.matrices, found.weights)
        torch.testing.assert_close(rebuilt, whole)
        for unit in (found.matrices, found.weights):
            gram = unit.flatten(1) @ unit.flatten(1).T
            torch.testing.assert_close(gram, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(canonical(given, w).strengths, canonical(other, weights).strengths)


def test_canonical_form_leaves_out_what_adds_nothing() -> None:
    given = torch.randn(2, 4, 4, dtype=torch.float64)
    w = torch.randn(1, 3, 3, dtype=torch.float64)
    twice = canonical(torch.cat([given[:1], given[:1], given[1:]]), torch.cat([w, -2 * w, 0 * w]))
    assert len(twice.strengths) == 1
    torch.testing.assert_close(twice.strengths[0], given[0].norm() * w.norm())


def test_spectra_do_not_depend_on_the_order_of_pixels() -> None:
    given = derivative(7)
    order = torch.randperm(7)
    for matrix in (given, given[order][:, order]):
        found = spectrum(matrix)
        waves = torch.tensor([3, 3, 2, 2, 1, 1, 0]) * 2 * torch.pi / 7
        torch.testing.assert_close(found.eigenvalues.imag.abs(), waves.double())
        torch.testing.assert_close(found.singular_values, waves.double())
        assert float(found.eigenvalues.real.abs().max()) < 1e-10
        assert found.rotation_share == pytest.approx(1.0)
    assert spectrum(given @ given).rotation_share == pytest.approx(0.0)
    assert spectrum(torch.zeros(2, 2)).rotation_share == 0.0


def test_unscrambled_generators_act_on_the_original_maps() -> None:
    order, x = torch.randperm(6), torch.randn(6, dtype=torch.float64)
    given = torch.randn(2, 6, 6, dtype=torch.float64)
    found = unscrambled(given, order)
    torch.testing.assert_close((found @ x)[:, order], given @ x[order])
    torch.testing.assert_close(unscrambled(given[0], order), found[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: structure(torch.randn(2, 3, 4)), ValueError, "square"),
        (lambda: structure(torch.ones(2, 3, 3)), ValueError, "linearly dependent"),
        (lambda: structure(torch.zeros(1, 3, 3)), ValueError, "linearly dependent"),
        (lambda: structure([[1.0]]), TypeError, "tensor"),  # type: ignore[arg-type]
        (lambda: structure(torch.full((1, 2, 2), float("nan"))), ValueError, "NaN"),
        (lambda: structure(torch.zeros(0, 2, 2)), ValueError, "shape"),
        (lambda: unscrambled(torch.eye(3), torch.tensor([0, 1, 1])), ValueError, "permutation"),
        (lambda: spectrum(torch.ones(2, 3)), ValueError, "square"),
        (lambda: canonical(torch.ones(2, 3, 3), torch.ones(1, 2, 2)), ValueError, "one for each"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
