"""Invariances are found where there are some, in the right direction, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symlearn import datasets
from symlearn.audit import (
    TRANSFORMATIONS,
    Affine,
    NoDerivativeError,
    NotFiniteError,
    affine_basis,
    invariances,
    lie_derivative,
    linear_invariances,
)
from symlearn.audit.sensitivity import MOST_ROWS, p_value, rows
from symlearn.datasets import ImageSet
from tests.nets import Map

pytestmark = pytest.mark.core


def net() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(12, 3)),
    )


# --- Images ---


def matrix_of(transform: Affine, size: int) -> Tensor:
    basis = torch.eye(size * size, dtype=torch.float64).reshape(-1, size, size)
    return transform.generator(basis).flatten(1).T


def test_a_known_invariance_is_found() -> None:
    """Linear features that vanish on a generator's image: its direction, and only it, is free."""
    known = {"rotation": 1.0, "scaling": -0.5, "translation_x": 0.2}
    basis = affine_basis()
    a = sum(known.get(g.name, 0.0) * matrix_of(g, 6) for g in basis)
    left, values, _ = torch.linalg.svd(torch.as_tensor(a))
    quiet = left[:, values < 1e-9]  # w with w^T A = 0
    assert 0 < quiet.shape[1] < 36
    blind = nn.Sequential(nn.Flatten(), nn.Linear(36, quiet.shape[1], bias=False)).double()
    with torch.no_grad():
        blind[1].weight.copy_(quiet.T)
    x = torch.randn(20, 1, 6, 6, dtype=torch.float64)
    found = invariances(blind, x, draws=19)
    best, second, *_ = found.directions
    assert found.found == (best,)
    assert best.change < 1e-14
    assert best.p_value == 1 / 20
    scale = best.coefficients["rotation"]
    for g in basis:
        assert best.coefficients[g.name] / scale == pytest.approx(known.get(g.name, 0), abs=1e-6)
    assert "yes" in str(found)
    # units: the image changes by one, the outputs by what the Lie derivative says
    for direction in (best, second):
        moves = sum(
            c * g.generator(x) for g, c in zip(basis, direction.coefficients.values(), strict=True)
        )
        assert float(torch.as_tensor(moves).square().mean()) == pytest.approx(1, rel=1e-9)
        for g in basis:
            one = g.generator(x)
            cosine = float((one * moves).mean() / one.square().mean().sqrt())
            assert direction.cosines[g.name] == pytest.approx(cosine, abs=1e-9)
    lies = sum(
        c * lie_derivative(blind, x, g)
        for g, c in zip(basis, second.coefficients.values(), strict=True)
    )
    assert second.change == pytest.approx(float(torch.as_tensor(lies).square().mean()), rel=1e-6)


def test_ratios_compare_with_the_moves_of_other_images() -> None:
    """All pairs by hand: with three images, each has two others."""
    model, x = net().double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    (turn,) = (g for g in affine_basis() if g.name == "rotation")
    moves = turn.generator(x)
    own, other, towards, distance = (list[Tensor]() for _ in range(4))
    for i in range(3):
        for j in range(3):
            for v, kept in ((moves[j], own if i == j else other), (x[j] - x[i], towards)):
                out = torch.func.jvp(model, (x[i : i + 1],), (v[None],))[1].square().mean()
                kept.append(out.detach())
            distance.append((x[j] - x[i]).square().mean())
    expected = torch.stack(own).mean() / (
        torch.stack(other).mean() + 0.01 * sum(towards) / sum(distance) * moves.square().mean()
    )
    found = invariances(model, x, [turn], draws=19)
    # eight random pairings do not meet all six pairs alike
    assert found.directions[0].ratio == pytest.approx(float(expected), rel=0.5)
    assert found.directions[0].change == pytest.approx(
        float(torch.stack(own).mean() / moves.square().mean()), rel=1e-9
    )


def digits(kind: str) -> ImageSet:
    images = datasets.digits()
    images = replace(images, x=F.pad(images.x, (4, 4, 4, 4)))
    if kind == "rotated":
        images = datasets.rotated(images, seed=0)
    if kind.startswith("translated"):
        images = datasets.translated(images, seed=0, max_shift=4)
    if kind.endswith("scrambled"):
        images = datasets.permuted(images, seed=0)
    return images.standardised()


def trained(images: ImageSet) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Flatten(), nn.Linear(256, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU()),
        nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    for _ in range(12):
        for index in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(images.x[index]), images.y[index]).backward()
            optimiser.step()
    return model


@pytest.mark.parametrize(
    "kind",
    [
        *("plain", "rotated", "translated", "scrambled"),
        pytest.param("translated and scrambled", marks=pytest.mark.slow),
    ],
)
def test_trained_networks_show_the_symmetry_of_their_data(kind: str) -> None:
    """Fully connected networks, which are born without any."""
    images = digits(kind)
    found = invariances(trained(images), images.x[:250], draws=19, level=0.05).found
    if kind == "rotated":
        assert len(found) == 1
        assert abs(found[0].cosines["rotation"]) > 0.95
    elif kind == "translated":
        both = found[:2]
        assert len(both) == 2
        for name in ("translation_x", "translation_y"):
            # of two directions of six at random it would be a third
            assert sum(c.cosines[name] ** 2 for c in both) > 0.7
        for c in both:
            assert max(c.cosines, key=lambda n: abs(c.cosines[n])).startswith("translation")
    else:
        assert found == ()


def smooth(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 12, 12, generator=generator, dtype=torch.float64)
    kernel = torch.ones(1, 1, 5, 5, dtype=torch.float64) / 5
    for _ in range(2):
        x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="circular"), kernel)
    return x / x.std()


def test_what_tolerates_every_deformation_has_no_symmetry_of_its_own() -> None:
    """Peaks over an uneven ground stay about as high: the random fields know that this is cheap."""
    ground = 0.6 * smooth(80)[61]

    def peaks(v: Tensor) -> Tensor:
        return torch.stack([(30 * (s * v + ground)).flatten(1).logsumexp(1) for s in (1, -1)], 1)

    found = invariances(Map(peaks), smooth(60), draws=19)
    assert found.directions[0].ratio < 0.3  # on scrambled pixels it is at least 0.45
    assert found.found == ()


def test_what_tolerates_every_arrangement_has_no_symmetry_of_its_own() -> None:
    """Fields change a sum of squares, shifts do not; only scrambled pixels know why."""
    energy = Map(lambda v: v.flatten(1).square().sum(1, keepdim=True))
    shifts = [g for g in affine_basis(padding="circular") if g.name.startswith("translation")]
    found = invariances(energy, smooth(60), shifts, draws=19)
    assert found.directions[0].ratio == 0
    assert found.found == ()


def test_many_outputs_take_combinations() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(9, 40)).double()
    x = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    found = rows(linear, x)
    assert found.shape == (5, MOST_ROWS, 9)
    v = torch.randn(9, dtype=torch.float64)
    several = torch.stack([(rows(linear, x, seed=s)[0] @ v).square().mean() for s in range(60)])
    expected = float((linear[1].weight.detach() @ v).square().mean())
    error = float(several.std()) / 60**0.5
    assert abs(float(several.mean()) - expected) < 4 * error


def test_batches_hardly_matter() -> None:
    model, x = net().double(), torch.randn(40, 1, 8, 8, dtype=torch.float64)
    whole = invariances(model, x, draws=1, level=0.5)
    parts = invariances(model, x, draws=1, level=0.5, memory_gb=2e-4)
    changes = [sum(c.change for c in found.directions) for found in (whole, parts)]
    assert changes[0] != changes[1]  # other pairings
    assert changes[0] == pytest.approx(changes[1], rel=0.2)


def test_p_values_count_the_value_itself() -> None:
    assert p_value(0.5, [1.0, 2.0, 3.0]) == 1 / 4
    assert p_value(2.0, [1.0, 2.0, 3.0]) == 3 / 4
    assert p_value(9.0, [1.0, 2.0, 3.0]) == 1


def test_bad_input_is_an_error() -> None:
    x = torch.randn(6, 1, 8, 8)
    turn = TRANSFORMATIONS["rotation"]
    with pytest.raises(ValueError, match="independently"):
        invariances(net(), x, (turn, turn), draws=19)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="independently"):
        invariances(net(), torch.ones(3, 1, 8, 8), draws=19)
    with pytest.raises(TypeError, match="move pixels"):
        invariances(net(), x, (TRANSFORMATIONS["contrast"],))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least three"):
        invariances(net(), x[:2])
    with pytest.raises(ValueError, match="give more draws"):
        invariances(net(), x, draws=9)
    with pytest.raises(ValueError, match=r"outputs \[N, K\]"):
        invariances(nn.Conv2d(1, 2, 3), x)
    with pytest.raises(NoDerivativeError, match="cut off"):
        invariances(Map(lambda v: v.detach().flatten(1)), x)
    with pytest.raises(NotFiniteError, match="data"):
        invariances(net(), x * float("nan"))
    with pytest.raises(NotFiniteError, match="output"):
        invariances(Map(lambda v: v.flatten(1) * float("nan")), x)
    with pytest.raises(NotFiniteError, match="Jacobian"):
        invariances(Map(lambda v: (v - v.detach()).abs().sqrt().flatten(1)), x)
    constant = Map(lambda v: 0 * v.flatten(1))
    assert invariances(constant, x, draws=19).found == ()  # nothing tells it from scrambled pixels


# --- Vectors ---


def form(signs: tuple[float, ...]) -> Map:
    return Map(lambda x: (x.square() * torch.tensor(signs).to(x)).sum(1, keepdim=True).sin())


@pytest.mark.parametrize(
    ("signs", "n"), [((1.0, 1.0, 1.0), 3), ((1.0, -1.0, -1.0, -1.0), 6)], ids=["SO(3)", "Lorentz"]
)
def test_the_algebra_of_a_quadratic_form(signs: tuple[float, ...], n: int) -> None:
    x = torch.randn(300, len(signs))
    found = linear_invariances(form(signs), x, draws=19)
    assert len(found.found) == n
    assert found.found == found.directions[:n]
    assert found.directions[n].ratio > 0.5
    assert found.blind == 0
    metric = found.metric()
    assert metric is not None
    expected = torch.diag(torch.tensor(signs, dtype=torch.float64)) / len(signs) ** 0.5
    expected = expected * (1 if sum(signs) >= 0 else -1)
    torch.testing.assert_close(metric[0], expected, rtol=0, atol=1e-4)
    assert metric[1] < 1e-4
    for c in found.found:
        matrix = torch.tensor(c.matrix, dtype=torch.float64)
        assert float(matrix.norm()) == pytest.approx(1)
        assert c.change < 1e-9
    assert "yes" in str(found)


def test_a_trained_network_has_the_algebra_of_its_data() -> None:
    torch.manual_seed(0)
    x = torch.randn(800, 3)
    y = x.norm(dim=1, keepdim=True)
    model = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
    model.append(nn.Linear(64, 1))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(25):
        for index in torch.randperm(800).split(50):
            optimiser.zero_grad()
            F.mse_loss(model(x[index]), y[index]).backward()
            optimiser.step()
    found = linear_invariances(model, x, draws=19)
    assert len(found.found) == 3
    for c in found.found:
        matrix = torch.tensor(c.matrix)
        assert float((matrix + matrix.T).norm()) < 0.2
    metric = found.metric()
    assert metric is not None
    assert float(torch.linalg.eigvalsh(metric[0])[0]) > 0.5  # all signs equal
    scrambled = y[torch.randperm(800)]
    for _ in range(15):
        for index in torch.randperm(800).split(50):
            optimiser.zero_grad()
            F.mse_loss(model(x[index]), scrambled[index]).backward()
            optimiser.step()
    again = linear_invariances(model, x, draws=19)
    assert again.found == ()
    assert again.metric() is None


def test_own_over_other_by_hand() -> None:
    """The ratio of a direction is its change over the change for independent inputs."""
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(50, 2, dtype=torch.float64)
    j = rows(model, x)
    for c in linear_invariances(model, x, draws=1, level=0.5).directions:
        moved = x @ torch.tensor(c.matrix, dtype=torch.float64).T
        own = torch.einsum("nmi,ni->nm", j, moved).square().mean()
        other = torch.einsum("nmi,ki->nkm", j, moved).square().mean()
        assert c.change == pytest.approx(float(own), rel=1e-9)
        assert c.ratio == pytest.approx(float(own / other), rel=1e-6)


def test_what_outputs_and_data_do_not_reach_is_left_out() -> None:
    x = torch.randn(300, 4)
    x[:, 3] = 0
    found = linear_invariances(Map(lambda v: v[:, :2].square().sum(1, keepdim=True)), x, draws=19)
    assert found.blind == 3  # two that the output ignores, one without data
    assert len(found.directions) == 2 * 3
    assert len(found.found) == 1
    assert found.metric() is None  # many forms are preserved


def test_bad_vectors_are_errors() -> None:
    x = torch.randn(100, 3)
    with pytest.raises(ValueError, match="at most 32 numbers"):
        linear_invariances(form((1.0,) * 33), torch.randn(9, 33))
    with pytest.raises(ValueError, match="too few for 9 generators: give at least 18"):
        linear_invariances(form((1.0, 1.0, 1.0)), x[:5], draws=19)
    with pytest.raises(ValueError, match="do not depend"):
        linear_invariances(Map(lambda v: 0 * v), x, draws=19)
    with pytest.raises(ValueError, match="give more draws"):
        linear_invariances(form((1.0, 1.0, 1.0)), x, draws=0)
    with pytest.raises(NotFiniteError, match="data"):
        linear_invariances(Map(lambda v: v.nan_to_num()), x * float("nan"))
