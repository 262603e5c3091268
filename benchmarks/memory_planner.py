"""Claim: the memory planner predicts the peak memory of a fit within 20 %.

Networks of different kinds on random data, short fits with all of a fit's work. Predicted before
the fit by `symlearn.memory_plan`, which computes nothing; measured is `symlearn.fit` in processes
of its own, after a small fit that brings in code: once the bytes of all tensors in use at a time,
once the growth of the resident set (with the C library's allocator giving freed memory back at
once); on a GPU torch's peak of allocated memory. The resident set has more than tensors: workspaces
of convolutions and decompositions, code, and what the allocator keeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import symlearn
from benchmarks.support import harness
from benchmarks.support.harness import Cell, Report
from benchmarks.support.peak_memory import MIB, extra_peak, in_fresh_process
from symlearn.memory.live import LiveBytes
from symlearn.models import paper_backbone, paper_cnn, small_cnn
from symlearn.paths import SFC

LIMIT = 0.2
Case: TypeAlias = "tuple[nn.Module, tuple[Tensor, Tensor], symlearn.FitConfig]"


def config(**changes: Any) -> symlearn.FitConfig:
    """A short fit in which all paths are on from the start."""
    usual: dict[str, Any] = {
        **{"epochs": 1, "burn_in": 0.0, "anneal": 0.0, "evidence_every": 1, "evidence_pause": 1},
        **{"grow": False, "progress": False, "curvature_samples": 400, "report_samples": 400},
    }
    return symlearn.FitConfig(**{**usual, **changes})


def images(n: int, channels: int, size: int, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    return torch.randn(n, channels, size, size), torch.randint(classes, (n,))


def paper() -> Case:
    """The paper's backbone with convolutions and factored fully-connected paths."""
    data = images(400, 1, 32)
    return symlearn.wrap(paper_backbone(2, 1, size=32), data[0][:2]), data, config()


def circular() -> Case:
    """The same as the paper has it: circular padding, and subsampling that moves with images."""
    return paper_cnn("ffc+conv", 2, 1), images(400, 1, 32), config()


def dense() -> Case:
    """Fully-connected paths: weights and factors outweigh activations."""
    data = images(400, 1, 16)
    net = symlearn.wrap(small_cnn(10, width=8), data[0][:2], paths=("conv", "fc"))
    return net, data, config(learning_rate=1e-3)


class Block(nn.Module):
    """Two convolutions with batch normalisation, and the input added."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()),
            *(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c, H, W] to the same shape."""
        return torch.relu(x + self.body(x))


def residual() -> Case:
    """A residual network with batch normalisation, the exact curvature of all data."""
    data = images(400, 3, 24)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), Block(16), nn.AvgPool2d(2), Block(16)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    exact = symlearn.FitConfig.published(1, **{"progress": False, "evidence_every": 1})
    return symlearn.wrap(net, data[0][:2], paths="conv"), data, exact


def series() -> Case:
    """Regression on series: one axis, three outputs, the noise learned."""
    x = torch.randn(400, 4, 256)
    net = nn.Sequential(
        *(nn.Conv1d(4, 24, 5, padding=2), nn.ReLU(), nn.AvgPool1d(2)),
        *(nn.Conv1d(24, 24, 5, padding=2), nn.ReLU(), nn.AvgPool1d(4)),
        *(nn.Flatten(), nn.Linear(24 * 32, 3)),
    )
    gaussian = config(likelihood="gaussian", batch_size=64)
    return symlearn.wrap(net, x[:2]), (x, torch.randn(400, 3)), gaussian


def separable() -> Case:
    """Depthwise and pointwise convolutions, sparse paths, plain Kronecker factors."""
    data = images(400, 3, 32)
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 2, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU()]
        layers += [nn.Conv2d(24, 24, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))
    relaxed = symlearn.wrap(net, data[0][:2], paths=("conv", SFC(anchors=64)))
    return relaxed, data, config(ekfac=False)


CASES: dict[str, Callable[[], Case]] = {
    "paper, conv+ffc": paper,
    "paper, circular": circular,
    "small CNN, conv+fc": dense,
    "residual, batch norm, exact": residual,
    "series, gaussian": series,
    "separable, conv+sfc, no ekfac": separable,
}


def case(name: str, device: str) -> Case:
    """A case with its network on a device."""
    torch.manual_seed(0)
    net, data, options = CASES[name]()
    return net.to(device), data, options


def measure_here(name: str, kind: str) -> float:
    """Peak of a fit in MiB beyond what is in use before it; for a process of its own.

    Args:
        name: One of `CASES`.
        kind: "tensors", "resident", or "cuda".
    """
    device = "cuda" if kind == "cuda" else "cpu"
    x, y = images(40, 1, 8, 2)
    tiny = symlearn.wrap(small_cnn(2, width=2), x[:2]).to(device)
    symlearn.fit(tiny, (x, y), config())
    net, data, options = case(name, device)
    run = partial(symlearn.fit, net, data, options)
    if kind == "resident":
        return extra_peak(run)
    if kind == "tensors":
        live = LiveBytes()
        with live:
            run()
        return live.peak / MIB
    torch.cuda.reset_peak_memory_stats()
    before: int = torch.cuda.memory_allocated()
    run()
    peak: int = torch.cuda.max_memory_allocated()
    return (peak - before) / MIB


def table(report: Report, device: str, kinds: Sequence[str]) -> None:
    """Add the table of a device; the first kind of figure is what is predicted."""
    rows: list[list[Cell]] = []
    for name in CASES:
        plan = symlearn.memory_plan(*case(name, device))
        where = max(plan.phases, key=lambda phase: plan.phases[phase].total)
        row: list[Cell] = [name, where, plan.peak / MIB]
        for kind in kinds:
            measured = in_fresh_process(Path(__file__), ["--measure", name, kind], live=True)
            error = plan.peak / MIB / measured - 1
            row += [measured, f"{100 * error:+.1f} %"]
            if kind == kinds[0]:
                report.goal(f"{name}, {kind}: |error|", abs(error), LIMIT)
        rows.append(row)
        print(row, flush=True)
    figures = (column for kind in kinds for column in (f"{kind}, MiB", "error"))
    report.table(f"Peak of a fit, {device}", ["network", "phase", "predicted, MiB", *figures], rows)


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, measure={"nargs": 2, "help": argparse.SUPPRESS})
    torch.set_num_threads(1)
    if options.measure is not None:
        print(measure_here(*options.measure))
        return
    report = Report.described("memory_planner", __doc__)
    table(report, "cpu", ("tensors", "resident"))
    if torch.cuda.is_available():
        table(report, "cuda", ("cuda",))
    report.write(options.out)


if __name__ == "__main__":
    main()
