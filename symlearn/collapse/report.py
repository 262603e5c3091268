"""What a collapse did: a record per layer, what the network costs, and what its outputs lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from symlearn.report.table import count, number
from symlearn.report.text import draw_lines

ATTRIBUTE = "symlearn_collapse"
"""Attribute of a collapsed network that holds the report, as plain numbers and strings."""

STAGES = {
    "relaxed": "relaxed network",
    "dropped": "without the dropped paths",
    "tuned": "after fine-tuning",
    "pruned": "after pruning channels",
}
"""Stage of a collapse -> how its row is called."""


@dataclass(frozen=True)
class LayerCollapse:
    """What became of one relaxed layer.

    Attributes:
        name: The layer's name in the network.
        kept: Paths that were kept.
        dropped: Paths that were on in the relaxed network, and were dropped.
        module: What computes the layer now.
        params_before: Weights of the layer's paths that were on, and of its bias.
        params_after: Weights of the module.
    """

    name: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    module: str
    params_before: int
    params_after: int


@dataclass(frozen=True)
class Cost:
    """What a network costs, before and after.

    Attributes:
        params: Parameters; of paths, those that are on.
        multiply_adds: Multiply-adds per sample, nan where there were no data to run on.
        seconds: Median time of a forward pass on one CPU thread, nan where there were no data.
    """

    params: int
    multiply_adds: float = math.nan
    seconds: float = math.nan


@dataclass(frozen=True)
class CollapseReport:
    """The outcome of a collapse. Printing it shows a table.

    Attributes:
        layers: The layers that were relaxed, in the network's order.
        before: Cost of the relaxed network.
        after: Cost of the plain network.
        batch: Samples in the forward pass that was timed, 0 where none was.
        error: Largest absolute difference between the outputs of the plain network and those of
            the relaxed one without the dropped paths, on the data; nan where there were none.
        tolerance: Largest difference that rounding explains.
        n_data: Samples that were compared.
        scores: Stage (see `STAGES`) -> mean negative log likelihood "nll" in nats, and for classes
            "accuracy", on the data; empty where the data had no targets.
        channels: Layer -> number of output channels before and after, where some were removed.
        kept_channels: Layer -> why channels that have vanished were kept all the same.
    """

    layers: tuple[LayerCollapse, ...]
    before: Cost
    after: Cost
    batch: int = 0
    error: float = math.nan
    tolerance: float = math.nan
    n_data: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    channels: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept_channels: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings, dicts and lists."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> CollapseReport:
        """Restore a report from what `to_dict` returns, also after JSON has made tuples lists."""
        layers = (
            {**layer, "kept": tuple(layer["kept"]), "dropped": tuple(layer["dropped"])}
            for layer in facts["layers"]
        )
        rest = {
            "layers": tuple(LayerCollapse(**layer) for layer in layers),
            "before": Cost(**facts["before"]),
            "after": Cost(**facts["after"]),
            "channels": {name: tuple(pair) for name, pair in facts["channels"].items()},
        }
        return cls(**{**facts, **rest})

    def __str__(self) -> str:
        """The tables of layers, costs and scores."""
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield "Collapse report"
        yield ""
        rows = [
            [row.name, "+".join(row.kept) or "none", "+".join(row.dropped) or "none", row.module]
            + [count(row.params_before), count(row.params_after)]
            for row in self.layers
        ]
        titles = ("layer", "kept", "dropped", "is now", "weights", "after")
        yield from draw_lines(titles, rows, (False,) * 4 + (True,) * 2)
        yield ""
        yield from draw_lines(("network", "before", "after"), self._costs(), (False, True, True))
        if self.scores:
            yield ""
            scores = [
                [STAGES[stage]] + [number(values[name]) for name in values]
                for stage, values in self.scores.items()
            ]
            names = list(next(iter(self.scores.values())))
            yield from draw_lines(["on the data", *names], scores, [False, *[True] * len(names)])
        yield ""
        yield from self._notes()

    def _costs(self) -> list[list[str]]:
        costs = (self.before, self.after)
        rows = [["parameters", *(count(cost.params) for cost in costs)]]
        if self.batch:
            rows.append(["multiply-adds", *(f"{cost.multiply_adds:,.0f}" for cost in costs)])
            name = f"ms per batch of {self.batch}, 1 thread"
            rows.append([name, *(number(1e3 * cost.seconds) for cost in costs)])
        return rows

    def _notes(self) -> Iterator[str]:
        for name, (before, after) in self.channels.items():
            yield f"{name}: {before} channels, now {after}"
        for name, reason in self.kept_channels.items():
            yield f"{name}: vanished channels kept, because {reason}"
        if self.n_data:
            yield (
                f"Outputs on {self.n_data:,} samples: largest difference {self.error:.1e}, where "
                f"rounding explains {self.tolerance:.1e}."
            )
        else:
            yield "Compared layer by layer on random inputs; give data to compare outputs."


def collapse_report(plain: nn.Module) -> CollapseReport:
    """The report of a collapsed network.

    Args:
        plain: What `symlearn.collapse` or `FitResult.collapse` returned, or a copy of it.

    Raises:
        ValueError: If the network is no collapsed one.
    """
    facts = getattr(plain, ATTRIBUTE, None)
    if not isinstance(facts, dict):
        raise ValueError(
            "this network carries no collapse report; give what symlearn.collapse or "
            "result.collapse() returned"
        )
    return CollapseReport.from_dict(facts)
