"""The error for an optional library that is not installed."""

from __future__ import annotations


def missing(library: str) -> ModuleNotFoundError:
    """The error to raise when an optional library cannot be imported."""
    return ModuleNotFoundError(
        f"{library} is not installed; it comes with an extra: pip install 'symlearn-torch[laplace]'"
    )
