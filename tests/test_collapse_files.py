"""Plain networks in a file without pickle, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import symlearn
from symlearn.cli import main
from symlearn.paths import SFC
from tests.conftest import need
from tests.fit.problems import blobs, tiny_relaxed
from tests.test_collapse import lively

BOUNDARIES = ["keep", "circular", symlearn.Circular("polyphase")]


@pytest.mark.core
@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
@pytest.mark.parametrize(
    "paths", [("conv", "ffc"), "fc", (SFC(anchors=3), "conv"), "conv"], ids=str
)
def test_round_trip(paths: object, boundary: object, tmp_path: Path) -> None:
    x, y = blobs(20)
    relaxed = lively(tiny_relaxed(paths=paths, boundary=boundary, init="fresh"))
    plain = symlearn.collapse(relaxed, (x, y))
    symlearn.save_plain(plain, tmp_path / "net" / "plain.safetensors")
    loaded = symlearn.load_plain(tmp_path / "net" / "plain.safetensors")
    assert torch.equal(loaded(x), plain(x))
    assert symlearn.collapse_report(loaded) == symlearn.collapse_report(plain)
    assert all(p.requires_grad for p in loaded.parameters())
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["plain.safetensors"]


@pytest.mark.core
def test_a_layer_without_paths(tmp_path: Path) -> None:
    relaxed = tiny_relaxed(boundary="keep")
    plain = symlearn.collapse(relaxed, drop=["2.conv", "2.ffc"])
    symlearn.save_plain(plain, tmp_path / "plain")
    x = blobs(3)[0]
    assert torch.equal(symlearn.load_plain(tmp_path / "plain")(x), plain.eval()(x))


@pytest.mark.core
def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        symlearn.load_plain(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="damaged"):
        symlearn.load_plain(tmp_path / "text")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"not in the format 'symlearn.plain/1'"):
        symlearn.load_plain(tmp_path / "foreign")
    symlearn.save_plain(nn.Sequential(nn.Linear(2, 3)), tmp_path / "good")
    tensors = load_file(tmp_path / "good")
    facts = {"format": "symlearn.plain/1", "collapse": "null"}
    for root in ({"kind": "Linear", "arguments": {"in_features": 9, "out_features": 9}}, {}):
        text = json.dumps({"root": root, "reference": None})
        save_file(tensors, tmp_path / "bad", metadata={**facts, "architecture": text})
        with pytest.raises(ValueError, match="damaged, or no plain network"):
            symlearn.load_plain(tmp_path / "bad")

    class Custom(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"torch.save"):
        symlearn.save_plain(Custom(), tmp_path / "custom")


def saved_run(folder: Path) -> tuple[str, str]:
    x, y = blobs(60, place=True)
    np.savez(folder / "images.npz", X=x.numpy(), y=y.numpy())
    config = symlearn.FitConfig(epochs=2, progress=False, burn_in=0.0)
    symlearn.fit(tiny_relaxed(4, boundary="keep"), (x, y), config).save(folder / "run")
    return str(folder / "run"), str(folder / "images.npz")


@pytest.mark.core
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = saved_run(tmp_path)
    out = tmp_path / "plain.safetensors"
    options = ["--threshold", "0.3", "--fine-tune", "1", "--prune-channels"]
    assert (
        main(["collapse", run, "--out", str(out), "--data", data, "--train", data, *options]) == 0
    )
    printed = capsys.readouterr().out
    for text in ("Collapse report", "after fine-tuning", "multiply-adds", f"wrote {out}"):
        assert text in printed
    report = symlearn.collapse_report(symlearn.load_plain(out))
    assert list(report.scores) == ["relaxed", "dropped", "tuned", "pruned"]
    assert main(["collapse", run, "--out", str(out)]) == 0
    x = blobs(60, place=True)[0]
    expected = symlearn.load(run).predict_proba(x)
    torch.testing.assert_close(
        symlearn.load_plain(out)(x).softmax(1), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--onnx", "net.onnx"], "give --data too"),
        (["--threshold", "2"], "give a share in [0, 1)"),
        (["--fine-tune", "1"], "need the training data"),
        (["--data", "nowhere.npz"], "no such file"),
    ],
)
def test_misuse(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = saved_run(tmp_path)
    assert main(["collapse", run, "--out", str(tmp_path / "plain"), *options]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()


def test_command_writes_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("onnxruntime")
    run, data = saved_run(tmp_path)
    files = [str(tmp_path / "plain"), "--onnx", str(tmp_path / "net.onnx"), "--data", data]
    assert main(["collapse", run, "--out", *files]) == 0
    assert "onnxruntime's outputs differ by" in capsys.readouterr().out
    assert (tmp_path / "net.onnx").stat().st_size > 0
