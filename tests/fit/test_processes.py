"""Fits over several processes agree with those of one, and end together."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symlearn.cli import main
from symlearn.fit import load
from tests.fit import together
from tests.fit.continuing import CASES
from tests.fit.fleet import Fleet
from tests.fit.problems import blobs
from tests.fit.together import assert_agree

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork server")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet("tests.fit.together", tmp_path_factory.mktemp("fleet"))


def test_any_number_of_processes_finds_the_same(fleet: Fleet) -> None:
    """In float64; there are more processes than samples in some batches, and in one data set."""
    (one,) = fleet.run(1, together.everything)
    assert one["drop_last"]["n_data"] == 48
    assert any(one["drawn"]["grown"])
    found = fleet.run(4, together.everything)
    assert all(other == found[0] for other in found[1:]), "the processes' results differ"
    assert_agree(found[0], one, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_whole_fits_agree(fleet: Fleet, case: str, dtype: str) -> None:
    """The same evidence and verdicts, also in single precision, where epochs of rounding add up."""
    rel = {"float64": 1e-6, "float32": 1e-4}[dtype]
    body = partial(together.fitted, case=case, dtype=dtype)
    (one,) = fleet.run(1, body)
    for size in (2, 4):
        for found in fleet.run(size, body, seconds=600):
            assert found["verdicts"] == one["verdicts"]
            assert_agree(found["log_evidence"], one["log_evidence"], rel=rel)
            assert found["n_data"] == one["n_data"]


def test_processes_that_do_not_fit_together(fleet: Fleet) -> None:
    first, second = fleet.run(2, together.refusals)
    assert (
        first["data"] == "RuntimeError: process 1 failed to join the fit; its own message says why"
    )
    assert "it is of other training data (40 samples, here 39)" in second["data"]
    assert second["data"].startswith("ValueError: processes that fit together need the same")
    assert "its config has epochs=3, not 4" in second["config"]
    for found in (first, second):
        assert "the processes of the fit see different batches" in found["batches"]
        assert "DistributedSampler" in found["sampler"]
    assert first["no checkpoint"].startswith("FileNotFoundError: no checkpoint at")
    assert "process 0 failed to read the checkpoint" in second["no checkpoint"]
    assert first["disk full"].startswith("OSError: [Errno 28] cannot write a checkpoint")
    assert "process 0 failed to write a checkpoint" in second["disk full"]


def test_one_process_speaks_for_all(fleet: Fleet) -> None:
    first, second = fleet.run(2, together.one_goes_first)
    assert (first["alone"], second["alone"]) == (2, 3)
    for found in (first, second):
        assert "drifted apart in epoch 1" in found["drift"]
        assert found["stopped"] == 2
        assert found["interrupted"].startswith("KeyboardInterrupt: stopped after epoch 1")
        assert found["checkpoints"] == [f"epoch-0000000{i}.safetensors" for i in range(2)]
    assert first["after drift"] == second["after drift"]


def test_a_process_that_dies_ends_the_fit(fleet: Fleet, tmp_path: Path) -> None:
    """The others end with an error; from the checkpoint any number of processes goes on."""
    folder = str(tmp_path / "c")
    found = fleet.run(2, partial(together.dying, checkpoints=folder))
    assert found[1] == "died"
    assert found[0].startswith("RuntimeError")
    (whole,) = fleet.run(1, partial(together.resumed, checkpoints=str(tmp_path / "none")))
    (alone,) = fleet.run(1, partial(together.resumed, checkpoints=folder))
    assert_agree(alone, whole, rel=1e-8)


def images(folder: Path) -> str:
    x, y = blobs(50)
    np.savez(folder / "images.npz", X=x.numpy(), y=y.numpy())
    return str(folder / "images.npz")


def evidence(folder: Path) -> float:
    found: float = json.loads((folder / "report.json").read_text())["log_evidence"]
    return found


def test_command_line(fleet: Fleet, tmp_path: Path) -> None:
    given = images(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = partial(together.command_line, images=given, port=port)
    assert fleet.run(2, body) == [0, 0]
    (out,) = fleet.folder.glob("*/out")
    assert main(["fit", "--data", given, "--epochs", "2", "--out", str(tmp_path / "one")]) == 0
    assert_agree(evidence(out), evidence(tmp_path / "one"), rel=1e-5)
    assert load(out).report.n_data == 50


@pytest.mark.slow
def test_torchrun_restarts_after_a_kill(tmp_path: Path) -> None:
    """A process is killed in the second epoch: all are started again, and go on from the first."""
    fit = ["-m", "symlearn", "fit", "--data", images(tmp_path), "--epochs", "4", "--boundary"]
    fit += ["circular", "--arch", "tests.fit.together:plain_net", "--resume", "--checkpoint-dir"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["--max-restarts", "1", "--monitor-interval", "0.1"]
    outs = [tmp_path / name for name in ("two", "one")]
    ended = subprocess.run(
        [sys.executable, *launch, *fit, str(tmp_path / "c2"), "--out", str(outs[0])],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert "exitcode: -9" in ended.stderr
    assert ended.stdout.count("Structure report") == 1
    subprocess.run(
        [sys.executable, *fit, str(tmp_path / "c1"), "--out", str(outs[1])], check=True, timeout=600
    )
    assert_agree(evidence(outs[0]), evidence(outs[1]), rel=1e-5)


CHANGES: list[Any] = [
    {"a": [1.0 + 1e-4], "b": "conv"},
    {"a": [math.nan], "b": "conv"},
    {"a": [1.0], "b": "ffc"},
    {"a": [1.0, 1.0], "b": "conv"},
    {"a": [1.0]},
]


@pytest.mark.parametrize("found", CHANGES)
def test_disagreement_is_seen(found: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_agree(found, {"a": [1.0], "b": "conv"}, rel=1e-5)
