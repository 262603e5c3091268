"""What a fit will take of memory, and options with which it keeps to a budget."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from curvature import Data
from symlearn.fit.config import FitConfig
from symlearn.fit.data import TrainData, first
from symlearn.fit.rehearsal import FACTORS, WEIGHTS, Samples, idle_paths, rehearse
from symlearn.memory.live import EIGENVECTORS, OTHER, Peak
from symlearn.memory.paths import LIGHTER, Cost, Place, lighter
from symlearn.memory.size import as_bytes, as_text
from symlearn.paths import PathSpec
from symlearn.relaxed import relaxed_layers
from symlearn.report.text import draw_lines

KINDS = (WEIGHTS, FACTORS, EIGENVECTORS, OTHER)
# estimator -> phases in which it is used
_MEASURED_IN = {
    "estimator": ("evidence step", "growth", "trials"),
    "report_estimator": ("report",),
}
_FEWER_SAMPLES = (500, 100)  # for directions of absent paths


class MemoryBudgetError(ValueError):
    """A fit would need more memory than it may take."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a fit is predicted to take beyond what is in use at its start; print it for a table.

    Attributes:
        phases: Peak of each kind of work. Where paths are absent at the start, those named "all
            paths" are reached only if all of them are started.
        config: The options of the fit; those changed to keep to the budget included.
        changes: What was changed, a phrase each.
        budget: Bytes the fit may take; None for no limit.
        paths: Lighter paths by layer, for ``wrap(paths=...)``, where the budget is too small.
    """

    phases: Mapping[str, Peak]
    config: FitConfig
    changes: tuple[str, ...]
    budget: int | None
    paths: Mapping[str, tuple[PathSpec, ...]]

    @property
    def peak(self) -> int:
        """Bytes at the peak of the whole fit."""
        return max(peak.total for peak in self.phases.values())

    @property
    def where(self) -> str:
        """The phase of that peak."""
        return max(self.phases, key=lambda name: self.phases[name].total)

    @property
    def fits(self) -> bool:
        """Whether that keeps to the budget."""
        return self.budget is None or self.peak <= self.budget

    def summary(self) -> str:
        """The prediction and what was decided, in a few sentences."""
        text = f"Predicted peak: {as_text(self.peak)}, in the phase {self.where!r}"
        text += "." if self.budget is None else f", of {as_text(self.budget)} allowed."
        if self.changes:
            text += f" Changed to keep to it: {'; '.join(self.changes)}."
        return text if self.fits else f"{text} {self._advice()}"

    def _advice(self) -> str:
        kinds = self.phases[self.where].kinds
        parts = ", ".join(f"{kind} {as_text(kinds.get(kind, 0))}" for kind in KINDS)
        advice = f"This does not fit, in parts as small as they can be ({parts})."
        if self.paths:
            advice += " Wrap with lighter paths: " + "; ".join(
                f"{layer}: {', '.join(map(str, specs))}" for layer, specs in self.paths.items()
            )
            advice += " (paths=plan.paths of symlearn.memory_plan)."
        return f"{advice} Otherwise select fewer layers, or raise memory_budget."

    def __str__(self) -> str:
        rows = [
            (name, *(as_text(peak.kinds.get(kind, 0)) for kind in KINDS), as_text(peak.total))
            for name, peak in self.phases.items()
        ]
        titles = ("phase", *KINDS, "peak")
        lines = draw_lines(titles, rows, [title != "phase" for title in titles])
        return "\n".join([*(line.rstrip() for line in lines), "", self.summary()])


def memory_plan(
    model: nn.Module,
    train: Data,
    config: FitConfig | None = None,
    *,
    checkpoints: bool = False,
) -> MemoryPlan:
    """Predict the memory of a fit, and choose options with which it keeps to its budget.

    Every kind of work of the fit is done once on tensors without numbers, on at most a few batches:
    the forward and backward passes of weight steps, evidence steps (with a backward pass per vector
    of the estimator, the second pass of ``ekfac``, factors, eigenvectors and what the update of the
    precisions computes), the test of absent paths, networks side by side in trials, checkpoints and
    the report. Counted is every tensor that the fit makes, its copy of the network included, at the
    moment at which most are in use. Not counted are the model and the data as given, what loaders
    hold, what operations use for themselves while they run (workspaces of convolutions and matrix
    decompositions), and the memory that an allocator keeps: within some percent of
    ``torch.cuda.max_memory_allocated``, and of the growth of the resident set.

    With ``config.memory_budget`` these are tried until the peak keeps to it: smaller micro-batches
    (not in weight steps of networks with batch normalisation, whose steps they would change), the
    estimator "sketch" in place of a costlier one, fewer samples to find directions of absent paths.
    On the CPU, factors have nowhere to go; on a GPU they stay there too.

    Args:
        model: A relaxed network (`symlearn.wrap`), on the device of the fit.
        train: The training data, as for `symlearn.fit`; only its first batch is read.
        config: Options of the fit.
        checkpoints: Whether the fit writes checkpoints.

    Returns:
        The plan. Its ``config`` fits if `MemoryPlan.fits`; `symlearn.fit` refuses otherwise.

    Raises:
        ValueError: If the model is not relaxed, or the data are empty or malformed.
        TypeError: If data or config are of an unknown kind.

    Example:
        >>> import torch, symlearn
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU(),
        ...     torch.nn.Flatten(), torch.nn.Linear(32, 2))
        >>> x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % 2
        >>> plan = symlearn.memory_plan(symlearn.wrap(net, x[:1]), (x, y))
        >>> plan.fits, plan.peak < 2**20
        (True, True)
    """
    config = FitConfig() if config is None else config
    if not relaxed_layers(model):
        raise ValueError("the model has no relaxed layer; wrap it first: symlearn.wrap(model, x)")
    samples = _samples(model, train, config)
    budget = None if config.memory_budget is None else as_bytes(config.memory_budget)
    phases = rehearse(model, samples, config, checkpoints)
    plan = MemoryPlan(phases, config, (), budget, {})
    left = [] if plan.fits else list(_options(model, samples, plan))
    while not plan.fits:
        option = next((o for o in left if plan.where in o.phases), None)
        if option is None:
            return replace(plan, paths=_lighter_paths(model, plan))
        left.remove(option)
        tried = replace(plan.config, **{option.name: option.value})
        phases = rehearse(model, samples, tried, checkpoints)
        found = replace(plan, phases=phases, config=tried)
        if found.peak < plan.peak:
            plan = _with_change(found, option)
    return plan


def kept_to_budget(
    model: nn.Module, train: Data, config: FitConfig, checkpoints: bool
) -> FitConfig:
    """Options with which a fit keeps to its budget; the given ones if it has none.

    Raises:
        MemoryBudgetError: If there are none.
    """
    if config.memory_budget is None:
        return config
    plan = memory_plan(model, train, config, checkpoints=checkpoints)
    if not plan.fits:
        raise MemoryBudgetError(plan.summary())
    if plan.changes:
        warnings.warn(plan.summary(), stacklevel=3)
    return plan.config


@dataclass(frozen=True)
class _Option:
    """A value of an option that takes less memory.

    Attributes:
        name: Name of the option.
        value: The value.
        phases: Phases whose peaks it may lower.
    """

    name: str
    value: Any
    phases: Collection[str]


def _with_change(plan: MemoryPlan, option: _Option) -> MemoryPlan:
    """The plan with one more change; a later one of the same option replaces the earlier."""
    kept = tuple(c for c in plan.changes if c.partition("=")[0] != option.name)
    return replace(plan, changes=(*kept, f"{option.name}={option.value!r}"))


def _options(model: nn.Module, samples: Samples, plan: MemoryPlan) -> Iterator[_Option]:
    """Options to be tried one after the other, those that change the numbers least first."""
    config, sizes = plan.config, _micro_batches(model, samples, plan.config)
    least = max(p.kinds.get(WEIGHTS, 0) + p.kinds.get(FACTORS, 0) for p in plan.phases.values())
    if plan.budget is not None and least > plan.budget:
        sizes = sizes[-1:]  # nothing will do: only the smallest is worth telling
    for size in sizes:
        yield _Option("micro_batch", size, plan.phases)
    for name, phases in _MEASURED_IN.items():
        if getattr(config, name) in ("exact", "truncated"):
            yield _Option(name, "sketch", phases)
    if idle_paths(model, config):
        for count in _FEWER_SAMPLES:
            if count < config.grow_samples:
                yield _Option("grow_samples", count, ("start", "growth"))


def _micro_batches(model: nn.Module, samples: Samples, config: FitConfig) -> list[int]:
    """Smaller and smaller parts of a batch."""
    whole = samples.batch_size or config.batch_size
    mixing = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    size, found = min(samples.n, max(whole, config.pass_size)) // 4, list[int]()
    while size >= (whole if mixing else 1):
        found.append(size)
        size //= 4
    return found


def _samples(model: nn.Module, train: Data, config: FitConfig) -> Samples:
    """The first batch of the data; the states of a loader's generators are as before."""
    data = TrainData(train, model, config.batch_size, config.pass_size)
    before = data.state_dict()
    x, y = first(data.everything())
    data.load_state_dict(before)
    size = None if data.can_hold_out else _loader_batch(train, len(x))
    return Samples(x, y, data.n, size)


def _loader_batch(train: Data, seen: int) -> int:
    return train.batch_size or seen if isinstance(train, DataLoader) else seen


def _lighter_paths(model: nn.Module, plan: MemoryPlan) -> dict[str, tuple[PathSpec, ...]]:
    """Paths with which the factors are smaller by what is missing, by layer; only where changed."""
    layers = relaxed_layers(model)
    places = [
        (Place(name, layer.geometry, next(layer.parameters()).element_size()), spec)
        for name, layer in layers.items()
        for spec in layer.specs
    ]
    needed = sum(Cost.of(place, spec).gib for place, spec in places)
    missing = (plan.peak - (plan.budget or 0)) / 2**30
    if missing >= needed or not any(spec.name in LIGHTER for _, spec in places):
        return {}
    instead = lighter(places, needed - missing)
    if any(cost is None for costs in instead.values() for cost in costs.values()):
        return {}
    return {
        name: tuple(
            cost.spec if (cost := instead.get(name, {}).get(spec.name)) else spec
            for spec in layer.specs
        )
        for name, layer in layers.items()
    }
