"""The memory planner against real fits, budgets, and loaders that are read as a stream."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from curvature import Categorical
from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.fit.data import TrainData
from symlearn.fit.optimisers import ProximalAdam
from symlearn.fit.weights import WeightAverage, train_epoch
from symlearn.memory.live import LiveBytes

pytestmark = pytest.mark.core

SHORT: dict[str, Any] = {
    **{"epochs": 1, "burn_in": 0.0, "anneal": 0.0, "evidence_every": 1, "evidence_pause": 1},
    **{"grow": False, "progress": False, "check_images": 0},
}


def images() -> tuple[nn.Module, tuple[Tensor, Tensor], FitConfig]:
    """Few channels on large maps: activations outweigh the rest."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(6)),
        *(nn.Flatten(), nn.Linear(12, 2)),
    )
    x = torch.randn(40, 1, 12, 12)
    return symlearn.wrap(net, x[:1]), (x, torch.arange(40) % 2), FitConfig(**SHORT)


def vectors() -> tuple[nn.Module, tuple[Tensor, Tensor], FitConfig]:
    """Many weights on small maps, exact curvature, regression: factors outweigh the rest."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(24, 6, 8)
    options = {"likelihood": "gaussian", "estimator": "exact", "ekfac": False, "batch_size": 8}
    relaxed = symlearn.wrap(net, x[:1], paths=("conv", "fc"))
    return relaxed, (x, torch.randn(24, 2)), FitConfig(**{**SHORT, **options})


def measured(model: nn.Module, data: Any, config: FitConfig) -> int:
    """Most bytes of tensors in use at a time during a real fit."""
    with LiveBytes() as live:
        symlearn.fit(model, data, config)
    return live.peak


def test_a_brief_check_takes_as_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, config = images()
    config = replace(config, check_images=16)
    brief = symlearn.memory_plan(model, data, config).phases["report"]
    finish = Fitting.finish
    monkeypatch.setattr(Fitting, "finish", lambda self, brief: finish(self))
    whole = symlearn.memory_plan(model, data, config).phases["report"]
    # not to the byte: cycles of references end when the collector runs
    assert brief.total == pytest.approx(whole.total, rel=0.05)
    without = symlearn.memory_plan(model, data, replace(config, check_images=0)).phases["report"]
    assert without.total < 0.9 * whole.total


@pytest.mark.parametrize("case", [images, vectors])
def test_predicted_within_a_fifth(case: Any) -> None:
    model, data, config = case()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = symlearn.memory_plan(model, data, config)
    assert plan.peak == pytest.approx(measured(model, data, config), rel=0.2)
    assert all(sum(p.kinds.values()) == p.total for p in plan.phases.values())
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
    assert "evidence step" in str(plan)
    assert plan.config == config


def test_a_budget_makes_batches_smaller() -> None:
    model, data, config = images()
    config = replace(config, memory_budget="1MiB")
    with pytest.warns(UserWarning, match="Changed to keep to it: micro_batch="):
        result = symlearn.fit(model, data, config)
    assert 0 < result.config.micro_batch < 40
    assert result.config == replace(config, micro_batch=result.config.micro_batch)
    assert measured(model, data, replace(result.config, memory_budget=None)) <= 1.2 * 2**20
    assert measured(model, data, replace(config, memory_budget=None)) > 1.2 * 2**20


def test_a_budget_that_cannot_be_kept_is_refused_with_the_numbers() -> None:
    model, data, config = vectors()
    config = replace(config, memory_budget="20KiB")
    with pytest.raises(symlearn.MemoryBudgetError, match="of 20 KiB allowed") as caught:
        symlearn.fit(model, data, config)
    for word in ("Predicted peak: ", "weights ", "factors ", "eigenvectors ", "activations "):
        assert word in str(caught.value)


@pytest.mark.parametrize("budget", ["2 gigs", -1, 0, True, 1.5])
def test_wrong_budgets(budget: Any) -> None:
    with pytest.raises(ValueError, match="memory_budget=.*is no size"):
        FitConfig(memory_budget=budget)


def test_micro_batches_take_the_same_step() -> None:
    found = []
    for size in (0, 3):
        model, (x, y), _ = images()
        model = model.double()
        step = ProximalAdam(dict(model.named_parameters()), 40.0)
        average = WeightAverage(model, 0.9)
        batches = iter([(x[:10].double(), y[:10])])
        loss = train_epoch(model, batches, Categorical(), step, average, micro_batch=size)
        found.append((loss, [p.detach().clone() for p in model.parameters()]))
    (one, weights), (other, parts) = found
    assert one == pytest.approx(other, abs=1e-12)
    for a, b in zip(weights, parts, strict=True):
        torch.testing.assert_close(a, b)


class Lazy:
    """A loader that makes its samples as they are asked for, and knows how many are alive."""

    def __init__(self, batches: int) -> None:
        self.batches, self.alive, self.most = batches, 0, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(self.batches):
            generator = torch.Generator().manual_seed(i)
            x = torch.randn(10, 1, 12, 12, generator=generator)
            self.alive += 1
            weakref.finalize(x.untyped_storage(), self._gone)
            self.most = max(self.most, self.alive)
            yield x, torch.arange(10) % 2
            del x

    def _gone(self) -> None:
        self.alive -= 1


def test_a_long_loader_is_read_as_a_stream() -> None:
    most, peaks = [], []
    for batches in (6, 18):
        model, _, config = images()
        loader = Lazy(batches)
        config = replace(config, curvature_samples=20, report_samples=20)
        with LiveBytes() as live:
            symlearn.fit(model, loader, config)
        gc.collect()
        most.append(loader.most)
        peaks.append(live.peak)
    assert most[0] == most[1] < 6
    assert peaks[1] <= 1.05 * peaks[0]


def test_all_samples_of_a_loader_are_not_kept() -> None:
    loader = Lazy(12)
    data = TrainData(loader, nn.Linear(1, 1), 4)
    subset = data.sample(0, torch.Generator())
    for _ in range(2):
        assert sum(len(x) for x, _ in subset) == 120
    assert loader.most <= 3
