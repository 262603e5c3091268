"""Collapse of a fitted network: weak paths go, weights are tuned, channels without effect go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import curvature
import priors
import symlearn
from symlearn.fit.collapsed import VANISHED, _by_channel, _shares, vanished_channels, weak_paths
from symlearn.relaxed import relaxed_layers
from symlearn.report import LayerStructure, PathStructure, StructureReport
from symlearn.wrap import prior_groups
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def fitted() -> symlearn.FitResult:
    """A short fit with both paths on in both layers."""
    torch.manual_seed(0)
    model = tiny_relaxed(4, boundary="keep")
    for layer in relaxed_layers(model).values():
        layer.path("ffc").reset_parameters(torch.Generator().manual_seed(0))
    config = symlearn.FitConfig(
        epochs=6, progress=False, grow=False, off_after=0, challenge_epochs=0, early_stop=False
    )
    return symlearn.fit(model, blobs(120, place=True), config)


def report(**shares: float) -> StructureReport:
    paths = {
        name: PathStructure(1.0, 1.0, 4, share, share, share, 0.5, 1.0, on=name != "fc")
        for name, share in shares.items()
    }
    return StructureReport(
        (LayerStructure("a.0", paths, "conv", 1.0),), {}, 0.0, 1, 1, 1.0, "evidence", {}
    )


def test_weak_paths() -> None:
    given = report(conv=0.6, ffc=0.39, sfc=0.01, fc=0.0)
    assert weak_paths(given, 0.0) == []
    assert weak_paths(given, 0.01) == []
    assert weak_paths(given, 0.02) == ["a.0.sfc"]
    assert weak_paths(given, 0.9) == ["a.0.ffc", "a.0.sfc"]  # the largest stays, fc is off
    assert weak_paths(report(conv=0.0, ffc=0.0), 0.5) == ["a.0.ffc"]
    assert weak_paths(report(conv=float("nan"), ffc=float("nan")), 0.5) == []
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"share in \[0, 1\)"):
            weak_paths(given, wrong)


def test_without_options_nothing_changes(fitted: symlearn.FitResult) -> None:
    x, y = blobs(40, seed=1, place=True)
    plain = fitted.collapse()
    expected = fitted.predict_proba(x)
    torch.testing.assert_close(plain(x).softmax(1), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(plain[0], nn.ModuleDict)


def test_a_threshold_drops_and_tells(fitted: symlearn.FitResult) -> None:
    held_out = blobs(40, seed=1, place=True)
    plain = fitted.collapse(held_out, threshold=0.4999)
    found = symlearn.collapse_report(plain)
    assert any(row.dropped for row in found.layers)
    for row, layer in zip(found.layers, fitted.report, strict=True):
        shares = {name: path.relative_effective_params for name, path in layer.paths.items()}
        assert set(row.dropped) == {name for name, share in shares.items() if share < 0.4999}
    assert found.scores["relaxed"] == fitted.score(held_out)
    assert found.scores["dropped"] == pytest.approx(symlearn.score(plain, held_out, "categorical"))
    assert found.scores["dropped"]["nll"] != found.scores["relaxed"]["nll"]
    assert found.after.params < found.before.params
    assert found.after.multiply_adds < found.before.multiply_adds


def test_fine_tuning_recovers(fitted: symlearn.FitResult) -> None:
    train = blobs(120, place=True)
    before = {k: v.clone() for k, v in fitted.model.state_dict().items()}
    state = torch.get_rng_state()
    plain = fitted.collapse(train, threshold=0.4999, fine_tune=4, train=train)
    assert torch.equal(torch.get_rng_state(), state)
    scores = symlearn.collapse_report(plain).scores
    assert list(scores) == ["relaxed", "dropped", "tuned"]
    assert scores["tuned"]["nll"] < scores["dropped"]["nll"]
    assert scores["tuned"] == pytest.approx(symlearn.score(plain, train, "categorical"))
    after = fitted.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = fitted.collapse(train, threshold=0.4999, fine_tune=4, train=train)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True)
    )


def test_shares_of_channels_sum_to_gamma(fitted: symlearn.FitResult) -> None:
    posterior = fitted.posterior()
    shares = _shares(posterior.blocks, posterior.precision)
    for layer in ("0", "2"):
        for path in ("conv", "ffc"):
            names = fitted.prior.groups[f"{layer}.{path}"]
            gamma = priors.effective_parameters(posterior.blocks, fitted.prior, f"{layer}.{path}")
            total = sum(float(shares[name].sum()) for name in names)
            assert total == pytest.approx(gamma, rel=1e-4)


def test_shares_are_the_diagonal_of_the_resolvent() -> None:
    model = tiny_relaxed(3, boundary="keep").double()
    for layer in relaxed_layers(model).values():
        layer.reset_parameters(torch.Generator().manual_seed(0))
    x, y = blobs(20)
    found = curvature.kronecker(model, (x.double(), y))
    name = "2.paths.ffc.theta1.weight"
    dense = found[name].to_dense()
    eye = torch.eye(len(dense), dtype=dense.dtype)
    wanted = torch.linalg.solve(dense + 0.3 * eye, dense).diagonal()
    share = _shares(found, {name: 0.3})[name]
    torch.testing.assert_close(share.flatten(), wanted, rtol=1e-9, atol=1e-12)


def test_numbers_by_channel() -> None:
    rows = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(_by_channel(rows, 6), rows)
    assert torch.equal(_by_channel(rows, 3), rows.reshape(3, 4))
    assert torch.equal(_by_channel(rows, 12), rows.repeat_interleave(2, 0))
    assert _by_channel(rows, 4) is None


def test_channels_that_are_never_active_go(fitted: symlearn.FitResult) -> None:
    train = blobs(120, place=True)
    model = tiny_relaxed(4, boundary="keep").eval()
    model.load_state_dict(fitted.model.state_dict())
    for layer in relaxed_layers(model).values():
        with torch.no_grad():
            layer.bias[1] = -100.0
    result = replace(fitted, model=model, curvature=None)
    precision = fitted.prior.precisions_by_parameter()
    found = curvature.kronecker(model, train)
    gone = vanished_channels(model, found, precision)
    assert [int(mask.nonzero()) for mask in gone.values()] == [1, 1]
    plain = result.collapse(train, prune_channels=True, train=train)
    told = symlearn.collapse_report(plain)
    assert {before - after for before, after in told.channels.values()} == {1}
    assert plain[6].in_features == 7
    x = train[0]
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)
    assert told.scores["pruned"]["nll"] == pytest.approx(told.scores["relaxed"]["nll"], rel=1e-5)
    assert 0 < VANISHED < 0.01


def test_what_needs_training_data_says_so(fitted: symlearn.FitResult, tmp_path: Path) -> None:
    data = blobs(40, place=True)
    with pytest.raises(ValueError, match="need the training data"):
        fitted.collapse(data, fine_tune=1)
    fitted.save(tmp_path / "run")
    loaded = symlearn.load(tmp_path / "run")
    with pytest.raises(ValueError, match="need the training data"):
        loaded.collapse(data, prune_channels=True)
    loaded.collapse(data, prune_channels=True, train=data)
    fitted.collapse(data, prune_channels=True)
    with pytest.raises(ValueError, match="whole number of epochs"):
        fitted.collapse(data, fine_tune=-1, train=data)
    assert set(prior_groups(loaded.model)) == set(loaded.prior.groups)
