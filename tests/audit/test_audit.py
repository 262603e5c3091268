"""The audit of a network in one call, and its report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symlearn
from symlearn.audit import (
    Audit,
    AuditConfig,
    NotFiniteError,
    invariances,
    linear_invariances,
    split_operator,
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
    assert facts["format"] == "symlearn.audit/1"
    assert facts["lie"][0]["mean_square"] == found.lie[0].mean_square
    assert facts["lie"][0]["mean_square_error"] is None  # one image has no standard error
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.to_json(tmp_path / "nowhere" / "audit.json")


def test_json_restores_the_audit(tmp_path: Path) -> None:
    model = net()
    model[1].unused = nn.Linear(2, 2)
    found = symlearn.audit(model, images(1), ("rotation", "contrast"), AuditConfig(eq_t=True))
    text = found.to_json(tmp_path / "audit.json")
    for again in (Audit.from_json(text), Audit.from_json(tmp_path / "audit.json")):
        assert again.to_json() == text
        assert str(again) == str(found)
        assert math.isnan(again.lie[0].mean_square_error)
    facts = json.loads(text)
    for changed, error in (
        ({"format": "symlearn.audit/2"}, r"this version reads 'symlearn.audit/1'"),
        ({"n_images": "6"}, r"n_images: needs a whole number"),
        ({"more": 1}, r"more: unknown field"),
        ({"layers": [{}]}, r"layers\[0\].rows: missing"),
    ):
        with pytest.raises(ValueError, match=error):
            Audit.from_json(json.dumps(facts | changed))
    with pytest.raises(ValueError, match="truncated"):
        Audit.from_json(text[:500])


def test_the_picture(tmp_path: Path) -> None:
    found = symlearn.audit(net(), images(), ("rotation", "contrast"))
    figure = found.plot(tmp_path / "audit.png")
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 2
    table = found.layer("rotation")
    drawn = [row for row in table.measured if row.mean_square > 1e-3 * table.mean_square]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [row.module for row in drawn]
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx([row.share for row in drawn])
    assert sum(bars) == pytest.approx(1, abs=1e-2)
    fewer = found.plot(most=2)
    assert len(fewer.axes[0].get_yticklabels()) == 2
    one = symlearn.audit(net(), images(1), "rotation").plot()  # no standard errors
    assert one.axes[0].get_title().startswith("rotation: LEE ")
    config = AuditConfig(layers=False, metrics=False)
    with pytest.raises(ValueError, match="audit with layers=True"):
        symlearn.audit(net(), images(), "rotation", config).plot()


def test_long_work_shows_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = net(), images()
    symlearn.audit(model, x, "rotation", AuditConfig(eq_t=True, progress=True))
    invariances(model, x, draws=19, progress=True)
    linear_invariances(nn.Linear(2, 2), torch.randn(30, 2), draws=19, progress=True)
    split_operator(nn.Conv2d(1, 1, 3), (1, 4, 4), progress=True)
    shown = capsys.readouterr()
    for name in (
        *("Lie derivatives", "layers", "finite translations", "EQ-T", "EQ-T_frac"),
        *("candidates", "orbits"),
    ):
        assert name in shown.err
    done = [line.split() for line in shown.err.splitlines() if "/" in line]
    assert len(done) == 8
    for words in done:
        (steps,) = (word for word in words if "/" in word)
        assert len(set(steps.split("/"))) == 1  # all steps were counted
    assert shown.out == ""
    symlearn.audit(model, x, "rotation", AuditConfig(eq_t=True))  # not a terminal
    assert capsys.readouterr().err == ""


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
