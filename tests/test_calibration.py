"""Calibration against scikit-learn, torchmetrics and definitions; what is no probability fails."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor

import symlearn
from symlearn.report import CalibrationBin

pytestmark = pytest.mark.core


# 401 intervals between samples: no quantile of 7 or 15 bins is a sample, whose bin rounding decides
N = 402


def predictions(n: int = N, k: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities [n, k] and labels that follow them only roughly."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((0.5 * logits).softmax(1), 1, generator=generator).squeeze(1)
    return logits.softmax(1), labels


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_bins_are_scikit_learns(strategy: str, n_bins: int) -> None:
    probs, labels = predictions()
    confidence = probs.max(1).values.numpy()
    right = (probs.argmax(1) == labels).numpy()
    accuracy, mean = calibration_curve(right, confidence, n_bins=n_bins, strategy=strategy)
    found = symlearn.calibration(probs, labels, n_bins=n_bins)
    if strategy == "uniform":
        filled = [part for part in found.bins if part.n_data]
        assert [part.accuracy for part in filled] == pytest.approx(accuracy)
        assert [part.confidence for part in filled] == pytest.approx(mean)
        weights = np.array([part.n_data for part in filled])
    else:
        inner = np.quantile(confidence, np.linspace(0, 1, n_bins + 1)[1:-1])
        weights = np.bincount(np.searchsorted(inner, confidence))
    want = float((weights * np.abs(accuracy - mean)).sum() / len(probs))
    got = found.ece if strategy == "uniform" else found.ece_equal_mass
    assert got == pytest.approx(want, rel=1e-9)


def test_scores_are_scikit_learns() -> None:
    probs, labels = predictions()
    found = symlearn.calibration(probs, labels)
    onehot = np.eye(4)[labels]
    assert found.accuracy == accuracy_score(labels, probs.argmax(1))
    assert found.nll == pytest.approx(log_loss(labels, probs))
    assert found.brier == pytest.approx(float(((probs.numpy() - onehot) ** 2).sum(1).mean()))
    assert found.n_data == N
    assert len(found.bins) == 15


@pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics comes with laplace"
)
@pytest.mark.parametrize("n_bins", [5, 15])
def test_ece_is_torchmetrics(n_bins: int) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    probs, labels = predictions()
    want = multiclass_calibration_error(probs, labels, num_classes=4, n_bins=n_bins, norm="l1")
    got = symlearn.calibration(probs, labels, n_bins=n_bins).ece
    assert got == pytest.approx(float(want), rel=1e-5)


@given(st.integers(2, 5), st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_laws(k: int, n: int, n_bins: int, seed: int) -> None:
    probs, labels = predictions(n, k, seed)
    found = symlearn.calibration(probs, labels, n_bins=n_bins)
    gap = abs(float(probs.max(1).values.mean()) - found.accuracy)
    assert gap - 1e-12 <= found.ece <= 1
    assert gap - 1e-12 <= found.ece_equal_mass <= 1
    assert 0 <= found.brier <= 2
    assert sum(part.n_data for part in found.bins) == n
    order = torch.randperm(n)
    again = symlearn.calibration(probs[order], labels[order], n_bins=n_bins)
    for name in ("accuracy", "nll", "brier", "ece", "ece_equal_mass"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=1e-12)


def test_perfect_and_worst() -> None:
    labels = torch.arange(30) % 3
    perfect = symlearn.calibration(torch.eye(3)[labels], labels)
    assert (perfect.accuracy, perfect.nll, perfect.brier) == (1, 0, 0)
    assert perfect.ece == perfect.ece_equal_mass == 0
    worst = symlearn.calibration(torch.eye(3)[(labels + 1) % 3], labels)
    assert (worst.accuracy, worst.nll, worst.brier) == (0, math.inf, 2)
    assert worst.ece == worst.ece_equal_mass == 1
    guess = symlearn.calibration(torch.full((30, 3), 1 / 3), labels)
    assert guess.ece == pytest.approx(0, abs=1e-6)


def test_equal_confidences_share_a_bin() -> None:
    """Half the confidences are one: no order of the samples may change the equal-mass error."""
    probs = torch.tensor([[1.0, 0.0]] * 10 + [[0.6, 0.4]] * 10)
    right_first = torch.tensor([0] * 5 + [1] * 5 + [0] * 10)
    found = symlearn.calibration(probs, right_first, n_bins=4)
    assert found.ece_equal_mass == pytest.approx((10 * 0.5 + 10 * 0.4) / 20)


def test_a_confidence_on_an_edge_is_in_the_lower_bin() -> None:
    probs = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    found = symlearn.calibration(probs, torch.tensor([0, 0]), n_bins=4)
    assert [part.n_data for part in found.bins] == [0, 1, 1, 0]
    assert math.isnan(found.bins[0].accuracy)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, math.nan]], [0], "NaN or infinite"),
        ([[2.0, -1.0]], [0], "not logits"),
        ([[3.0, 1.0]], [0], "not logits"),
        ([[0.5, 0.4]], [0], "not logits"),
        ([[1.0]], [0], "K > 1"),
        ([0.5, 0.5], [0, 1], "K > 1"),
        (torch.zeros(0, 3), torch.zeros(0).long(), "N > 0"),
        ([[0.5, 0.5]], [2], "give indices in 0..1"),
        ([[0.5, 0.5]], [0, 1], "one class index per sample"),
        ([[0.5, 0.5]], [0.0], "integer class indices"),
    ],
)
def test_bad_input_is_told(probs: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symlearn.calibration(torch.as_tensor(probs), torch.as_tensor(labels))


def test_no_bin_is_an_error() -> None:
    with pytest.raises(ValueError, match="n_bins is 0"):
        symlearn.calibration(*predictions(), n_bins=0)


def test_records_check_themselves() -> None:
    part = CalibrationBin(0.0, 1.0, 2, 0.75, 0.5)
    with pytest.raises(ValueError, match="hold 2 samples of 3"):
        symlearn.Calibration("map", 3, 0.5, 0.7, 0.5, 0.25, 0.25, (part,))
    with pytest.raises(ValueError, match="must not be nan"):
        symlearn.Calibration("map", 2, 0.5, math.nan, 0.5, 0.25, 0.25, (part,))
    with pytest.raises(TypeError, match="CalibrationBin.n_data"):
        CalibrationBin(0.0, 1.0, 2.0, 0.75, 0.5)  # type: ignore[arg-type]
