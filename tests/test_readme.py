"""The README's code runs as printed, and says the truth about its outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks()
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # the point of this test
    assert len([line for line in code.splitlines() if line]) == 10
    result, train, plain = names["result"], names["train"], names["plain"]
    verdicts = [layer.verdict for layer in result.report]  # type: ignore[attr-defined]
    assert sum("ffc" in verdict for verdict in verdicts) == 1
    assert verdicts.count("conv") == len(verdicts) - 1
    assert "Structure report" in capsys.readouterr().out
    expected = result.predict_proba(train.x[:50])  # type: ignore[attr-defined]
    assert float((plain(train.x[:50]).softmax(1) - expected).abs().max()) <= 1e-5  # type: ignore[operator]


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = re.findall(r'(?:\]\(|src(?:set)?=")([^)"]+)', text)
    assert len(links) > 5
    missing = [link for link in links if not (README.parent / link).exists()]
    assert missing == []
    named = re.findall(r"`([\w./*]+\.(?:md|cff))`", text)
    results = README.parent / "benchmarks" / "results"
    assert [n for n in named if not ((README.parent / n).exists() or (results / n).exists())] == []
