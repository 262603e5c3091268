"""Vector fields of generators, and their likeness to known ones against chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from symlearn.generators import (
    FIELDS,
    AffineGenerator,
    affine_generators,
    likeness,
    vector_field,
)

pytestmark = pytest.mark.core
SIZE = (6, 5)


def noise(n: int, seed: int, sites: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, sites, sites, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", FIELDS)
def test_known_generators_are_read_as_their_field(name: str) -> None:
    generator = AffineGenerator(name, SIZE)
    brightness = torch.rand(SIZE, dtype=torch.float64)
    found = vector_field(generator.matrix() + torch.diag(brightness.flatten()), SIZE)
    torch.testing.assert_close(found.field, generator.field())
    torch.testing.assert_close(found.scale, brightness)
    assert found.share == pytest.approx(1.0)


def test_the_field_is_the_nearest_one() -> None:
    """Against least squares over all fields, one unknown per site and direction."""
    (given,) = noise(1, 0)
    columns = []
    for name in ("translation_x", "translation_y"):
        moves = AffineGenerator(name, SIZE).matrix()
        columns += [torch.where(torch.arange(30)[:, None] == s, moves, 0.0) for s in range(30)]
    columns += [torch.diag((torch.arange(30) == s).double()) for s in range(30)]
    design = torch.stack(columns).flatten(1).T
    solution = torch.linalg.lstsq(design, given.reshape(-1, 1)).solution[:, 0]
    found = vector_field(given, SIZE)
    torch.testing.assert_close(found.field.reshape(30, 2).T.flatten(), solution[:60])
    torch.testing.assert_close(found.scale.flatten(), solution[60:])
    rest = (design @ solution - given.flatten()).square().sum() / given.square().sum()
    assert found.share == pytest.approx(float(1 - rest))


def test_the_field_on_data_is_the_nearest_on_data() -> None:
    """Weighted least squares, site by site; what images never show is free."""
    (given,) = noise(1, 0)
    images = torch.randn(12, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moment = images.T @ images / 12
    right, down = (AffineGenerator(f"translation_{a}", SIZE).matrix() for a in "xy")
    found = vector_field(given, SIZE, moment)
    fitted = torch.zeros(30, 30, dtype=torch.float64)
    for s in range(30):
        design = torch.stack([right[s], down[s], torch.eye(30, dtype=torch.float64)[s]])
        best = torch.linalg.lstsq((images @ design.T), images @ given[s][:, None]).solution[:, 0]
        row, column = divmod(s, 5)
        torch.testing.assert_close(found.field[row, column], best[:2])
        torch.testing.assert_close(found.scale[row, column], best[2])
        fitted[s] = best @ design
    rest = (images @ (given - fitted).T).square().sum() / (images @ given.T).square().sum()
    assert found.share == pytest.approx(float(1 - rest))


def test_one_axis_and_nothing() -> None:
    found = vector_field(AffineGenerator("stretch", (7,)).matrix(), (7,))
    torch.testing.assert_close(found.field[:, 0], torch.arange(7, dtype=torch.float64) - 3)
    assert vector_field(torch.zeros(7, 7), (7,)).share == 0.0


def test_a_mixed_basis_is_recognised() -> None:
    """Two combinations of rotation and a translation, with noise, span both and nothing else."""
    known = {g.name: g.matrix() for g in affine_generators(SIZE)}
    mixed = torch.stack(
        [
            known["rotation"] - 2 * known["translation_x"],
            known["rotation"] + known["translation_x"] + 3 * torch.eye(30, dtype=torch.float64),
        ]
    )
    found = {one.name: one for one in likeness(mixed + 0.1 * noise(2, 1), SIZE)}
    assert {name for name, one in found.items() if one.found} == {"rotation", "translation_x"}
    # rotation is a little like diagonal: the map is not square. More than chance, less than half
    assert found["diagonal"].cosine < 0.5
    for name in ("rotation", "translation_x"):
        one = found[name]
        assert one.cosine > 0.9 > one.chance + 0.3
        rebuilt = torch.einsum("i,iab->ab", torch.tensor(one.coefficients).double(), mixed)
        rest = rebuilt - rebuilt.diagonal().mean() * torch.eye(30, dtype=torch.float64)
        cosine = (rest * known[name]).sum() / rest.norm() / known[name].norm()
        assert float(cosine) > 0.95
    exact = {one.name: one for one in likeness(mixed, SIZE, draws=119)}
    assert exact["rotation"].cosine == pytest.approx(1.0)


def test_chance_is_not_called_discovery() -> None:
    """Over random and over smooth random generators, p-values are as small as they may be."""
    small = 0
    for seed in range(40):
        given = noise(2, seed)
        if seed % 2:  # smooth on both sides
            blur = torch.exp(-((torch.arange(30)[:, None] - torch.arange(30)).double() ** 2) / 8)
            given = blur @ given @ blur
        (one,) = likeness(given, SIZE, ("rotation",), draws=19, seed=seed)
        small += one.p_value <= 0.1
    assert small <= 10  # 4 expected; more than 10 with probability 0.0005


def test_several_comparisons_are_corrected() -> None:
    given = AffineGenerator("rotation", SIZE).matrix()
    (alone,) = likeness(given, SIZE, ("rotation",), draws=119)
    among = {one.name: one for one in likeness(given, SIZE, draws=119)}
    assert alone.p_value == pytest.approx(1 / 120)
    assert among["rotation"].p_value == pytest.approx(6 / 120)
    assert all(one.p_value <= 1 for one in among.values())


def test_only_what_is_done_to_data_counts() -> None:
    """Two generators that agree on all images are the same in the metric of these images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 4, generator=generator, dtype=torch.float64) @ noise(1, 5)[0, :4]
    moment = images.T @ images / 200
    known = AffineGenerator("rotation", SIZE).matrix()
    outside = torch.eye(30, dtype=torch.float64) - torch.linalg.pinv(images) @ images
    given = known + 5 * noise(1, 3)[0] @ outside
    (plain,) = likeness(given, SIZE, ("rotation",), draws=19)
    (seen,) = likeness(given, SIZE, ("rotation",), second_moment=moment, draws=19)
    assert plain.cosine < 0.5
    assert seen.cosine == pytest.approx(1.0, abs=1e-6)


def test_own_generators_by_name() -> None:
    mine = noise(1, 8)[0]
    (one,) = likeness(2 * mine, SIZE, {"mine": mine}, draws=19)
    assert one.cosine == pytest.approx(1.0)
    assert one.coefficients[0] == pytest.approx(0.5)


def test_repeatable() -> None:
    given = noise(1, 2)
    assert likeness(given, SIZE, draws=119, seed=3) == likeness(given, SIZE, draws=119, seed=3)
    a, b = (likeness(given, SIZE, draws=119, seed=s)[0].chance for s in (3, 4))
    assert a != b


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vector_field(torch.ones(30, 30), (6, 6)), "over 30 sites"),
        (lambda: vector_field(torch.ones(8, 8), (2, 2, 2)), "is not one of maps"),
        (lambda: vector_field(torch.ones(30, 30), SIZE, torch.eye(3)), "30 sites"),
        (lambda: likeness(noise(1, 0), (6, 6)), "36 sites"),
        (lambda: likeness(noise(1, 0), SIZE, draws=100), "give 119 at least"),
        (lambda: likeness(noise(1, 0), SIZE, ("spam",)), "unknown generator 'spam'"),
        (lambda: likeness(noise(1, 0), SIZE, second_moment=torch.eye(4), draws=119), "30 sites"),
        (lambda: likeness(noise(1, 0) / 0, SIZE), "NaN"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
