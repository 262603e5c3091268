"""Solutions that were found before: some in memory, and large ones on disk, keyed by content.

The folder is ``$SYMLEARN_CACHE_DIR``, by default ``symlearn`` in the user's cache folder. An empty
``SYMLEARN_CACHE_DIR`` turns files off. A file appears whole or not at all, so that processes may
write the same key at once; one that is damaged counts as absent.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from symlearn.atomic import whole_file

Solution: TypeAlias = "NDArray[Any] | sparse.csr_array"
"""An orthonormal basis [n, r], dense or sparse."""

VARIABLE = "SYMLEARN_CACHE_DIR"
_IN_MEMORY = 2**29  # bytes
_ON_DISK = (2**16, 2**28)  # bytes: smaller ones are solved as fast, larger ones would fill a disk

_lock = threading.Lock()
_recent: OrderedDict[str, Solution] = OrderedDict()


def dense_of(solution: Solution) -> NDArray[Any]:
    """A solution as a dense array."""
    return solution if isinstance(solution, np.ndarray) else np.asarray(solution.toarray())


def folder() -> Path | None:
    """Where files are kept, None if they are turned off."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symlearn"


def clear() -> None:
    """Forget what is kept in memory; files stay."""
    with _lock:
        _recent.clear()


def find(key: str, n: int) -> Solution | None:
    """A solution that was kept, or None.

    Args:
        key: Hash of all that it depends on.
        n: Its rows.
    """
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key]
    found = _read(key, n)
    if found is not None:
        _remember(key, found)
    return found


def keep(key: str, solution: Solution) -> None:
    """Keep a solution; a folder that cannot be written to is a warning.

    Args:
        key: Hash of all that it depends on.
        solution: The basis.
    """
    _remember(key, solution)
    place = folder()
    if place is None or not isinstance(solution, np.ndarray):
        return
    if not _ON_DISK[0] <= solution.nbytes <= _ON_DISK[1]:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        # the lock: drafts are named by process, so threads must take turns
        with _lock, whole_file(place / f"{key}.npy") as draft, draft.open("wb") as file:
            np.save(file, solution, allow_pickle=False)
    except OSError as error:
        warnings.warn(
            f"equivariant bases are not kept, as {place} cannot be written: {error}; set "
            f"{VARIABLE} to another folder, or to nothing",
            stacklevel=2,
        )


def _read(key: str, n: int) -> NDArray[Any] | None:
    """The solution in a file, None if there is none or it is damaged."""
    place = folder()
    if place is None:
        return None
    try:
        found = np.load(place / f"{key}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != n:
        return None
    # orthonormal columns: one product with a vector of ones tells damage to the numbers
    ones = np.ones(found.shape[1])
    return found if np.allclose(found.conj().T @ (found @ ones), ones, rtol=0, atol=1e-9) else None


def _size(solution: Solution) -> int:
    return int(solution.nbytes if isinstance(solution, np.ndarray) else solution.data.nbytes * 2)


def _remember(key: str, solution: Solution) -> None:
    with _lock:
        _recent[key] = solution
        while len(_recent) > 1 and sum(map(_size, _recent.values())) > _IN_MEMORY:
            _recent.popitem(last=False)
