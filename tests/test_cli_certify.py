"""``symlearn certify``: makes a certificate, checks it, and refuses what does not hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from symlearn.certify import Certificate
from symlearn.cli import main
from tests.fit.problems import blobs

pytestmark = pytest.mark.core

FAST = (
    *("--dimensions", "9,16", "--levels", "3", "--epochs", "2", "--quantise-epochs", "1"),
    *("--width", "2"),
)


def images(folder: Path, name: str = "images", seed: int = 0) -> Path:
    x, y = blobs(80, seed=seed)
    path = folder / f"{name}.npz"
    np.savez(path, X=np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4))), y=y.numpy())
    return path


def test_make_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = str(images(tmp_path)), str(tmp_path / "c.cert")
    assert main(["certify", "--data", data, "--out", out, *FAST, "--delta", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "with probability 90% (catoni)" in printed
    assert f"wrote {out}" in printed
    # the certificate names its data
    assert main(["certify", "--verify", out]) == 0
    assert f"verified on {data}: " in capsys.readouterr().out
    certificate = Certificate.load(out)
    assert {choice.dimension for choice in certificate.terms.grid} == {9, 16}
    assert certificate.terms.delta == 0.1


def test_what_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = str(images(tmp_path)), tmp_path / "c.cert"
    assert main(["certify", "--data", data, "--out", str(out), *FAST]) == 0
    capsys.readouterr()
    other = str(images(tmp_path, "other", seed=1))
    assert main(["certify", "--verify", str(out), "--data", other]) == 2
    assert "the data are not those" in capsys.readouterr().err
    certificate = Certificate.load(out)
    figures = replace(certificate.figures, wrong=certificate.figures.wrong - 1)
    replace(certificate, figures=figures).save(out)
    assert main(["certify", "--verify", str(out)]) == 2
    assert "wrong is stated as" in capsys.readouterr().err
    out.write_bytes(out.read_bytes()[:-3])
    assert main(["certify", "--verify", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run, out = str(images(tmp_path)), str(tmp_path / "run"), str(tmp_path / "c.cert")
    assert main(["fit", "--data", data, "--epochs", "1", "--width", "2", "--out", run]) == 0
    fast = FAST[:-2]
    assert main(["certify", "--result", run, "--data", data, "--out", out, *fast]) == 0
    assert "8 paths" in capsys.readouterr().out
    assert main(["certify", "--verify", out]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --data and --out"),
        (["--data", "digits"], "give --data and --out"),
        (["--verify", "none.cert"], "no such file: none.cert"),
        (["--data", "digits", "--out", "c", "--dimensions", "-3"], "dimensions is (-3,)"),
        (["--data", "digits", "--out", "c", "--delta", "3"], "delta is 3.0"),
    ],
)
def test_bad_use(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["certify", "--projector", "fastfood"])
    assert "kronecker-sum" in capsys.readouterr().err
