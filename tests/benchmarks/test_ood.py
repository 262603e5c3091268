"""The study's own arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.study_ood import auroc, entropy, over_seeds
from benchmarks.support.harness import Missing


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    inside, outside = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.5, 3.0])
    pairs = [float(o > i) for i in inside for o in outside]
    assert auroc(inside, outside) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(inside, inside) == 0.5
    with pytest.raises(ValueError, match="NaN"):
        auroc(inside, torch.tensor([math.nan]))


def test_entropy_is_torchs() -> None:
    probs = torch.randn(5, 4).softmax(1)
    want = torch.distributions.Categorical(probs).entropy()
    assert torch.allclose(entropy(probs), want)
    assert entropy(torch.tensor([1.0, 0.0])) == 0


def test_means_need_finite_numbers() -> None:
    assert over_seeds([1.0, 2.0]) == "1.500 +- 0.707"
    assert str(over_seeds([1.0, Missing("laplace")])) == "missing"
    with pytest.raises(ValueError, match="finite"):
        over_seeds([1.0, math.nan])
