"""``--help`` of every command: its examples parse, it fits a terminal, it says how it ends."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from symlearn.cli import main
from symlearn.cli.arguments import EXITS
from symlearn.cli.program import COMMANDS, parser

pytestmark = pytest.mark.core

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]
ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guides" / "command-line.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
_CALL = re.compile(r"symlearn [^>#)]+")
_BLOCK = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def examples(shown: str) -> list[str]:
    """The command lines below "examples:", which are indented less than what they do."""
    found = shown.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in found if not line.startswith("   ")]


def parses(line: str) -> bool:
    call = _CALL.search(line)
    assert call is not None, line
    try:
        parser().parse_args(shlex.split(call[0])[1:])
    except SystemExit as end:
        return end.code == 0
    return True


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = text([name] if name else [], capsys)
    assert max(map(len, shown.splitlines())) <= 80
    for status, meaning in EXITS.items():
        assert f"  {status:<4} {meaning}\n" in shown
    lines = examples(shown)
    assert lines
    assert all(
        name in shlex.split(line.replace(")", " ").replace('"', "")) for line in lines if name
    )
    assert [line for line in lines if not parses(line)] == []
    assert not name or ("--json" in shown and "--quiet" in shown)


def test_an_example_that_does_not_parse_is_seen() -> None:
    shown = "about\n\nexamples:\n  symlearn fit --sources 3\n      three\n\nexit status:\n"
    assert examples(shown) == ["symlearn fit --sources 3"]
    assert not parses("symlearn fit --sources 3")


def test_the_guide_knows_all_commands_and_statuses() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in guide] == []
    for status, meaning in EXITS.items():
        assert f"| {status} | {meaning} |" in guide


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_in_the_documentation_parse(page: Path) -> None:
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    wrong = [line for line in lines if line.startswith("symlearn ") and not parses(line)]
    assert wrong == []
