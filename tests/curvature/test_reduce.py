"""Who computes on what: every row once, and all jobs spread evenly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvature.reduce import ALONE, Reduction, Share, _buckets, assigned

pytestmark = pytest.mark.core


def member(rank: int, size: int) -> Reduction:
    """One of several processes, without the others."""
    found = Reduction()
    found.rank, found.size = rank, size
    return found


@settings(max_examples=50, deadline=None)
@given(total=st.integers(1, 40), size=st.integers(1, 9))
def test_every_row_is_counted_once(total: int, size: int) -> None:
    shares = [member(rank, size).share(total) for rank in range(size)]
    rows = torch.arange(total)
    counted = [share.of(rows) for share in shares if share.counted]
    assert torch.equal(torch.cat(counted), rows)
    assert max(map(len, counted)) - min(map(len, counted)) <= 1
    # nobody is without a row
    assert all(len(share.of(rows)) == share.stop - share.start >= 1 for share in shares)
    for share in shares:
        mine = share.of(rows + 1)
        padded = share.padded(mine)
        assert len(padded) == total == share.whole(mine.shape)[0]
        assert torch.equal(share.of(padded), mine)
        assert int(padded.sum()) == int(mine.sum())


@settings(max_examples=50, deadline=None)
@given(costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=20), size=st.integers(1, 5))
def test_jobs_are_spread_evenly(costs: list[float], size: int) -> None:
    """No process has more to do than the mean and one job."""
    owners = assigned(costs, size)
    assert len(owners) == len(costs)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == r) for r in range(size)]
    assert sum(loads) == pytest.approx(sum(costs))
    assert max(loads) <= sum(costs) / size + max(costs) + 1e-9


def test_tensors_are_sent_together_by_type_and_up_to_a_size() -> None:
    small, large, other = torch.zeros(3), torch.zeros(2**20), torch.zeros(2, dtype=torch.float64)
    assert [len(b) for b in _buckets([small, small, other, other, large, small])] == [2, 2, 1, 1]


def test_alone_nothing_changes() -> None:
    x = torch.ones(3)
    ALONE.sum(x)
    assert x.tolist() == [1, 1, 1]
    assert ALONE.numbers(2, 0.1) == [2, 0.1]
    assert ALONE.share(5) == Share(0, 5, 5)
