"""A tiny fit gives the stored numbers; what would go unnoticed is tested too."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.fit import golden
from tests.fit.together import assert_agree

pytestmark = pytest.mark.core


def test_the_stored_fit_is_reproduced() -> None:
    """If a change is to move these numbers, run ``python -m tests.fit.golden``."""
    assert_agree(golden.numbers(), golden.stored(), golden.RELATIVE)


def test_the_stored_fit_is_eventful() -> None:
    """Paths are grown and removed, and evidence is measured in it."""
    epochs = golden.stored()["epochs"]
    assert any(epoch["grown"] for epoch in epochs)
    assert any(epoch["pruned"] for epoch in epochs)
    assert sum(epoch["log_evidence"] is not None for epoch in epochs) >= 3


@pytest.mark.parametrize("changes", [{"learning_rate": 8.01e-3}, {"step": 0.501}], ids=str)
def test_a_small_change_is_noticed(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_agree(golden.numbers(**changes), golden.stored(), golden.RELATIVE)


def _scaled(found: dict[str, Any]) -> None:
    found["log_evidence"] *= 1 + 3e-5


def _nan(found: dict[str, Any]) -> None:
    found["epochs"][-1]["train_nll"] = math.nan


def _verdict(found: dict[str, Any]) -> None:
    found["layers"]["0"]["verdict"] = "off"


def _dropped(found: dict[str, Any]) -> None:
    found["epochs"].pop()


@pytest.mark.parametrize("change", [_scaled, _nan, _verdict, _dropped])
def test_the_comparison_sees_each_part(change: Callable[[dict[str, Any]], None]) -> None:
    found = copy.deepcopy(golden.stored())
    assert_agree(found, golden.stored(), golden.RELATIVE)
    change(found)
    with pytest.raises(AssertionError):
        assert_agree(found, golden.stored(), golden.RELATIVE)
