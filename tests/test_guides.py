"""Every guide's code runs as printed, top to bottom, and its output is the printed one.

A block of output follows the code that prints it, as a ``text`` block; ``...`` in it stands for
anything, as in a doctest. Numbers are those of one machine, so a guide prints few of them exactly.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from unittest.mock import patch

import pytest

from symlearn.paths import PATHS
from tests.conftest import EXTRAS, need

GUIDES = sorted((Path(__file__).parent.parent / "docs" / "guides").glob("*.md"))
_BLOCK = re.compile(r"^```(python|text)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_IMPORT = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """The guide's (language, content) blocks in order."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def check(text: str, name: str) -> None:
    """Run the code of a guide and compare what it prints.

    Raises:
        AssertionError: If the output after a block differs from the guide's.
    """
    names: dict[str, object] = {}
    printed = ""
    for kind, content in blocks(text):
        if kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(content, name, "exec"), names)  # the point of this test
            printed = out.getvalue()
        else:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(content, printed, flags)
            assert same, f"{name} shows\n{content}\nbut prints\n{printed}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = guide.read_text(encoding="utf-8")
    for name in set(_IMPORT.findall(text)) & set(EXTRAS):
        need(name)
    monkeypatch.chdir(tmp_path)
    with patch.dict(PATHS):  # a guide registers a path of its own
        check(text, guide.name)


def test_a_wrong_output_fails() -> None:
    good = "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n"
    check(good, "good.md")
    with pytest.raises(AssertionError, match="but prints"):
        check(good.replace("\n2\n", "\n3\n"), "bad.md")
    with pytest.raises(AssertionError, match="but prints"):
        check(good.replace("print(1 + 1)", "print(float('nan'))"), "nan.md")


def test_a_path_takes_less_than_sixty_lines() -> None:
    (guide,) = (path for path in GUIDES if path.stem == "add-a-path")
    path, check = blocks(guide.read_text(encoding="utf-8"))[:2]
    assert "assert_path" in check[1]
    assert len(path[1].splitlines()) < 60


def test_each_guide_has_code() -> None:
    for guide in GUIDES:
        assert any(kind == "python" for kind, _ in blocks(guide.read_text(encoding="utf-8")))
