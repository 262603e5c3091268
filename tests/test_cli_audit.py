"""The command line's audit: every kind of model, tables and JSON, pictures, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import symlearn
from symlearn.audit import Audit, load_exported
from symlearn.audit.exported import kind
from symlearn.cli import main
from tests.fit.problems import blobs

pytestmark = pytest.mark.core

OWN = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2))
def number():
    return 3
"""


def net() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 2)),
    ).eval()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of 16x16 and a module of networks."""
    x, y = blobs(20)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    np.savez(tmp_path / "images.npz", X=padded, y=y.numpy())
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(path: Path, *, any_size: bool = True) -> nn.Module:
    model = net()
    shapes = ({0: torch.export.Dim("n")},) if any_size else None
    program = torch.export.export(model, (torch.zeros(3, 1, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return model


AUDIT = ["--data", "images.npz", "--images", "3", "--transform", "rotation"]


def test_a_function_of_a_module(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = ["--out", "a.json", "--plot", "a.png", "--eq-t"]
    assert main(["audit", "mine:net", *AUDIT, "--transform", "shear,contrast", *written]) == 0
    printed = capsys.readouterr().out
    assert "Audit of 3 images" in printed
    assert "EQ-T_frac" in printed
    assert "wrote a.json\nwrote a.png" in printed
    found = Audit.from_json(place / "a.json")
    assert [row.transform for row in found.lie] == ["rotation", "shear", "contrast"]
    assert str(found) in printed
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")


def test_json_on_the_output_is_json_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--no-layers", "--padding", "circular", "--link", "softmax", "--seed", "3"]
    assert main(["audit", "mine:net", *AUDIT, *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "symlearn.audit/1"
    assert (facts["padding"], facts["link"], facts["layers"]) == ("circular", "softmax", [])
    options[-1] = "4"
    assert main(["audit", "mine:net", *AUDIT, *options, "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["metrics"] != facts["metrics"]  # other translations were drawn


def test_a_stored_network_has_the_modules_it_had(place: Path) -> None:
    model = export(place / "net.pt2")
    x = torch.as_tensor(np.load("images.npz")["X"])[:3].float()
    stored = load_exported("net.pt2")
    config = symlearn.AuditConfig()
    expected, found = (symlearn.audit(m, x, "rotation", config) for m in (model, stored))
    for a, b in zip(expected.layers[0].rows, found.layers[0].rows, strict=True):
        assert a.module == b.module
        assert a.mean_square == pytest.approx(b.mean_square, rel=1e-4, abs=1e-9)
    assert kind(stored.get_submodule("0")) == ("torch.nn.modules.conv", "Conv2d")
    assert kind(net()[0]) == ("torch.nn.modules.conv", "Conv2d")


def test_a_stored_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(place / "net.pt2")
    assert main(["audit", "net.pt2", *AUDIT]) == 0
    assert "MaxPool2d" in capsys.readouterr().out
    export(place / "fixed.pt2", any_size=False)
    assert main(["audit", "fixed.pt2", *AUDIT]) == 2
    assert "batches of exactly 3; export it for any size" in capsys.readouterr().err
    (place / "cut.pt2").write_bytes((place / "net.pt2").read_bytes()[:500])
    assert main(["audit", "cut.pt2", *AUDIT]) == 2
    assert "cut.pt2 is no torch.export file" in capsys.readouterr().err


def test_a_saved_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--data", "images.npz", "--epochs", "1", "--width", "2", "--out", "run"]
    assert main(fit) == 0
    assert main(["audit", "run", *AUDIT]) == 0
    printed = capsys.readouterr().out
    assert "paths.conv" in printed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere", *AUDIT], "give the folder of a saved result, a torch.export file"),
        (["nowhere.pt2", *AUDIT], "no such file"),
        (["images.npz", *AUDIT], "is no model"),
        (["mine:nothing", *AUDIT], "has no 'nothing'"),
        (["mine:number", *AUDIT], "must return an nn.Module"),
        (["mine:net", *AUDIT, "--transform", "turning"], "unknown transformations ['turning']"),
        (["mine:net", *AUDIT, "--images", "0"], "number of images is 0"),
        (["mine:net", *AUDIT, "--probes", "1"], "at least 2 probes"),
        (["mine:net", *AUDIT, "--no-layers", "--plot", "a.png"], "leave out --no-layers"),
        (["mine:net", *AUDIT, "--resampling", "fourier"], "padding='circular'"),
        (["mine:net", "--data", "other.npz"], "no such file"),
        (["nowhere", *AUDIT, "--out", "nowhere/a.json"], "cannot write nowhere/a.json"),
        (["nowhere", *AUDIT, "--plot", "nowhere/a.png"], "cannot write nowhere/a.png"),
        ([".", *AUDIT], "not a saved result"),
    ],
)
def test_misuse_is_one_line_and_status_two(
    place: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error
