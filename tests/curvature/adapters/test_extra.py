"""Without the optional libraries the adapters say what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("adapter", "library"),
    [("laplace_torch", "laplace"), ("backpack", "backpack"), ("asdl", "asdl.fisher")],
)
def test_a_missing_library_is_named_with_its_extra(
    adapter: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"curvature.adapters.{adapter}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'symlearn-torch\[laplace\]'"):
        importlib.import_module(name)
