"""Files that commands write. Their places are looked at first, so that no work is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from symlearn.fit.saving import free_folder
from symlearn.report.document import Document


def check_result(given: str) -> None:
    """Check that a saved result can be written to a folder.

    Raises:
        OSError: If not; says why.
    """
    free_folder(given)
    _check_writable(given)


def check_folder(given: str | None, option: str) -> None:
    """Check that files can be written to a folder, if one is given.

    Raises:
        OSError: If not; says why.
    """
    if given is not None:
        if Path(given).is_file():
            raise NotADirectoryError(f"{option} is {given}, which is a file; give a folder")
        _check_writable(given)


def check_file(given: str | None, option: str, *, made: bool = False) -> None:
    """Check that a file can be written, if one is given.

    Args:
        given: The file.
        option: Its option.
        made: Whether its folder is made if it is not there.

    Raises:
        OSError: If not; says why.
    """
    if given is None:
        return
    path = Path(given)
    if path.is_dir():
        raise IsADirectoryError(f"{option} is {given}, which is a folder; give a file")
    if not (made or path.absolute().parent.is_dir()):
        raise FileNotFoundError(
            f"cannot write {given}: the folder {path.parent} does not exist; make it first"
        )
    _check_writable(given)


def keep(document: Document, given: str | None) -> list[str]:
    """Write a report as JSON to a file, if one is given; what was written."""
    if given is None:
        return []
    document.to_json(given)
    return [given]


def _check_writable(given: str) -> None:
    """Write a file beside it, or where its folders would be made."""
    place = next(p for p in Path(given).absolute().parents if p.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write {given}: nothing can be written to {place} ({error.strerror}); choose "
            "another place"
        ) from error
