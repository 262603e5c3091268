"""The command line: what it writes, what it prints, how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from symlearn import demo
from symlearn.cli import main
from symlearn.cli.arguments import INTERRUPTED, PIPE
from symlearn.datasets import ImageSet
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


def status(arguments: list[str]) -> int | str | None:
    """How the program ends, whether argparse or a command ends it."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with things that are no data, no network and no result."""
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "single" / "class").mkdir(parents=True)
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "single" / "class" / "0.png")
    (tmp_path / "text").write_text("neither")
    x = np.zeros((4, 1, 8, 8), dtype=np.float32)
    x[1, 0, 2, 3] = np.nan
    np.savez(tmp_path / "nan.npz", X=x, y=[0, 1, 0, 1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_demo_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, compare, kept = demo.load, demo.compare, []

    def few(source: str, seed: int) -> list[ImageSet]:
        return [part.split(90, seed=0)[0] for part in whole(source, seed)]

    def keep(*given: object) -> object:
        kept.append(compare(*given))
        return kept[0]

    monkeypatch.setattr(demo, "load", few)
    monkeypatch.setattr(demo, "compare", keep)
    run = ["demo", "--epochs", "1", "--out", str(tmp_path)]
    assert main(run) == 0
    printed = capsys.readouterr().out
    for text in ("MAP-CONV", "MAP-FC", "learned", "digit", "quadrant"):
        assert text in printed
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert set(figures) == {"digit", "quadrant"}
    assert set(figures["digit"]) == {"MAP-CONV", "MAP-FC", "learned"}
    for task in figures:
        assert (tmp_path / f"{task}.png").read_bytes().startswith(b"\x89PNG")
        assert "<html" in (tmp_path / f"{task}.html").read_text()
    monkeypatch.setattr(demo, "compare", lambda *given: kept[0])
    assert main([*run, "--json"]) == 0
    document = {"format": "symlearn.demo/1", "tasks": figures}
    assert json.loads(capsys.readouterr().out) == document
    assert main([*run, "--quiet"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(map(str, tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fit", "--data", "nowhere.npz", "--out", "x"], "no such file"),
        (["fit", "--data", "digits", "--paths", "conv,gconf", "--out", "x"], "unknown paths"),
        (["fit", "--data", "digits", "--epochs", "0", "--out", "x"], "epochs=0"),
        (["fit", "--data", "digits", "--learning-rate", "nan", "--out", "x"], "learning_rate=nan"),
        (["locate", "--data", "digits", "--learning-rate", "0"], "learning_rate=0.0"),
        (["fit", "--data", "digits", "--threads", "0", "--out", "x"], "at least 1"),
        (["fit", "--data", "digits", "--lift", "p5", "--out", "x"], "unknown group 'p5'"),
        (["fit", "--data", "digits", "--lift-width", "0.5", "--out", "x"], "give --lift too"),
        (["fit", "--data", "digits", "--paths", "conv,gconv", "--out", "x"], "call symlearn.lift"),
        (["fit", "--data", "digits", "--paths", "conv,,ffc", "--out", "x"], "has an empty name"),
        (["fit", "--data", "digits", "--layers", "17", "--out", "x"], "named ['17']"),
        (["fit", "--data", "digits:valid", "--out", "x"], "are train and test"),
        (["fit", "--data", "digits", "--samples", "9", "--out", "x"], "10 classes and 1400"),
        (["fit", "--data", "digits", "--size", "0", "--out", "x"], "at least 1 pixel"),
        (["fit", "--data", "digits", "--arch", "resnet", "--out", "x"], "unknown network"),
        (["fit", "--data", "digits", "--arch", "timm:9", "--width", "3", "--out", "x"], "--width"),
        (["fit", "--data", "digits", "--arch", "torchvision:resnet18", "--out", "x"], "--rgb"),
        (["fit", "--data", "digits", "--arch", "nowhere:net", "--out", "x"], "nowhere.py"),
        (["fit", "--data", "digits", "--arch", "math:pi", "--out", "x"], "pi is a float"),
        (["fit", "--data", "folder:nowhere", "--out", "x"], "no such folder"),
        (["fit", "--data", "folder:empty", "--out", "x"], "folders without a picture"),
        (["fit", "--data", "folder:single", "--out", "x"], "one class only"),
        (["fit", "--data", "nan.npz", "--out", "x"], "nan.npz: image set 'nan': 1 images hold NaN"),
        (["fit", "--data", "text", "--out", "x"], "numpy.savez writes one"),
        (["fit", "--data", "digits", "--out", "text"], "which is a file; give a folder"),
        (["fit", "--data", "digits", "--out", "text/x"], "choose another place"),
        (["fit", "--data", "digits", "--out", "empty"], "other files than a saved result"),
        (["fit", "--data", "digits", "--out", "x", "--log-dir", "text"], "--log-dir is text"),
        (["fit", "--data", "digits", "--out", "x", "--checkpoint-dir", "text"], "give a folder"),
        (["report", "nowhere"], "nowhere"),
        (["report", "empty"], "empty is not a saved result"),
        (["report", "text"], "not a report"),
        (["locate", "--data", "digits", "--out", "empty"], "which is a folder; give a file"),
        (["locate", "empty", "--data", "digits"], "empty is not a saved result"),
        (["locate", "--data", "digits", "--paths", "conv"], "nothing to locate"),
        (["screen", "x.safetensors", "--data", "digits"], "no such file: x.safetensors"),
        (["propose", "text", "--data", "digits"], "'text' is no model: give the folder"),
        (["plan"], "give either --data or --shape"),
        (["plan", "--shape", "1,8"], "such as 3,64,64"),
        (["plan", "--shape", "1,16,16", "--memory-limit", "1e-6"], "this does not fit"),
        (["collapse", "empty", "--out", "empty"], "which is a folder; give a file"),
        (["certify", "--data", "digits", "--levels", "3,x"], "'3,x' is no list of whole numbers"),
        (["fits"], "invalid choice: 'fits'"),
    ],
)
def test_misuse_is_one_line_and_status_two(
    arguments: list[str], text: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert status(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.startswith("symlearn")
    assert error.count("\n") == 1
    assert sorted(place.rglob("*")) == before  # refused before anything is made


def test_foreign_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    assert main(["fit", "--data", str(tmp_path / "other.npz"), "--out", str(tmp_path / "x")]) == 2
    assert "not an NPZ file with arrays X and y" in capsys.readouterr().err


def test_a_reader_that_has_gone() -> None:
    # "true" ends long before Python has started
    command = '"$0" -m symlearn plan --shape 1,16,16 | true; exit "${PIPESTATUS[0]}"'
    run = ["bash", "-c", command, sys.executable]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (PIPE, "", "")


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


def test_names_of_images_and_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("a", "b"):
        (tmp_path / "seen" / label).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (24, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "seen" / label / f"{i}.png")
    run = ["fit", "--data", f"folder:{tmp_path / 'seen'}", "--epochs", "1"]
    out = tmp_path / "run"
    paper = ["--arch", "paper", "--width", "1", "--objective", "map", "--out", str(out)]
    assert main([*run, *paper]) == 0
    said = "seen is resized to 32x32, since the network paper needs multiples of 32"
    assert f"symlearn: warning: folder:{tmp_path}/{said}; --size 32" in capsys.readouterr().err
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
    assert main(["report", str(out), "--format", "markdown"]) == 2
    assert "text or json" in capsys.readouterr().err
    assert main(["report", str(out), "--format", "html"]) == 0
    page = capsys.readouterr().out
    best = max((load(out / f"seed-{seed}") for seed in (4, 5)), key=lambda r: r.log_evidence)
    assert f"{best.log_evidence:,.1f} nats" in page
    assert main([*run, "--seeds", "0"]) == 2
    assert "--seeds is 0; give a whole number of at least 1" in capsys.readouterr().err


def test_logs_of_several_seeds(tmp_path: Path) -> None:
    need("tensorboard")
    run = ["fit", "--data", str(images(tmp_path)), "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main([*run, "--seed", "4", "--seeds", "2", "--log-dir", str(tmp_path / "logs")]) == 0
    for seed in (4, 5):
        logs = tmp_path / "logs" / f"seed-{seed}"
        lines = (logs / "history.jsonl").read_text().splitlines()
        history = load(tmp_path / "run" / f"seed-{seed}").history
        assert [json.loads(line) for line in lines] == [record.to_dict() for record in history]
        assert list(logs.glob("events.out.tfevents.*"))


def test_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert main(["completion", "bash", "--quiet"]) == 0
    assert capsys.readouterr().out == script
    assert main(["completion", "bash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == script.rstrip("\n")
    asked = """
cd "$1"
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _shtab_symlearn symlearn "${COMP_WORDS[COMP_CWORD]}" ""; echo "${COMPREPLY[@]}"; }
ask symlearn pl; ask symlearn fit --check; ask symlearn fit --objective ""
ask symlearn report ru; ask symlearn fit --out ru; ask symlearn fit --data pic
"""
    (tmp_path / "run").mkdir()
    (tmp_path / "pictures.npz").write_text("")
    done = subprocess.run(
        ["bash", "-c", script + asked, "bash", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    words = ["plan", "--checkpoint-dir", "evidence map", "run", "run", "pictures.npz"]
    assert done.stdout.splitlines() == words, done.stderr


STOPS = """
import signal
from torch import nn
class Net(nn.Sequential):
    passes = 0
    def forward(self, x):
        Net.passes += self.training
        if self.training and Net.passes == 2:
            signal.raise_signal(signal.SIGINT)
        return super().forward(x)
def net():
    return Net(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2))
"""


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stops", "saves"):
        (tmp_path / f"{name}.py").write_text(STOPS)
    monkeypatch.chdir(tmp_path)
    run = ["fit", "--data", str(images(tmp_path)), "--epochs", "3", "--objective", "map"]
    assert main([*run, "--arch", "stops:net", "--out", "run"]) == INTERRUPTED
    said = "symlearn: interrupted; nothing is saved: with --checkpoint-dir DIR the next run can"
    assert capsys.readouterr().err == f"{said} go on\n"
    saves = [*run, "--arch", "saves:net", "--checkpoint-dir", "kept", "--out", "run"]
    assert main(saves) == INTERRUPTED
    said = "symlearn: interrupted; the same command with --resume goes on from kept\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "run").exists()
    assert main([*saves, "--resume"]) == 0
    report = StructureReport.from_json(tmp_path / "run" / "report.json")
    assert report.meta["epochs"] == 3
