"""Directions of factored paths: the best ones, also where gradients span few dimensions."""

from __future__ import annotations

import pytest
import torch

from symlearn.paths import factored

pytestmark = pytest.mark.core


def quality(rank: int) -> float:
    """Smallest ratio of what a direction gains to what the best one gains, over channel pairs.

    Args:
        rank: Coordinates of the output in which there are gradients.
    """
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(30, 3, 16, generator=generator, dtype=torch.float64)
    g = torch.randn(30, 2, 16, generator=generator, dtype=torch.float64)
    g[..., torch.randperm(16, generator=generator)[rank:]] = 0
    u = factored._leading_outputs(x, g)
    m = torch.einsum("ndy,ncx->dcyx", g, x)
    best = torch.linalg.svdvals(m)[..., 0]
    return float((torch.einsum("dcyx,dcy->dcx", m, u).norm(dim=-1) / best).min())


RANKS = (1, 2, 5, 9, 11)


@pytest.mark.parametrize("rank", RANKS)
def test_the_leading_direction_is_found_at_any_rank(rank: int) -> None:
    """A search that goes on where no direction is left must not take rounding errors for one."""
    assert quality(rank) > 1 - 1e-9


def test_rounding_errors_would_be_taken_for_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above sees it if the search does not stop."""
    monkeypatch.setattr(factored, "_GENUINE", -1.0)
    assert min(quality(rank) for rank in RANKS) < 0.99
