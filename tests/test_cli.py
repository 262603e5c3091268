"""The command line: what it writes, what it prints, how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from symlearn.cli import main
from symlearn.fit import load
from symlearn.report import StructureReport
from symlearn.verdict import SeedsReport
from tests.conftest import need
from tests.fit.problems import blobs


def images(folder: Path) -> Path:
    x, y = blobs(60)
    path = folder / "images.npz"
    np.savez(path, X=np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4))), y=y.numpy())
    return path


def test_fit_then_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["fit", "--data", str(images(tmp_path)), "--epochs", "2", "--out", str(out)]) == 0
    assert "Structure report" in capsys.readouterr().out
    for kind, start in (
        ("text", "Structure report"),
        ("markdown", "#"),
        ("json", "{"),
        ("html", "<"),
    ):
        assert main(["report", str(out), "--format", kind]) == 0
        assert capsys.readouterr().out.lstrip().startswith(start)
    assert main(["report", str(out), "--format", "json", "--out", str(tmp_path / "r.json")]) == 0
    assert StructureReport.from_json(tmp_path / "r.json").n_data == 60


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    run = [
        "fit",
        "--data",
        str(images(tmp_path)),
        "--epochs",
        "1",
        "--objective",
        "map",
        "--out",
        "run",
    ]
    assert main([*run, "--arch", "own:net", "--paths", "conv,fc"]) == 0
    assert main([*run, "--arch", "own:nothing"]) == 2
    assert main([*run, "--arch", "own"]) == 2


@pytest.mark.parametrize("width", [[], ["--lift-width", "0.5"]], ids=str)
def test_fit_of_a_lifted_network(tmp_path: Path, width: list[str]) -> None:
    run = ["fit", "--data", str(images(tmp_path)), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main([*run, "--lift", "p4", *width, "--paths", "conv,gconv"]) == 0
    report = StructureReport.from_json(tmp_path / "run" / "report.json")
    assert all(set(layer.paths) == {"conv", "gconv"} for layer in report.layers)
    pixels = load(tmp_path / "run").model.get_submodule("0.conv").paths["gconv"]
    assert pixels.tested().shape[0] == (4 if width else 8)


def test_demo_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for text in ("MAP-CONV", "MAP-FC", "learned", "digit", "quadrant"):
        assert text in printed
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert set(figures) == {"digit", "quadrant"}
    assert set(figures["digit"]) == {"MAP-CONV", "MAP-FC", "learned"}
    for task in figures:
        assert (tmp_path / f"{task}.png").read_bytes().startswith(b"\x89PNG")
        assert "<html" in (tmp_path / f"{task}.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fit", "--data", "nowhere.npz", "--out", "x"], "no such file"),
        (["fit", "--data", "digits", "--paths", "conv,gconf", "--out", "x"], "unknown paths"),
        (["fit", "--data", "digits", "--epochs", "0", "--out", "x"], "epochs=0"),
        (["fit", "--data", "digits", "--threads", "0", "--out", "x"], "at least 1"),
        (["fit", "--data", "digits", "--lift", "p5", "--out", "x"], "unknown group 'p5'"),
        (["fit", "--data", "digits", "--lift-width", "0.5", "--out", "x"], "give --lift too"),
        (["fit", "--data", "digits", "--paths", "conv,gconv", "--out", "x"], "call symlearn.lift"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_misuse_is_one_line_and_status_two(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error


def test_foreign_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    assert main(["fit", "--data", str(tmp_path / "other.npz"), "--out", str(tmp_path / "x")]) == 2
    assert "not an NPZ file with arrays X and y" in capsys.readouterr().err


def test_installed_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "symlearn", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "demo" in done.stdout


def test_fit_with_checkpoints_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--data", str(images(tmp_path)), "--epochs", "2", "--out", str(tmp_path / "run")]
    assert main([*fit, "--resume"]) == 2
    assert "give --checkpoint-dir too" in capsys.readouterr().err
    kept = ["--checkpoint-dir", str(tmp_path / "kept"), "--every", "2"]
    assert main([*fit, *kept, "--resume"]) == 0
    first = load(tmp_path / "run")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert main([*fit, *kept]) == 2
    assert "holds checkpoints of another fit" in capsys.readouterr().err
    assert main([*fit, *kept, "--resume"]) == 0
    again = load(tmp_path / "run")
    assert again.history == first.history  # the seconds too: no epoch was done again


def test_names_of_images_and_networks(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "seen" / label).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 36), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "seen" / label / f"{i}.png")
    run = ["fit", "--data", f"folder:{tmp_path / 'seen'}", "--size", "32", "--epochs", "1"]
    out = tmp_path / "run"
    paper = ["--arch", "paper", "--width", "1", "--objective", "map", "--out", str(out)]
    assert main([*run, *paper]) == 0
    assert len(StructureReport.from_json(out / "report.json").layers) == 10


def test_fit_of_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, kept = tmp_path / "run", tmp_path / "kept"
    run = ["fit", "--data", str(images(tmp_path)), "--epochs", "1", "--out", str(out)]
    several = [*run, "--seed", "4", "--seeds", "2", "--checkpoint-dir", str(kept)]
    assert main(several) == 0
    assert "Seeds 4, 5" in capsys.readouterr().out
    assert sorted(p.name for p in kept.iterdir()) == ["seed-4", "seed-5"]
    assert SeedsReport.from_json(out / "seeds.json").seeds == (4, 5)
    assert load(out / "seed-5").config.seed == 5
    assert main(several) == 2  # there are checkpoints
    assert main([*several, "--resume"]) == 0
    assert main(["report", str(out)]) == 0
    assert "Seeds 4, 5" in capsys.readouterr().out
    assert main(["report", str(out), "--format", "html"]) == 2
    assert "text or json" in capsys.readouterr().err
    assert main([*run, "--seeds", "0"]) == 2
    assert "--seeds is 0; give a whole number of at least 1" in capsys.readouterr().err


def test_completion(capsys: pytest.CaptureFixture[str]) -> None:
    need("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--checkpoint-dir" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
