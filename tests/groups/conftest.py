"""No test of groups reads or writes the user's cache folder."""

from __future__ import annotations

import pytest

from symlearn.groups import cache


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, "")
    cache.clear()
