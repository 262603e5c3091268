"""``--json`` and ``--quiet`` of every command: one document, or the answer alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import symlearn
from symlearn.cli import main
from symlearn.cli.networks import network
from symlearn.cli.program import COMMANDS
from symlearn.datasets import from_arrays
from symlearn.fit import load
from symlearn.report import StructureReport
from tests.fit.problems import blobs

pytestmark = pytest.mark.core

OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(32, 2)
    def forward(self, x):
        return self.head(nn.functional.max_pool2d(self.conv(x).relu(), 2).flatten(1))
def net():
    return Net()
"""
DATA = ("--data", "images.npz", "--samples", "40")
FIT = ("fit", *DATA, "--epochs", "1")
FEW = ("--images", "3", "--draws", "19", "--paths", "ffc", "--out", "p.json")
BOUND = ("--dimensions", "9", "--levels", "3", "--epochs", "1", "--quantise-epochs", "1")

# command line, format of its document, and what it prints when quiet
CASES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "fit": ((*FIT, "--arch", "modesnet:net", "--out", "new"), "symlearn.report/1", "new"),
    "report": (("report", "run"), "symlearn.report/1", "0 conv\n2 conv\n4 conv\n6 conv"),
    "report.": (("report", "run", "--out", "r.txt"), "symlearn.report/1", "r.txt"),
    "locate": (
        ("locate", "run", *DATA, "--refit-epochs", "1"),
        *("symlearn.location/1", "no free path is needed"),
    ),
    "audit": (
        ("audit", "run", *DATA, "--no-layers", "--transform", "contrast", "--out", "a.json"),
        *("symlearn.audit/1", "a.json"),
    ),
    "screen": (("screen", "modesnet:net", *DATA, "--seed", "1"), "symlearn.screen/1", "conv ffc"),
    "propose": (("propose", "modesnet:net", *DATA, *FEW), "symlearn.proposals/1", "p.json"),
    "plan": (("plan", "--shape", "1,8,8"), "symlearn.plan/1", "possible"),
    "collapse": (("collapse", "run", "--out", "p"), "symlearn.collapse/1", "p"),
    "certify": (
        ("certify", *DATA, *BOUND, "--width", "2", "--out", "new.cert"),
        *("symlearn.certify/1", "new.cert"),
    ),
}
ELSEWHERE = {"demo", "completion"}  # tests/test_cli.py: one is slow, one needs an extra


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, the fit of a small network, and a network of one's own."""
    made = tmp_path_factory.mktemp("made")
    x, y = blobs(60)
    np.savez(made / "images.npz", X=x.numpy(), y=y.numpy())
    (made / "modesnet.py").write_text(OWN)
    fit = ["fit", "--data", str(made / "images.npz"), "--samples", "40", "--epochs", "1"]
    assert main([*fit, "--width", "2", "--out", str(made / "run")]) == 0
    return made


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, as the working directory."""
    monkeypatch.chdir(folder)
    return folder


def test_every_command_has_a_case() -> None:
    commands = {command.__name__.rpartition(".")[2] for command in COMMANDS}
    assert {name.rstrip(".") for name in CASES} | ELSEWHERE == commands


@pytest.mark.parametrize("case", CASES)
def test_json_is_one_document(
    case: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments, kind, _ = CASES[case]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["format"] == kind
    if case in ("fit", "locate", "audit", "propose", "certify"):
        assert "taken" in printed.err  # the progress bar


@pytest.mark.parametrize("case", CASES)
def test_quiet_is_the_answer(
    case: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments, _, answer = CASES[case]
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == (f"{answer}\n", "")


def test_documents_are_read_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "run", "--json"]) == 0
    report = StructureReport.from_json(capsys.readouterr().out)
    assert report == load("run").report
    assert report.n_data == 40  # --samples
    for case in ("locate", "audit"):
        assert main([*CASES[case][0], "--out", "kept.json"]) == 0
        shown = capsys.readouterr().out
        assert main(["report", "kept.json"]) == 0
        assert shown == f"{capsys.readouterr().out}wrote kept.json\n"
        assert main(["report", "kept.json", "--format", "html"]) == 2
        assert "kept.json is shown as text or json" in capsys.readouterr().err


def test_locate_wants_the_data_of_the_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "run", "--data", "images.npz"]) == 2
    assert "fitted to 40 images, and images.npz gives 60" in capsys.readouterr().err


def test_a_network_of_ones_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--arch", "modesnet:net"]
    assert main([*FIT, *own, "--out", "own"]) == 0
    audit = ["audit", "own", *DATA, "--no-layers", "--transform", "contrast", "--json"]
    assert main(audit) == 2
    assert "give --arch modesnet:net to let it run" in capsys.readouterr().err
    assert main([*audit, *own]) == 0
    found = json.loads(capsys.readouterr().out)["lie"][0]
    given = from_arrays(*blobs(60))
    x = given.split(40, seed=0)[0].x
    relaxed = symlearn.wrap(network("modesnet:net", given), given.x[:1])
    fitted = load("own", relaxed).model
    expected = symlearn.audit(fitted, x, "contrast", symlearn.AuditConfig(layers=False))
    assert found["mean_square"] == pytest.approx(expected.lie[0].mean_square)
    assert main(["collapse", "own", "--out", "x", *own]) == 2
    assert "give --onnx and --data in place of --out" in capsys.readouterr().err
    assert main([*FIT, *own, "--out", "own"]) == 0  # replaces it


def test_the_seed_rules_the_weights_of_any_network(place: Path) -> None:
    given = from_arrays(*blobs(4))
    weights = [network("modesnet:net", given, seed=seed).head.weight for seed in (3, 3, 4)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_plan_that_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *DATA[:2], "--memory-limit", "1e-6", "--json"]) == 2
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["possible"] is False
    model = nn.Sequential(network("small", from_arrays(*blobs(4))))
    expected = symlearn.plan(model, blobs(2)[0], memory_limit_gib=1e-6)
    assert facts["gib"] == pytest.approx(expected.gib)
    assert [layer["params_after"] for layer in facts["layers"]] == [
        row.params_after for row in expected.rows
    ]
    assert printed.err.startswith("symlearn: this does not fit")


def test_warnings_take_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resized = ["plan", *DATA, "--arch", "paper", "--width", "1"]
    assert main(resized) == 0
    said = "images.npz is resized to 32x32, since the network paper needs multiples of 32"
    assert capsys.readouterr().err == f"symlearn: warning: {said}; --size 32 says so\n"
    assert main([*resized, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.core_only
def test_logs_need_tensorboard(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--out", "logged", "--log-dir", "logs"]) == 2
    assert "pip install 'symlearn-torch[tensorboard]'" in capsys.readouterr().err
    assert not (place / "logged").exists()
