"""The audit of a network in one call, its report, and the finder of candidates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symlearn
from symlearn.audit import (
    TRANSFORMATIONS,
    Affine,
    AuditConfig,
    NotFiniteError,
    affine_basis,
    invariances,
    lie_derivative,
)

pytestmark = pytest.mark.core


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 3),
    )


def images(n: int = 6, size: int = 8) -> Tensor:
    return torch.randn(n, 1, size, size)


def test_an_audit_has_all_measurements() -> None:
    found = symlearn.audit(net(), images(), config=AuditConfig(eq_t=True))
    assert [row.transform for row in found.lie] == [t.transform for t in found.layers]
    for row in found.lie:
        assert found.layer(row.transform).mean_square == pytest.approx(row.mean_square, rel=1e-3)
    assert list(found.translations) == ["EQ-T", "EQ-T_frac"]
    assert len(found.metrics) == 3
    with pytest.raises(KeyError, match=r"no table for 'stretch'.*rotation"):
        found.layer("stretch")


def test_what_is_not_wanted_is_left_out() -> None:
    config = AuditConfig(layers=False, metrics=False, images=2)
    found = symlearn.audit(net(), images(), "rotation", config)
    assert (found.layers, found.metrics, found.translations, found.n_images) == ((), {}, {}, 2)


def test_the_report(tmp_path: Path) -> None:
    model = net()
    model.add_module("head", nn.Identity())
    model[1].unused = nn.Linear(2, 2)
    found = symlearn.audit(model, images(1), ("rotation", "contrast"), AuditConfig(eq_t=True))
    text = str(found)
    for expected in (
        "mean |Lf|",
        "LEE",
        "rotation by module",
        "exact",
        "1.unused (Linear): not called",
        "EQ-T_frac",
        "top class changes",
    ):
        assert expected in text
    facts = json.loads(found.to_json(tmp_path / "audit.json"))
    assert json.loads((tmp_path / "audit.json").read_text()) == facts
    assert facts["schema"] == 1
    assert facts["lie"][0]["mean_square"] == found.lie[0].mean_square
    assert facts["lie"][0]["mean_square_error"] is None  # one image has no standard error
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.to_json(tmp_path / "nowhere" / "audit.json")


def test_every_form_of_data_is_the_same() -> None:
    model, x = net(), images()
    y = torch.zeros(6)
    config = AuditConfig(layers=False, metrics=False)
    forms = (x, x.numpy(), (x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y), 4))
    found = {symlearn.audit(model, form, "rotation", config).lie[0].mean_square for form in forms}
    assert max(found) == pytest.approx(min(found), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(0, 1, 8, 8), "N >= 1"),
        (torch.zeros(3, 8, 8), r"\[N, C, H, W\]"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.long), "int64"),
        (torch.full((3, 1, 8, 8), float("nan")), "NaN"),
        (np.zeros((2, 5)), r"\[N, C, H, W\]"),
    ],
)
def test_bad_images_are_errors(x: object, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        symlearn.audit(net(), x)  # type: ignore[arg-type]


def test_bad_options_are_errors() -> None:
    with pytest.raises(TypeError, match="not understood"):
        symlearn.audit(net(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown link 'sigmoid'"):
        symlearn.audit(net(), images(), "rotation", AuditConfig(link="sigmoid"))
    with pytest.raises(ValueError, match="unknown output 'map'"):
        symlearn.audit(net(), images(), "rotation", AuditConfig(output="map"))
    with pytest.raises(ValueError, match="number of images is 0"):
        symlearn.audit(net(), images(), "rotation", AuditConfig(images=0))
    with pytest.raises(ValueError, match="memory_gb is 0"):
        symlearn.audit(net(), images(), "rotation", AuditConfig(memory_gb=0))
    with pytest.raises(ValueError, match="the paddings"):
        AuditConfig(padding="edge")
    broken = net()
    nn.init.constant_(broken[4].bias, float("nan"))
    with pytest.raises(NotFiniteError):
        symlearn.audit(broken, images())


def matrix_of(transform: Affine, size: int) -> Tensor:
    basis = torch.eye(size * size, dtype=torch.float64).reshape(-1, size, size)
    return transform.generator(basis).flatten(1).T


def test_a_known_invariance_is_found() -> None:
    """Linear features that vanish on a generator's image: its direction, and only it, is free."""
    known = {"rotation": 1.0, "scaling": -0.5, "translation_x": 0.2}
    basis = affine_basis()
    a = sum(known.get(g.name, 0.0) * matrix_of(g, 6) for g in basis)  # type: ignore[arg-type]
    left, values, _ = torch.linalg.svd(torch.as_tensor(a))
    quiet = left[:, values < 1e-9]  # w with w^T A = 0
    assert 0 < quiet.shape[1] < 36
    blind = nn.Sequential(nn.Flatten(), nn.Linear(36, quiet.shape[1], bias=False)).double()
    with torch.no_grad():
        blind[1].weight.copy_(quiet.T)
    x = torch.randn(20, 1, 6, 6, dtype=torch.float64)
    best, second, *_ = found = invariances(blind, x, batch=7)
    assert best.change < 1e-20
    assert second.change > 1e-6
    assert found[-1].relative == pytest.approx(1)
    scale = best.coefficients["rotation"]
    for g in basis:
        assert best.coefficients[g.name] / scale == pytest.approx(known.get(g.name, 0), abs=1e-6)
    lies = sum(
        c * lie_derivative(blind, x, g)
        for g, c in zip(basis, second.coefficients.values(), strict=True)
    )
    assert second.change == pytest.approx(float(torch.as_tensor(lies).square().mean()), rel=1e-6)


def test_dependent_generators_are_an_error() -> None:
    turn = TRANSFORMATIONS["rotation"]
    with pytest.raises(ValueError, match="independently"):
        invariances(net(), images(), (turn, turn))
    with pytest.raises(ValueError, match="independently"):
        invariances(net(), torch.ones(2, 1, 8, 8))
