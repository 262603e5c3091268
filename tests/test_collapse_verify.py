"""The comparison of two networks that a collapse ends with sees what differs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from symlearn.collapse.verify import CollapseError, difference

pytestmark = pytest.mark.core


class Gives(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


@pytest.mark.parametrize("value", [1e-3, float("nan"), float("inf")])
def test_differences_are_seen(value: float) -> None:
    x = torch.ones(2, 3)
    found = difference(Gives(0.0), Gives(value), [x, 0 * x])
    assert not found.explained
    with pytest.raises(CollapseError, match="differs"):
        found.check("this network")
    assert not difference(Gives(value), Gives(0.0), [x]).explained
    assert difference(Gives(0.0), Gives(1e-7), [x]).explained


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no inputs"):
        difference(nn.Identity(), nn.Identity(), [])
    with pytest.raises(ValueError, match="returns a tuple"):
        difference(nn.LSTM(2, 2), nn.LSTM(2, 2), [torch.zeros(3, 2)])
