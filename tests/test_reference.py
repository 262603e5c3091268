"""Every public name has an entry in the reference, and every entry is a name that exists."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGES = sorted((Path(__file__).parent.parent / "docs" / "reference").glob("*.md"))
PUBLIC = (
    "symlearn",
    *(f"symlearn.{name}" for name in ("audit", "baselines", "callbacks", "certify", "collapse")),
    *(f"symlearn.{name}" for name in ("datasets", "emlp", "fit", "generators", "groups", "models")),
    *(f"symlearn.{name}" for name in ("paths", "report", "testing", "verdict")),
    *("curvature", "curvature.testing", "priors"),
)
_INTERNAL = {"symlearn.collapse": {"Steps", "run"}}  # what `symlearn.fit` builds on
# an entry, and the names it is restricted to
_ENTRY = re.compile(r"^::: (\S+)\n((?:    .*\n)*)", re.MULTILINE)
_MEMBERS = re.compile(r"members:\s*\[(.*?)\]", re.DOTALL)

Known = set[tuple[str, int]]


def entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """The dotted names a page has entries for, each with the members it is restricted to."""
    for path, options in _ENTRY.findall(text + "\n"):
        members = _MEMBERS.search(options)
        yield path, [name.strip() for name in members[1].split(",")] if members else []


def module(name: str) -> ModuleType | None:
    """A module, also where a function of the package has its name; None if there is none."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    return sys.modules[name]


def public(of: ModuleType) -> dict[str, Any]:
    """The names of `__all__`, or what a module without it defines."""
    own = (n for n, v in vars(of).items() if getattr(v, "__module__", None) == of.__name__)
    names: list[str] = getattr(of, "__all__", [n for n in own if not n.startswith("_")])
    return {name: getattr(of, name) for name in names}


def told(text: str) -> Known:
    """Name and identity of everything that a page tells of.

    Raises:
        AttributeError: If an entry does not exist.
    """
    found: Known = set()
    for path, members in entries(text):
        home, _, name = path.rpartition(".")
        of = module(path)
        if of is None:
            found.add((name, id(getattr(module(home), name))))
        else:
            names = {member: getattr(of, member) for member in members} or public(of)
            found |= {(name, id(value)) for name, value in names.items()}
    return found


@pytest.fixture(scope="module")
def known() -> Known:
    pages = [
        re.sub(r"^::: curvature\.adapters.*\n", "", p.read_text("utf-8"), flags=re.M) for p in PAGES
    ]
    return set().union(*map(told, pages))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name: str, known: Known) -> None:
    of = module(name)
    assert of is not None
    left = {
        n
        for n, value in public(of).items()
        if (n, id(value)) not in known and not isinstance(value, ModuleType)
    }
    assert left == _INTERNAL.get(name, set())


def test_what_is_left_out_or_wrong_is_found() -> None:
    import symlearn

    assert told("::: symlearn.wrap.wrap\n") == {("wrap", id(symlearn.wrap))}
    some = told("::: symlearn.models\n    options:\n      members:\n        [small_cnn]\n")
    assert some < told("::: symlearn.models")
    with pytest.raises(AttributeError):
        told("::: symlearn.wrap.warp")
    with pytest.raises(AttributeError):
        told("::: symlearn.models\n    options:\n      members: [huge_cnn]\n")
