"""What a fit leaves in its report for the page: history, coverage, pictures, options, setting."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import priors
import symlearn
from symlearn import FitConfig, FitResult, StructureReport
from symlearn.fit import pictures
from symlearn.fit.background import with_background
from symlearn.fit.history import EpochRecord
from symlearn.relaxed import relaxed_layers
from symlearn.report.background import Picture
from symlearn.wrap import wrap
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core

DATA = blobs(40, place=True)


@pytest.fixture(scope="module")
def result() -> FitResult:
    options = {"progress": False, "grow": False, "off_after": 0, "check_images": 0}
    options |= {"challenge_epochs": 0, "report_draws": 1, "evidence_every": 1}
    config = FitConfig(epochs=3, burn_in=0.3, **options)
    return symlearn.fit(tiny_relaxed(4, init="fresh"), DATA, config)


def maps(picture: Picture) -> Tensor:
    values = torch.tensor(picture.values(), dtype=torch.float64)
    scaled = values.reshape(-1, picture.height, picture.width) * picture.largest / 127
    assert len(scaled) == picture.n_shown
    return scaled


def cosines(found: Tensor, wanted: Tensor) -> Tensor:
    rows = [torch.nn.functional.normalize(t.detach().double().flatten(1)) for t in (found, wanted)]
    return rows[0] @ rows[1].T


def test_the_evidence_is_the_fit_less_the_occam_factor(result: FitResult) -> None:
    x, y = DATA
    fit = result.report.meta["log_likelihood"]
    assert isinstance(fit, float)
    log_p = result.predict_proba(x).double().log()[torch.arange(len(y)), y]
    assert fit == pytest.approx(float(log_p.sum()), rel=1e-4)
    assert result.curvature is not None
    weights = dict(result.model.named_parameters())
    occam = -priors.log_evidence(0.0, result.curvature, weights, result.prior)
    assert fit - result.log_evidence == pytest.approx(occam, rel=1e-4)


def test_the_report_has_the_history(result: FitResult) -> None:
    assert len(result.report.history) == len(result.history) == 3
    for step, record in zip(result.report.history, result.history, strict=True):
        assert (step.epoch, step.train_nll) == (record.epoch, record.train_nll)
        assert (step.grown, step.pruned) == (record.grown, record.pruned)
        if record.log_evidence is None:
            assert record.log_likelihood is None
            assert math.isnan(step.log_evidence)
            assert math.isnan(step.log_likelihood)
        else:
            assert record.log_likelihood is not None
            assert step.log_evidence == record.log_evidence < record.log_likelihood < 0
            assert step.log_likelihood == record.log_likelihood
    assert any(record.log_evidence is not None for record in result.history)


def test_the_report_has_the_changes_of_paths(result: FitResult) -> None:
    record = EpochRecord(7, 0.0, 0.1, 0.5, grown=("2.ffc",), pruned=("0.ffc", "0.conv"))
    (step,) = with_background(replace(result, history=(record,))).report.history
    assert (step.grown, step.pruned) == (("2.ffc",), ("0.ffc", "0.conv"))


def test_a_record_of_an_older_version_is_read(result: FitResult) -> None:
    old = result.history[0].to_dict()
    del old["log_likelihood"]
    assert EpochRecord.from_dict(old).log_likelihood is None


def test_every_parameter_is_covered_once(result: FitResult) -> None:
    found = result.report.coverage
    names = [name for group in found for name in group.names]
    weights = dict(result.model.named_parameters())
    assert sorted(names) == sorted(weights)
    for group in found:
        assert group.n_params == sum(weights[name].numel() for name in group.names)
    assert {group.kind for group in found} == {"kronecker"}
    assert len({(group.kind, group.reason) for group in found}) == len(found)


def test_options_and_setting_survive_saving(result: FitResult, tmp_path: Path) -> None:
    assert result.report.config["epochs"] == 3
    assert result.report.config["precision_bounds"] == str(result.config.precision_bounds)
    assert set(result.report.config) == set(result.config.to_dict())
    assert result.report.environment["torch"] == torch.__version__
    assert result.report.environment["device"] == "cpu"
    assert result.report.environment["numbers"] == "float32"
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run").report
    assert again.to_json() == result.report.to_json()


def test_filters_are_the_largest_ones_of_the_weights(result: FitResult) -> None:
    found = {(p.layer, p.kind): p for p in result.report.pictures if p.path == "conv"}
    assert set(found) == {("0", "filters"), ("2", "filters")}
    for (layer, _), picture in found.items():
        path = relaxed_layers(result.model)[layer].path("conv")
        weight = next(path.parameters()).detach().double().reshape(-1, 3, 3)
        norms = weight.flatten(1).norm(dim=1)
        best = norms.argsort(descending=True)[: pictures.MAX_SHOWN].sort().values
        assert picture.n_maps == len(weight)
        step = picture.largest / 127
        assert (maps(picture) - weight[best]).abs().max() <= 0.5001 * step
        assert picture.largest == pytest.approx(float(weight[best].abs().max()))


def test_reads_and_writes_are_the_factors_of_ffc(result: FitResult) -> None:
    found = {p.kind: p for p in result.report.pictures if (p.layer, p.path) == ("0", "ffc")}
    assert set(found) == {"reads", "writes"}
    path = dict(relaxed_layers(result.model)["0"].path("ffc").named_parameters())
    for kind, name in (("reads", "theta2.weight"), ("writes", "theta1.weight")):
        near = cosines(maps(found[kind]), path[name].flatten(0, 1)).abs()
        assert near.max(1).values.min() > 0.99
        found[kind + " of"] = near.argmax(1).tolist()  # type: ignore[assignment]
    assert found["reads of"] == found["writes of"]  # the same channels, all different
    assert len(set(found["reads of"])) == 4  # type: ignore[arg-type]


def test_an_output_shows_the_input_channel_that_it_reads_most(result: FitResult) -> None:
    (reads,) = [p for p in result.report.pictures if (p.layer, p.kind) == ("2", "reads")]
    path = relaxed_layers(result.model)["2"].path("ffc")
    whole = torch.autograd.functional.jacobian(path, torch.zeros(1, 4, 4, 4))
    rows = whole.double().reshape(8, 16, 4, 16)  # [C', S', C, S]
    channels = set()
    for one in maps(reads).flatten(1):
        nearest = int((rows - one).norm(dim=-1).argmin())
        c_out, site, c_in = (int(i) for i in torch.unravel_index(torch.tensor(nearest), (8, 16, 4)))
        assert (rows[c_out, site, c_in] - one).abs().max() <= reads.largest / 127
        assert c_in == int(rows[c_out, site].norm(dim=-1).argmax())
        channels.add(c_out)
    assert len(channels) == reads.n_shown == pictures.MAX_CHANNELS


def test_a_path_that_is_off_has_no_picture() -> None:
    model = tiny_relaxed(init="fresh")
    layers = relaxed_layers(model)
    layers["0"].path("ffc").switch_off()
    for p in layers["2"].path("conv").parameters():
        nn.init.zeros_(p)  # on, but nothing to see
    found = {(p.layer, p.path) for p in pictures.pictures_of(model)}
    assert found == {("0", "conv"), ("2", "ffc")}


def test_large_maps_are_averaged_and_pictures_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 20, 5, padding=2), nn.ReLU(), nn.Conv2d(20, 2, 1))
    model = wrap(plain, torch.zeros(1, 1, 64, 48), init="fresh")
    found = {(p.layer, p.path, p.kind): p for p in pictures.pictures_of(model)}
    assert ("2", "conv", "filters") not in found  # of one pixel
    assert found["0", "conv", "filters"].n_shown == pictures.MAX_SHOWN
    reads = found["0", "ffc", "reads"]
    assert (reads.height, reads.width, reads.n_shown) == (32, 32, pictures.MAX_CHANNELS)
    theta2 = relaxed_layers(model)["0"].path("ffc").get_parameter("theta2.weight")
    small = torch.nn.functional.adaptive_avg_pool2d(theta2.detach().reshape(20, 64, 48), (32, 32))
    assert cosines(maps(reads), small).abs().max(1).values.min() > 0.99
    monkeypatch.setattr(pictures, "MAX_PICTURES", 2)
    assert len(pictures.pictures_of(model)) == 2


@pytest.mark.parametrize("axes", [1, 3])
def test_lines_and_volumes_have_pictures(axes: int) -> None:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    net = nn.Sequential(
        conv(2, 3, 3, padding=1), nn.AdaptiveAvgPool1d(1) if axes == 1 else nn.ReLU()
    )
    model = wrap(net, torch.zeros(1, 2, *[6] * axes), init="fresh")
    found = {p.kind: (p.height, p.width, p.n_maps) for p in pictures.pictures_of(model)}
    wanted = {1: ((1, 3, 6), (1, 6, 6)), 3: ((3, 3, 18), (6, 6, 36))}[axes]
    assert found == {"filters": wanted[0], "reads": wanted[1], "writes": wanted[1]}
    assert all(p.n_shown <= pictures.MAX_SHOWN for p in pictures.pictures_of(model))


def test_pictures_leave_the_network_and_the_random_numbers_alone() -> None:
    model = tiny_relaxed(init="fresh")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    first, second = pictures.pictures_of(model), pictures.pictures_of(model)
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_a_report_without_background_reads_as_before() -> None:
    report = StructureReport((), {}, math.nan, 0, 0, 0.0, "map", {})
    assert "history" not in report.to_json()
    assert StructureReport.from_json(report.to_json()).pictures == ()
