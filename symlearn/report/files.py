"""Reading a report's text, and writing one whole or not at all."""

from __future__ import annotations

from pathlib import Path

from symlearn.atomic import as_path, whole_file


def deliver(content: str, path: str | Path | None) -> str:
    """Return `content`, after writing it to `path` when one is given.

    The file appears whole: it is written beside its place, flushed to the disk and renamed.

    Args:
        content: The text to hand over.
        path: File to write, or None.

    Raises:
        FileNotFoundError: If the folder of `path` does not exist.
    """
    if path is None:
        return content
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    with whole_file(target) as draft, draft.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(content)
    return content


def fetch(path_or_text: str | Path) -> str:
    """Return JSON text from a file, or the text itself when that is what was given.

    Args:
        path_or_text: A `Path` is a file; so is a string that is not empty and does not start with
            "{", as JSON text does.

    Raises:
        FileNotFoundError: If no such file exists.
        ValueError: If the file is not UTF-8.
    """
    if isinstance(path_or_text, str):
        stripped = path_or_text.strip()
        if not stripped or stripped.startswith("{"):
            return path_or_text
    source = as_path(path_or_text, "a report")
    if not source.is_file():
        raise FileNotFoundError(
            f"{str(path_or_text)[:200]!r} is neither an existing file nor JSON text of a report, "
            "which starts with '{'"
        )
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not a report: it is not UTF-8 text ({error})") from error
