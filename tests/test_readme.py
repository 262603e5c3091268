"""The README's code runs as printed, and says the truth about its outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks():
        exec(compile(code, "README.md", "exec"), names)  # the point of this test
    printed = capsys.readouterr().out
    result, train, plain = names["result"], names["train"], names["plain"]
    verdicts = [layer.verdict for layer in result.report]  # type: ignore[attr-defined]
    assert sum("ffc" in verdict for verdict in verdicts) == 1
    assert verdicts.count("conv") == len(verdicts) - 1
    assert "kronecker" in printed
    assert "gain (nats)" in printed
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "run" / "tensors.safetensors").exists()
    expected = result.predict_proba(train.x[:50])  # type: ignore[attr-defined]
    assert float((plain(train.x[:50]).softmax(1) - expected).abs().max()) <= 1e-5  # type: ignore[operator]


def test_there_is_code_to_run() -> None:
    assert len(blocks()) >= 2
    assert "import symlearn" in blocks()[0]
