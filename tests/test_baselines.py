"""Baselines: what each does to a path that is of no use, and to one that is needed."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.baselines import (
    BaselineResult,
    RandomPose,
    augerino,
    averaged_proba,
    gates,
    mixture,
    prior_grid,
    sparse_paths,
    verdicts_by_output,
)
from symlearn.baselines.sparsity import shrink_each, shrink_group
from symlearn.report import StructureReport

pytestmark = pytest.mark.core

CONFIG = symlearn.FitConfig(epochs=8, batch_size=32, learning_rate=0.02, progress=False)


def bars(n: int, placed: bool, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Bars, upright or level, on a torus; ``placed`` asks in which half as well."""
    draw = torch.Generator().manual_seed(seed)
    kind, at = torch.randint(2, (n,), generator=draw), torch.randint(6, (n,), generator=draw)
    x = noise * torch.randn(n, 1, 6, 6, generator=draw)
    for i in range(n):
        x[i, 0].select(int(kind[i]), int(at[i])).add_(1)
    return x, kind * 2 + (at >= 3) if placed else kind


def relaxed(classes: int, paths: tuple[str, ...] = ("conv", "fc")) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, classes),
        )
    return symlearn.wrap(net, torch.zeros(1, 1, 6, 6), paths=paths)


def share(found: BaselineResult, path: str = "fc") -> float:
    (layer,) = found.result.report
    return layer.paths[path].output_share


def test_gates_close_where_nothing_is_gained_and_stay_open_where_it_is() -> None:
    config = replace(CONFIG, epochs=40)
    closed = gates(relaxed(2), bars(256, placed=False), config, dual_rate=0.05)
    assert abs(closed.chosen["0.fc"]) < 0.05
    assert closed.verdicts == {"0": "conv"}
    needed = gates(relaxed(4), bars(256, placed=True), config, dual_rate=0.05, slack_cost=0.3)
    assert needed.verdicts == {"0": "conv+fc"}
    assert not any(m._forward_hooks for m in needed.result.model.modules())


def test_folding_a_gate_keeps_the_function() -> None:
    seen: list[Tensor] = []
    x, y = bars(64, placed=True)
    with torch.random.fork_rng():
        found = gates(relaxed(4), (x, y), replace(CONFIG, epochs=1, average=0.0), start=0.5)
        seen.append(found.result.predict_proba(x))
        path = found.result.model.get_submodule("0").path("fc")
        path.scale(1 / abs(found.chosen["0.fc"]))
        handle = path.register_forward_hook(
            lambda module, args, out: out * abs(found.chosen["0.fc"])
        )
        seen.append(found.result.predict_proba(x))
        handle.remove()
    assert torch.allclose(*seen, atol=1e-6)


def test_a_wide_grid_finds_the_precision_that_predicts_best() -> None:
    wanted = {True: lambda p: p < 100, False: lambda p: p > 100}
    for placed, right in wanted.items():
        found = prior_grid(
            relaxed(4 if placed else 2),
            bars(64, placed, noise=0.5),
            bars(256, placed, seed=1, noise=0.5),
            replace(CONFIG, epochs=80),
            precisions=(0.1, 1e5),
            equal_compute=True,
        )
        assert right(found.chosen["precision of free paths"])
        assert (found.fits, found.n_validation) == (2, 256)
        assert found.result.report.meta["epochs"] == 40


@pytest.mark.parametrize("penalty", ["group", "l1"])
def test_a_strong_penalty_makes_exact_zeros(penalty: str) -> None:
    data = bars(64, placed=False)
    found = sparse_paths(relaxed(2), data, data, CONFIG, penalty=penalty, strengths=(5.0,))
    assert not any(bool(p.any()) for p in found.result.model.get_submodule("0.paths").parameters())
    assert found.verdicts == {"0": "off"}
    weak = sparse_paths(relaxed(2), data, data, CONFIG, penalty=penalty, strengths=(1e-6,))
    assert all(bool(p.any()) for p in weak.result.model.get_submodule("0.paths").parameters())


def test_proximal_steps_solve_their_problem() -> None:
    w = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    penalties = {
        shrink_group: lambda v: math.sqrt(12) * v.norm(),
        shrink_each: lambda v: v.abs().sum(),
    }
    for step, penalty in penalties.items():
        moved = w.clone()
        step(moved, 0.2)
        least = 0.5 * (moved - w).square().sum() + 0.2 * penalty(moved)
        for seed in range(20):
            other = moved + 0.01 * torch.randn(
                3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
            )
            assert least <= 0.5 * (other - w).square().sum() + 0.2 * penalty(other)


def test_mixture_is_a_map_fit() -> None:
    x, y = bars(64, placed=False)
    began = time.process_time()
    found = mixture(relaxed(2), (x, y), replace(CONFIG, epochs=2))
    assert 0 < found.seconds <= time.process_time() - began
    same = symlearn.fit(relaxed(2), (x, y), replace(CONFIG, epochs=2, objective="map"))
    assert torch.equal(found.result.predict_proba(x), same.predict_proba(x))
    assert found.verdicts == verdicts_by_output(same.report)


def test_ranges_grow_where_poses_do_not_matter() -> None:
    config = replace(CONFIG, epochs=16)
    anywhere = augerino(relaxed(2), bars(256, placed=False), config, reward=0.1)
    placed = augerino(relaxed(4), bars(256, placed=True), config, reward=0.1)
    assert anywhere.chosen["shift"] > 0.3 > placed.chosen["shift"]
    assert not placed.result.model._forward_pre_hooks


def test_random_pose_shifts_exactly() -> None:
    x = torch.randn(5, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(RandomPose(0, 0)(x), x, atol=1e-5)
    pose = RandomPose(0.5, 0)
    draw = (2 * torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) - 1)[:, :2]
    frequency = torch.exp(2j * torch.pi * torch.arange(8) / 8)
    wave = frequency.real.expand(5, 1, 6, 8)
    moved = pose(wave).detach()
    # the wave's phase moves by the shift; interpolation only damps it
    phase = (moved * frequency.conj()).mean((1, 2, 3)).angle()
    wanted = 2 * torch.pi * 0.5 * draw[:, 0]
    assert torch.allclose(torch.exp(1j * (phase - wanted)).real, torch.ones(5), atol=0.06)
    level = RandomPose(0.5, 0, circular=False)(torch.ones(5, 1, 6, 6))
    assert float(level.detach().min()) == 0


def test_averaged_predictions_are_probabilities() -> None:
    x, y = bars(32, placed=False)
    found = mixture(relaxed(2), (x, y), replace(CONFIG, epochs=1))
    mean = averaged_proba(found.result, RandomPose(), x, copies=3)
    assert torch.allclose(mean.sum(1), torch.ones(32), atol=1e-5)
    plain = averaged_proba(found.result, RandomPose(0, 0), x, copies=2)
    assert torch.allclose(plain, found.result.predict_proba(x), atol=1e-5)


def test_refusals() -> None:
    data = bars(16, placed=False)
    with pytest.raises(ValueError, match="no layer has a path that is freer"):
        gates(relaxed(2, ("conv",)), data, CONFIG)
    with pytest.raises(ValueError, match="give positive numbers"):
        prior_grid(relaxed(2), data, data, CONFIG, precisions=())
    with pytest.raises(ValueError, match="give positive numbers"):
        prior_grid(relaxed(2), data, data, CONFIG, precisions=(1.0, math.nan))
    with pytest.raises(ValueError, match="dual_rate is nan"):
        gates(relaxed(2), data, CONFIG, dual_rate=math.nan)
    with pytest.raises(ValueError, match=r"choose one of \['group', 'l1'\]"):
        sparse_paths(relaxed(2), data, data, CONFIG, penalty="l2")
    with pytest.raises(ValueError, match="give ranges in"):
        RandomPose(0.7)
    with pytest.raises(ValueError, match="reward is -1"):
        augerino(relaxed(2), data, CONFIG, reward=-1)
    with pytest.raises(ValueError, match="at least 1"):
        averaged_proba(None, RandomPose(), data[0], copies=0)  # type: ignore[arg-type]
    report = StructureReport((), {}, 0.0, 1, 1, 0.0, "map", {})
    with pytest.raises(ValueError, match="share in"):
        verdicts_by_output(report, on=math.nan)
