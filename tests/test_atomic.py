"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from symlearn.atomic import whole_file, whole_folder

pytestmark = pytest.mark.core


def put(path: Path, text: str) -> None:
    """Write one file, or a folder with one file, by its name."""
    if path.suffix:
        with whole_file(path) as draft:
            draft.write_text(text)
    else:
        with whole_folder(path) as draft:
            (draft / "a.txt").write_text(text)


def content(path: Path) -> str:
    return (path if path.suffix else path / "a.txt").read_text()


@pytest.mark.parametrize("name", ["file.txt", "folder"])
def test_replaced_as_a_whole(tmp_path: Path, name: str) -> None:
    for text in ("one", "two"):
        put(tmp_path / name, text)
        assert content(tmp_path / name) == text
        assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("method", [whole_file, whole_folder])
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, method: Callable[[Path], AbstractContextManager[Path]], there: bool
) -> None:
    path = tmp_path / ("x.txt" if method is whole_file else "x")
    if there:
        put(path, "old")
    with pytest.raises(ZeroDivisionError), method(path) as draft:
        (draft if method is whole_file else draft / "a.txt").write_text("half")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == [path.name] * there
    assert not there or content(path) == "old"


@pytest.mark.parametrize("name", ["file.txt", "folder"])
@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_full_disk_or_a_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failing: str
) -> None:
    """Data are flushed before the name is given, and a rename that fails is undone."""
    put(tmp_path / name, "old")
    rename = Path.replace

    def refuse(*args: object) -> None:
        raise OSError("no")

    def refuse_drafts(path: Path, target: Path) -> Path:
        return refuse() or path if path.suffix == ".part" else rename(path, target)

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "replace", refuse_drafts)
    with pytest.raises(OSError, match="no"):
        put(tmp_path / name, "new")
    assert content(tmp_path / name) == "old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
@pytest.mark.parametrize("name", ["file.txt", "folder"])
def test_others_may_read_what_they_might(tmp_path: Path, name: str) -> None:
    plain = tmp_path / f"plain{name}"
    plain.touch() if plain.suffix else plain.mkdir()
    put(tmp_path / name, "x")
    assert (tmp_path / name).stat().st_mode == plain.stat().st_mode
