"""Claim: verdicts follow the truth on tasks whose symmetry is known by construction.

Each task (`benchmarks.support.truth`) has data made so that it is known whether they obey the group
of the strict paths. What is found of a network is

* ``kept``: only strict paths are present;
* ``broken``: freer paths are present as well;
* ``absent``: only freer ones are;
* ``off``: no path is; ``undecided``: the verdict of some layer is.

``broken`` as the truth says no more than that a freer path is needed, so ``absent`` is right there
too. Images and signals have the fit's defaults, but for fewer epochs; regressions a schedule like
that of `benchmarks.study_emlp`. Sizes and epochs were set on seed 100, for time; those of turned
digits were doubled after an underfitted verdict there.

Two thresholds are judged on tasks that they were not chosen on: the least relative share of
effective parameters from which a path is present (a fifth of it makes it doubtful), and the least
gain in evidence of a path beside one that has it. The value that makes most verdicts right on half
of the tasks is taken (of equally good ones the middle one), and its verdicts on the other half are
counted. Which paths the fit itself switched off does not depend on it. The package asks for a gain
since runs of an earlier round, of the same tasks and seeds, told how many verdicts that would mend.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

import symlearn
from benchmarks.support.harness import Cell, markdown_table
from benchmarks.support.pictures import bar_picture
from benchmarks.support.study import Row, Study, options
from benchmarks.support.symmetric import Problem
from benchmarks.support.truth import ABSENT, ACCEPTED, BROKEN, KEPT, TASKS
from benchmarks.support.verdicts import present
from symlearn import FitResult
from symlearn.report import PathStructure
from symlearn.report.rule import (
    DOUBTFUL_SHARE,
    MIN_GAIN,
    OFF,
    ON_SHARE,
    UNDECIDED,
    supported,
    verdict,
)

FOUND = (KEPT, BROKEN, ABSENT, OFF, UNDECIDED)
HALVES = ("A", "B")
SHARES = tuple(0.002 * 1.25**i for i in range(25))
GAINS = tuple(0.5 * 1.5**i for i in range(15))
Judge: TypeAlias = Callable[[Row], str]
OF_TASK = {task.name: task for task in TASKS}


def run(task: str, seed: int) -> Row:
    """One fit, with all that its verdict and its evidence are made of."""
    problem = OF_TASK[task].make(seed)
    result = symlearn.fit(problem.net, problem.data, problem.config)
    operators, error = measured(problem, result)
    layers = []
    for layer in result.report:
        checks = layer.checks
        layers.append(
            {
                "name": layer.name,
                "verdict": layer.verdict,
                "agreement": layer.agreement,
                "paths": {name: asdict(path) for name, path in layer.paths.items()},
                "operator": operators[layer.name],
                "drop": checks[0].drop if checks else math.nan,
                "drop error": checks[0].drop_error if checks else math.nan,
                "check": checks[0].outcome if checks else "",
            }
        )
    return {
        "layers": layers,
        "network": error,
        "log_evidence_per_sample": result.log_evidence / result.report.n_data,
        "guessing": guessing(problem.data[1]),
        "training": result.score(problem.data),
    }


def measured(problem: Problem, result: FitResult) -> tuple[dict[str, float], float]:
    """Per layer what of its operator breaks the group; and how far the network's outputs do."""
    if problem.measure is not None:
        return problem.measure(result.model)
    checks = {layer.name: layer.checks[0] for layer in result.report}
    shares = {name: check.breaking_share for name, check in checks.items()}
    return shares, next(iter(checks.values())).shift_error


def guessing(targets: Tensor) -> float:
    """Mean log likelihood of the best constant prediction: label frequencies, or a normal one."""
    if targets.is_floating_point():
        variance = targets.var(0, correction=0)
        return float(-0.5 * (2 * math.pi * math.e * variance).log().sum())
    share = targets.bincount() / len(targets)
    return float(torch.special.entr(share).sum().neg())


# --- The rule, again at other thresholds ---


def found(verdicts: Iterable[str], strict: str) -> str:
    """What the verdicts of a network's layers say of its group."""
    paths = present(verdicts)
    if paths == {UNDECIDED}:
        return UNDECIDED
    if not paths:
        return OFF
    if paths == {strict}:
        return KEPT
    return BROKEN if strict in paths else ABSENT


def judged(row: Row, on: float = ON_SHARE, gain: float = MIN_GAIN, *, checked: bool = False) -> str:
    """What a row says at other thresholds.

    Args:
        row: The row.
        on: Least relative effective parameters of a path that is present.
        gain: Least gain, in nats, of a path beside one that has it.
        checked: Take a layer whose check disagrees as undecided.
    """
    verdicts = []
    for layer in row["layers"]:
        paths = {name: PathStructure(**facts) for name, facts in layer["paths"].items()}
        doubtful = on * DOUBTFUL_SHARE / ON_SHARE
        each = verdict(paths, on=on, doubtful=doubtful, gain=gain, agreement=layer["agreement"])
        verdicts.append(supported(each, [layer["check"]]) if checked else each)
    return found(verdicts, OF_TASK[row["task"]].strict)


def is_right(row: Row, says: str) -> bool:
    """Whether that is the truth of the row's task."""
    return says in ACCEPTED[OF_TASK[row["task"]].truth]


def count_right(rows: Iterable[Row], judge: Judge) -> int:
    """Rows of which the truth is said."""
    return sum(is_right(row, judge(row)) for row in rows)


def chosen(rows: Sequence[Row], values: Sequence[float], at: Callable[[float], Judge]) -> float:
    """The threshold with which most rows are right; of equally good ones the middle one."""
    counts = [count_right(rows, at(value)) for value in values]
    best = [value for value, count in zip(values, counts, strict=True) if count == max(counts)]
    return best[len(best) // 2]


def unless_guessing(row: Row) -> str:
    """The package's rule, undecided where the evidence is no better than that of guessing."""
    return judged(row) if row["log_evidence_per_sample"] > row["guessing"] else UNDECIDED


def by_share(on: float) -> Judge:
    """The rule with another least share."""
    return partial(judged, on=on)


def by_gain(gain: float) -> Judge:
    """The rule with another least gain."""
    return partial(judged, gain=gain)


def confusion(rows: Iterable[Row], judge: Judge = judged) -> Counter[tuple[str, str]]:
    """Number of rows by truth and by what is found."""
    return Counter((OF_TASK[row["task"]].truth, judge(row)) for row in rows)


# --- The page ---


def tables(rows: list[Row]) -> Iterable[str]:
    """The confusion table, the threshold's, the tasks and all wrong verdicts."""
    right = count_right(rows, judged)
    yield f"Right: {right} of {len(rows)} verdicts."
    yield "## What is found, by truth"
    counts = confusion(rows)
    columns = [f for f in FOUND if any(says == f for _, says in counts)]
    yield markdown_table(
        ["truth", *columns],
        [[truth, *(counts[truth, says] for says in columns)] for truth in ACCEPTED],
    )
    yield "## A threshold chosen on one half of the tasks, judged on the other"
    yield markdown_table(
        ["threshold", "right on A", "right on B", "wrong but not undecided, of all"],
        list(_threshold_rows(rows)),
    )
    yield "## Tasks"
    yield markdown_table(["task", "half", "truth", "because", "found", "CPU s"], _task_rows(rows))
    yield "## Wrong verdicts"
    wrong = [row for row in rows if not is_right(row, judged(row))]
    if not wrong:
        yield "None."
        return
    yield (
        "Of each layer: gain in nats of the paths that are on, and in brackets their relative "
        "effective parameters (evidence); the share of the operator's squared norm in which free "
        "paths break the group, of matrix groups in which the layer does (operator); by how much "
        "the shift error drops without them, and the error of the whole network: its shift error, "
        "or the mean relative error under the group (network). Last the log evidence over the log "
        "likelihood of a constant prediction, in nats per sample (over guessing)."
    )
    columns = ["task, seed", "truth", "found", "layer", "evidence", "operator", "drop", "network"]
    columns.append("over guessing")
    yield markdown_table(columns, [line for row in wrong for line in _evidence(row)])


def _threshold_rows(rows: list[Row]) -> Iterable[list[Cell]]:
    halves = {half: [row for row in rows if OF_TASK[row["task"]].half == half] for half in HALVES}
    rules: dict[str, Judge] = {
        f"share {ON_SHARE:.1%} and gain {MIN_GAIN:g} nats, the package's": judged,
        "the same, without a least gain": by_gain(-math.inf),
        "the same, undecided where the check disagrees": partial(judged, checked=True),
        "the same, undecided where the evidence is below that of guessing": unless_guessing,
    }
    for half, mine in halves.items():
        if mine:
            on, gain = chosen(mine, SHARES, by_share), chosen(mine, GAINS, by_gain)
            rules[f"share {on:.1%}, chosen on {half}"] = by_share(on)
            rules[f"gain {gain:.1f} nats, chosen on {half}"] = by_gain(gain)
    for name, judge in rules.items():
        counts = [f"{count_right(mine, judge)} of {len(mine)}" for mine in halves.values()]
        says = [(row, judge(row)) for row in rows]
        yield [name, *counts, sum(not is_right(row, s) and s != UNDECIDED for row, s in says)]


def _task_rows(rows: list[Row]) -> list[list[Cell]]:
    lines: list[list[Cell]] = []
    for task in TASKS:
        mine = [row for row in rows if row["task"] == task.name]
        if mine:
            counts = Counter(judged(row) for row in mine)
            says = ", ".join(f"{n} {what}" for what, n in counts.most_common())
            seconds = sum(row["cpu_seconds"] for row in mine) / len(mine)
            lines.append([task.name, task.half, task.truth, task.why, says, seconds])
    return lines


def _evidence(row: Row) -> Iterable[list[Cell]]:
    """One line a layer: the three-way evidence."""
    head: list[Cell] = [f"{row['task']}, {row['seed']}", OF_TASK[row["task"]].truth, judged(row)]
    last = [f"{row['network']:.3f}", f"{row['log_evidence_per_sample'] - row['guessing']:.3f}"]
    for layer in row["layers"]:
        evidence = ", ".join(
            f"{name} {path['evidence_gain']:.0f} ({path['relative_effective_params']:.1%})"
            for name, path in layer["paths"].items()
            if path["on"]
        )
        drop = f"{layer['drop']:.3f} ± {layer['drop error']:.3f}" if layer["check"] else "–"
        yield [*head, layer["name"], evidence or "–", f"{layer['operator']:.1%}", drop, *last]
        head, last = ["", "", ""], ["", ""]


def picture(rows: list[Row], file: Path) -> None:
    """How often each task's truth is said."""
    said = [{**row, "right": float(is_right(row, judged(row)))} for row in rows]
    panels = {"right": "share of seeds right"}
    draw = bar_picture(
        lambda row: f"{row['task']}: {OF_TASK[row['task']].truth}", lambda row: "", panels
    )
    draw(said, file)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(__doc__, seeds=5)
    study = Study("truth", __doc__, tables, picture)
    for seed in given.seeds:
        for task in TASKS:
            study.add(run, task=task.name, seed=seed)
    study.main(given.out, given.only)


if __name__ == "__main__":
    main()
