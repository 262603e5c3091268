"""The outer loop on small problems: what it learns, repeats, reports and refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import symlearn
from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.relaxed import relaxed_layers
from symlearn.report import StructureReport
from tests.fit.problems import blobs, tiny_relaxed

QUICK = FitConfig(epochs=4, burn_in=0.25, progress=False, batch_size=32)


def weights(result: symlearn.FitResult) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in result.model.parameters()])


@pytest.mark.core
def test_verdict_follows_the_task() -> None:
    """Same pictures, same network: a free path survives only where labels need positions."""
    x, _ = blobs(400)
    config = FitConfig(epochs=30, progress=False, batch_size=32, precision_bounds=(1e-3, 1e6))
    verdicts = {}
    for place in (False, True):
        _, y = blobs(400, place=place)
        result = symlearn.fit(tiny_relaxed(4), (x, y), config)
        verdicts[place] = {layer.verdict for layer in result.report}
        assert result.score((x, y))["accuracy"] > 0.95
    assert verdicts[False] == {"conv"}
    assert any("ffc" in verdict for verdict in verdicts[True])


@pytest.mark.core
def test_same_seed_same_numbers_and_the_model_is_untouched() -> None:
    x, y = blobs()
    model = tiny_relaxed()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    first = symlearn.fit(model, (x, y), QUICK)
    after_first = torch.rand(1)
    torch.manual_seed(1)
    second = symlearn.fit(model, (x, y), QUICK)
    assert torch.equal(weights(first), weights(second))
    assert first.log_evidence == second.log_evidence
    assert torch.equal(first.prior.log_precision, second.prior.log_precision)
    assert torch.equal(after_first, torch.rand(1))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    other = symlearn.fit(model, (x, y), FitConfig(**{**QUICK.to_dict(), "seed": 1}))
    assert not torch.equal(weights(first), weights(other))


def test_data_in_every_form() -> None:
    x, y = blobs(50)
    dataset = TensorDataset(x, y)
    for data in (
        (x, y),
        (x.numpy(), y.numpy()),
        (x.double(), y.int()),
        dataset,
        DataLoader(dataset, batch_size=16, shuffle=True),
        [(x[:25], y[:25]), (x[25:], y[25:])],
    ):
        result = symlearn.fit(tiny_relaxed(), data, QUICK)
        assert result.report.n_data == 50
        assert math.isfinite(result.log_evidence)


def test_map_keeps_precisions_and_runs_the_same_code() -> None:
    x, y = blobs()
    config = FitConfig(epochs=3, objective="map", precision=3.0, progress=False)
    result = symlearn.fit(tiny_relaxed(), (x, y), config)
    for group, precision in zip(result.prior.groups, result.prior.precision.tolist(), strict=True):
        assert precision == pytest.approx(0.01 if group.endswith("bias") else 3.0)
    assert all(record.log_evidence is None for record in result.history)
    assert all(path.on for layer in result.report for path in layer.paths.values())
    assert result.report.objective == "map"
    assert math.isnan(result.report.layers[0].agreement)


def test_published_schedule_moves_all_precisions_from_the_start_of_all_paths() -> None:
    x, y = blobs(200, place=True)
    model = tiny_relaxed(4, init="fresh", tie="tensor")
    result = symlearn.fit(model, (x, y), FitConfig.published(epochs=20, progress=False))
    steps = [record for record in result.history if record.log_evidence is not None]
    assert [record.epoch for record in steps] == [10, 15, 20]
    assert all(path.on for layer in result.report for path in layer.paths.values())
    moved = {
        group: abs(math.log(precision))
        for group, precision in steps[0].precision.items()
        if not group.endswith("bias")
    }
    # the first step of Adam is as long as its step size, which half a cosine has halved
    size = 0.1 * 0.5 * (1 + math.cos(math.pi * 9 / 20))
    assert set(map(len, [moved])) == {7}
    assert all(change == pytest.approx(size, rel=1e-5) for change in moved.values())
    assert all(p == 1.0 for g, p in steps[0].precision.items() if g.endswith("bias"))


@pytest.mark.parametrize("slow", [0.5, 0.9])
def test_burn_in_ends_when_a_learned_network_slows_down(slow: float) -> None:
    x, y = blobs(200)
    options = {"epochs": 20, "burn_in": 0.6, "progress": False, "when_slow": slow}
    result = symlearn.fit(tiny_relaxed(), (x, y), FitConfig(**options))  # type: ignore[arg-type]
    loss = [record.train_nll for record in result.history]
    frequency = float(y.float().mean())
    null = -sum(p * math.log(p) for p in (frequency, 1 - frequency))
    # epochs count from 1, the loss of epoch e is loss[e - 1]; at least a third of 12 epochs
    wanted = [e for e in range(4, 12) if loss[e - 1] < 0.75 * null]
    wanted = [e for e in wanted if loss[e - 1] >= slow * loss[e - 3]]
    assert _first_step(result) == (wanted[0] if wanted else 12)
    fixed = FitConfig(**options, early_start=False)  # type: ignore[arg-type]
    assert _first_step(symlearn.fit(tiny_relaxed(), (x, y), fixed)) == 12


def test_no_early_start_before_losses_can_be_compared() -> None:
    """Two epochs do not tell whether the loss has slowed down, however learned the network is."""
    x, y = blobs(200)
    options = {"epochs": 12, "burn_in": 0.5, "progress": False, "learning_rate": 0.05}
    config = FitConfig(**options, when_slow=1e-6, evidence_every=3)  # type: ignore[arg-type]
    result = symlearn.fit(tiny_relaxed(), (x, y), config)
    assert result.history[1].train_nll < 0.75 * math.log(2)
    assert _first_step(result) == 4


def _first_step(result: symlearn.FitResult) -> int:
    """Epoch of the first evidence step."""
    return next(r.epoch for r in result.history if r.log_evidence is not None)


def test_no_early_start_for_what_has_no_label_frequencies() -> None:
    x, y = blobs(60)
    config = FitConfig(epochs=10, burn_in=0.5, likelihood="gaussian", progress=False)
    result = symlearn.fit(tiny_relaxed(1), (x, y.float()), config)
    assert _first_step(result) == 5


def test_evidence_steps_get_rarer_when_little_moves() -> None:
    x, y = blobs(200)
    still = FitConfig(
        epochs=14, burn_in=0.1, anneal=0.1, step=1e-9, grow=False, early_stop=False, progress=False
    )
    result = symlearn.fit(tiny_relaxed(paths="conv"), (x, y), still)
    steps = [r.epoch for r in result.history if r.log_evidence is not None]
    assert steps == [1, 3, 7, 13]


def test_several_updates_go_further_from_the_same_curvature() -> None:
    x, y = blobs(200)
    moved = []
    for updates in (1, 3):
        config = FitConfig(**{**QUICK.to_dict(), "hyper_steps": updates, "max_change": 99.0})
        run = Fitting(tiny_relaxed(), (x, y), config)
        before = run.state.prior.log_precision.clone()
        run.precisions.take(run.state, 0.5)
        moved.append((run.state.prior.log_precision - before).abs().sum())
    assert moved[1] == pytest.approx(float(moved[0]) * (0.5 + 0.25 + 0.125) / 0.5, rel=1e-6)


@pytest.mark.parametrize("method", ["fixed_point", "gradient"])
@pytest.mark.parametrize("estimator", ["exact", "sketch", "mc", "empirical"])
def test_every_method_and_estimator(method: str, estimator: str) -> None:
    x, y = blobs()
    config = FitConfig(**{**QUICK.to_dict(), "method": method, "estimator": estimator})
    result = symlearn.fit(tiny_relaxed(), (x, y), config)
    learned = [
        p for g, p in zip(result.prior.groups, result.prior.precision, strict=True) if g == "0.conv"
    ]
    assert learned[0] != 1.0
    assert math.isfinite(result.log_evidence)


def test_gaussian_noise_is_learned() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 1, 6, 6, generator=g)
    y = x.mean((1, 2, 3)) * 6 + 0.3 * torch.randn(600, generator=g)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(72, 1))
    config = FitConfig(epochs=40, likelihood="gaussian", progress=False, batch_size=32)
    result = symlearn.fit(symlearn.wrap(net, x[:1]), (x, y), config)
    assert result.noise == pytest.approx(0.3, rel=0.15)
    assert result.predict_proba(x).shape == (600, 1)
    fixed = FitConfig(epochs=2, likelihood="gaussian", noise=0.7, learn_noise=False, progress=False)
    assert symlearn.fit(symlearn.wrap(net, x[:1]), (x, y), fixed).noise == 0.7


def test_bernoulli() -> None:
    x, y = blobs()
    config = FitConfig(epochs=3, likelihood="bernoulli", progress=False)
    result = symlearn.fit(tiny_relaxed(1), (x, y), config)
    assert bool(((result.predict_proba(x) >= 0) & (result.predict_proba(x) <= 1)).all())


def test_duplicated_data_at_half_weight_is_the_same_evidence() -> None:
    x, y = blobs(40)
    options = {"epochs": 1, "objective": "map", "progress": False, "report_estimator": "exact"}
    once = symlearn.fit(tiny_relaxed(), (x, y), FitConfig(**options))
    twice_config = FitConfig(**options, likelihood_weight=0.5)
    run = Fitting(once.model, (torch.cat([x, x]), torch.cat([y, y])), twice_config)
    assert run.finish(None).log_evidence == pytest.approx(once.log_evidence, rel=1e-5)


def test_callbacks_see_the_run_and_can_end_it() -> None:
    x, y = blobs()
    seen: list[int] = []

    def stop_at_two(run: Fitting) -> bool:
        seen.append(run.epoch)
        return run.epoch == 2

    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK, callbacks=[stop_at_two])
    assert seen == [1, 2]
    assert len(result.history) == 2


def test_validation_is_recorded() -> None:
    x, y = blobs()
    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK, validation=(x, y))
    assert result.report.meta["validation_accuracy"] == result.score((x, y))["accuracy"]


def test_off_path_comes_back_when_labels_ask_for_it() -> None:
    """Labels without positions, then, from the learned weights and precisions, labels with them."""
    x, which = blobs(400)
    _, place = blobs(400, place=True)
    config = FitConfig(epochs=40, progress=False)
    first = symlearn.fit(tiny_relaxed(4), (x, which), config)
    assert {layer.verdict for layer in first.report} == {"conv"}
    second = symlearn.fit(first.model, (x, place), config, resume=first)
    assert any("ffc" in layer.verdict for layer in second.report)
    assert second.score((x, place))["accuracy"] > 0.95


def test_resume_starts_from_weights_and_precisions() -> None:
    x, y = blobs()
    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK)
    still = FitConfig(**{**QUICK.to_dict(), "grow": False})
    run = Fitting(tiny_relaxed(seed=5), (x, y), still, result)
    own, given = dict(run.model.named_parameters()), dict(result.model.named_parameters())
    assert all(torch.equal(own[n], given[n]) for n in own)
    assert torch.equal(run.state.prior.log_precision, result.prior.log_precision)
    with pytest.raises(ValueError, match="another model"):
        symlearn.fit(tiny_relaxed(paths="conv"), (x, y), QUICK, resume=result)


def test_memorised_start_sets_data_aside_and_gives_them_back() -> None:
    x, y = blobs(100)
    config = FitConfig(epochs=30, objective="map", progress=False, batch_size=16, precision=0.01)
    memorised = symlearn.fit(tiny_relaxed(paths="conv"), (x, y), config).model
    start = tiny_relaxed()
    start.load_state_dict({**start.state_dict(), **memorised.state_dict()})
    run = Fitting(start, (x, y), FitConfig(epochs=4, progress=False))
    assert len(run.data.held) == 10
    assert {group["n_data"] for group in run.state.optimiser.param_groups} == {90}
    assert len(set(run.data.held.tolist()) & set(run.data.indices.tolist())) == 0
    while run.epoch < run.total:
        run.advance()
    assert len(run.data.held) == 0
    assert len(run.data.indices) == 100
    assert {group["n_data"] for group in run.state.optimiser.param_groups} == {100}


def test_output_shares_and_effective_parameters_are_shares() -> None:
    x, y = blobs(200, place=True)
    result = symlearn.fit(tiny_relaxed(4), (x, y), FitConfig(epochs=12, progress=False))
    for layer in result.report:
        assert sum(p.output_share for p in layer.paths.values()) == pytest.approx(1)
        for path in layer.paths.values():
            assert 0 <= path.effective_params <= path.n_params
    assert result.report.effective_params <= result.report.n_params


def test_report_round_trips(tmp_path: object) -> None:
    x, y = blobs()
    report = symlearn.fit(tiny_relaxed(), (x, y), QUICK).report
    assert StructureReport.from_json(report.to_json()).to_json() == report.to_json()


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (lambda x, y: (x[:, :, :4], y), ValueError, r"size \[8, 8\]"),
        (lambda x, y: (x, y.float()), ValueError, "integer class"),
        (lambda x, y: (x, y + 7), ValueError, "network has 2 outputs"),
        (
            lambda x, y: (torch.cat([x] * 20), torch.cat([*[y] * 19, y + 7])),
            ValueError,
            "2 outputs",
        ),
        (lambda x, y: (x, y[:5]), ValueError, "differ in length"),
        (lambda x, y: (x * float("nan"), y), ValueError, "NaN or infinite"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "empty"),
        (lambda x, y: DataLoader(TensorDataset(x[:0], y[:0])), ValueError, "no batch|empty"),
        (lambda x, y: DataLoader(TensorDataset(x)), ValueError, "pairs"),
        (lambda x, y: iter([(x, y)]), TypeError, "read only once"),
        (lambda x, y: 3, TypeError, "not understood"),
    ],
)
def test_bad_data_is_refused_before_training(
    data: object, error: type[Exception], text: str
) -> None:
    x, y = blobs(20)
    with pytest.raises(error, match=text):
        symlearn.fit(tiny_relaxed(), data(x, y), QUICK)  # type: ignore[operator]


def test_bad_models_and_configs() -> None:
    x, y = blobs(20)
    with pytest.raises(ValueError, match="wrap it first"):
        symlearn.fit(nn.Linear(3, 2), (x, y), QUICK)
    with pytest.raises(TypeError, match="FitConfig"):
        symlearn.fit(tiny_relaxed(), (x, y), {"epochs": 3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"objective='evidnce'.*epochs=0.*anneal=2"):
        FitConfig(epochs=0, objective="evidnce", anneal=2.0)


def test_nan_training_loss_stops_the_run() -> None:
    x, y = blobs(20)
    with pytest.raises(
        (symlearn.NonFiniteLossError, ValueError), match=r"NaN|nan|infinite|not finite"
    ):
        symlearn.fit(
            tiny_relaxed(), (x * 1e30, y), FitConfig(epochs=2, learning_rate=1e20, progress=False)
        )


@pytest.mark.parametrize(
    "labels", [torch.zeros(30, dtype=torch.long), torch.tensor([0] * 29 + [1])], ids=["one", "rare"]
)
def test_degenerate_labels_give_a_report(labels: torch.Tensor) -> None:
    x, _ = blobs(30)
    result = symlearn.fit(tiny_relaxed(), (x, labels), FitConfig(epochs=12, progress=False))
    assert all(layer.verdict for layer in result.report)


def test_constant_and_single_inputs_give_a_report() -> None:
    x, y = blobs(30)
    result = symlearn.fit(
        tiny_relaxed(), (torch.ones_like(x), y), FitConfig(epochs=8, progress=False)
    )
    assert all(layer.verdict for layer in result.report)
    assert symlearn.fit(tiny_relaxed(), (x[:1], y[:1]), QUICK).report.n_data == 1


def test_predict_proba_is_a_distribution_in_the_order_given() -> None:
    x, y = blobs(70)
    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK)
    p = result.predict_proba(x)
    assert torch.allclose(p.sum(1), torch.ones(70))
    assert torch.allclose(p[13:14], result.predict_proba(np.asarray(x[13:14])), atol=1e-6)
    with pytest.raises(ValueError, match="NaN"):
        result.predict_proba(x * float("nan"))


def test_dead_layers_are_reported_off() -> None:
    x, y = blobs(40)
    model = tiny_relaxed()
    for path in relaxed_layers(model)["2"].named_paths().values():
        path.switch_off()
    result = symlearn.fit(model, (x, y), FitConfig(epochs=2, progress=False, grow=False))
    assert result.report["2"].verdict == "off"


def test_frozen_paths_are_left_alone_and_undecided() -> None:
    """A frozen layer works; nothing was measured of it, so nothing is claimed."""
    x, y = blobs(60)
    model = tiny_relaxed()
    relaxed_layers(model)["0"].requires_grad_(False)
    before = relaxed_layers(model)["0"].path("conv").tested().clone()
    result = symlearn.fit(model, (x, y), QUICK)
    layer = relaxed_layers(result.model)["0"]
    assert torch.equal(layer.path("conv").tested(), before)
    assert result.report["0"].verdict == "undecided"
    assert result.report["2"].verdict
