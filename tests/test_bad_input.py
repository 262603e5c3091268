"""Bad input gets an error of the right type and text, nothing is lost, and the page shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import symlearn
from tests.bad_input.case import Bad, fingerprint, random_state
from tests.bad_input.scene import X
from tests.bad_input.sections import PAGE, SECTIONS, cases, refused

CASES = {f"{title}: {case.given}": case for title, part in SECTIONS.items() for case in part}
PACKAGES = {"symlearn", "curvature", "priors"}


@pytest.fixture(scope="module")
def rows() -> list[str]:
    """The rows of the page's tables."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| given |")]


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, rows: list[str]) -> None:
    case = CASES[name]
    before, drawn = fingerprint(case.made), random_state()
    error = refused(case)
    assert type(error) is case.error, error
    assert case.says in str(error)
    assert _raised_by(error) in PACKAGES, "a bare error of another library"
    assert fingerprint(case.made) == before
    assert random_state() == drawn
    assert case.row(error) in rows, "run python -m tests.bad_input to bring the page up to date"


def test_the_page_has_nothing_else(rows: list[str]) -> None:
    assert len(rows) == len(list(cases()))
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [c.given for c in cases()]
    assert len(CASES) == len(rows), "two cases of a section have the same words"


def _raised_by(error: BaseException) -> str:
    """Name of the package whose code raised an error."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    path, root = Path(trace.tb_frame.f_code.co_filename), PAGE.parents[2]
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else ""


def test_what_changes_is_seen() -> None:
    """The checks of this file can fail."""
    net = nn.Linear(2, 2)
    before = fingerprint([net])
    changes = (
        lambda: net.train(not net.training),
        lambda: net.requires_grad_(False),
        lambda: nn.init.constant_(net.weight, float("nan")),
        lambda: net.register_forward_hook(lambda *_: None),
    )
    for change in changes:
        change()
        after = fingerprint([net])
        assert after != before
        before = after
    with pytest.raises(AssertionError, match="accepted"):
        refused(Bad("an image", torch.isfinite, [X], ValueError, ""))
    bare = refused(Bad("", nn.Conv2d(3, 1, 1), [X], RuntimeError, ""))
    assert _raised_by(bare) not in PACKAGES
    own = refused(Bad("", symlearn.lift, [None], TypeError, ""))
    assert _raised_by(own) == "symlearn"
