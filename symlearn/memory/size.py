"""Numbers of bytes, as text and back."""

from __future__ import annotations

import re

_UNITS = {
    **{"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
    **{"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def as_bytes(size: int | str) -> int:
    """A number of bytes from itself or from text such as "512MiB" or "1.5 GB".

    Raises:
        ValueError: If it is neither, or not positive.
    """
    if isinstance(size, str):
        found = _PATTERN.fullmatch(size)
        count = float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
    else:
        whole = isinstance(size, int) and not isinstance(size, bool)
        count = size if whole else 0
    if count < 1:
        units = ", ".join(unit for unit in _UNITS if unit)
        raise ValueError(
            f"{size!r} is no size; give a positive number of bytes, or text such as '2GiB' "
            f"(units: {units})"
        )
    return int(count)


def as_text(size: float) -> str:
    """A number of bytes in the unit that suits it, with three digits."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g} {unit}"
    return f"{size:.0f} B"
