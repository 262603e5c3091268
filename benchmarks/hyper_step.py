"""Claim: the closed-form step of the precisions costs less than differentiating a log determinant.

The paper's CONV net after ten epochs on 512 images; one precision per layer, all starting at one;
weights and curvature are fixed, and all contenders are given the same eigenvalues in double
precision, in which the library always updates. Converged means: every log precision within 0.01 of
the optimum, ten steps in a row. CPU time on one thread.

Two objectives. The evidence at *fixed weights* is what laplace-torch's ``log_marginal_likelihood``
is differentiated for, with Adam (0.1 is the published step size); ``update(method="gradient")``
takes the same Adam steps. Its optimum is found by bisection of MacKay's equation. The *profile*
evidence lets the weights follow the precision in the quadratic model of the likelihood;
``update(method="fixed_point")`` goes to its global minimum at once, where Adam on the same formula
by autograd has to walk. Its optimum is found on a grid. The two optima are one only when the
weights are those that belong to the precisions; the last table shows how far they are apart here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

import priors
from benchmarks.support import accuracy, harness, hyper, nets
from benchmarks.support.harness import Cell, Missing, Report, measure, ratio
from benchmarks.support.hyper import Objective, Problem, Step, adam, updates

EPOCHS = 10
SIZES = (0.1, 0.3, 1.0)
CLOSE, IN_A_ROW, MOST_STEPS = 0.01, 10, 300
SAME_PATH = 30  # steps over which two implementations of one method are compared
FIXED, PROFILE = "fixed weights", "profile"
CLOSED_FORM = "symlearn, fixed_point"
LAPLACE, AUTOGRAD = "laplace-torch, Adam", "autograd, Adam"
GRADIENT = f"symlearn, gradient {SIZES[0]:g}"
Makers: TypeAlias = dict[str, Callable[[], Step] | Missing]


def contenders(problem: Problem, laplace: Objective | Missing) -> dict[str, Makers]:
    """Objective to contender to what starts its walk."""
    groups, profile = len(problem.groups), hyper.profile_objective(problem)
    fixed: Makers = {GRADIENT: partial(updates, problem, "gradient", SIZES[0])}
    follow: Makers = {CLOSED_FORM: partial(updates, problem, "fixed_point", 1.0)}
    for size in SIZES:
        theirs: Callable[[], Step] | Missing = (
            laplace if isinstance(laplace, Missing) else partial(adam, laplace, groups, size)
        )
        fixed[f"{LAPLACE} {size:g}"] = theirs
        follow[f"{AUTOGRAD} {size:g}"] = partial(adam, profile, groups, size)
    return {FIXED: fixed, PROFILE: follow}


@dataclass(frozen=True)
class Found:
    """A contender's figures: seconds of a step, and steps to convergence if it got there."""

    seconds: float | Missing
    steps: int | Missing | None

    @property
    def total(self) -> float | Missing | None:
        """Seconds to convergence."""
        if self.steps is None or isinstance(self.steps, Missing):
            return self.steps
        return self.seconds if isinstance(self.seconds, Missing) else self.seconds * self.steps


def walk(makers: Makers, optimum: Tensor, reps: int) -> dict[str, Found]:
    """Time a step of every contender, and count its steps to the optimum."""
    starts = {n: make if isinstance(make, Missing) else make() for n, make in makers.items()}
    seconds = measure(starts, reps)
    found = {}
    for name, make in makers.items():
        steps: int | Missing | None
        if isinstance(make, Missing):
            steps = make
        else:
            steps = hyper.steps_to(make(), optimum, CLOSE, IN_A_ROW, MOST_STEPS)
        found[name] = Found(seconds[name], steps)
    return found


def add_walks(report: Report, walks: Mapping[str, Mapping[str, Found]]) -> None:
    """A table of steps and times."""
    rows: list[Sequence[Cell]] = []
    for objective, found in walks.items():
        for name, one in found.items():
            steps: Cell = f"> {MOST_STEPS}" if one.steps is None else one.steps
            total: Cell = "-" if one.total is None else _ms(one.total)
            rows.append([name, objective, _ms(one.seconds), steps, total])
    columns = ["", "objective", "ms per step", "steps", "ms to convergence"]
    report.table("Steps and CPU time to convergence", columns, rows)


def _ms(seconds: float | Missing) -> float | Missing:
    return seconds if isinstance(seconds, Missing) else 1000 * seconds


def add_agreement(
    report: Report, problem: Problem, laplace: Objective | Missing, optima: Mapping[str, Tensor]
) -> None:
    """A table of the evidence at fixed weights and the profile, at the start and both optima."""
    profile, found = hyper.profile_objective(problem), problem.found
    start = torch.zeros(len(problem.groups), dtype=torch.float64)
    rows: list[Sequence[Cell]] = []
    differences = []
    for where, t in (("the start", start), *((f"optimum, {k}", t) for k, t in optima.items())):
        prior = priors.PathPrior(problem.groups, t.exp())
        ours = priors.log_evidence(found.log_likelihood, found, problem.params, prior)
        theirs = laplace if isinstance(laplace, Missing) else -float(laplace(t))
        if not isinstance(theirs, Missing):
            differences.append(abs(theirs / ours - 1))
        rows.append([where, ours, theirs, -float(profile(t))])
    worst = max(differences) if differences else Missing("laplace")
    report.goal("log evidence, relative difference to laplace-torch's", worst, 1e-9)
    columns = ["at", "log evidence, symlearn", "laplace-torch", "profile gain"]
    report.table("Both objectives at the start and at both optima, in nats", columns, rows)


def same_path(makers: Makers) -> float | Missing:
    """Largest difference between our log precisions and laplace-torch's on the way."""
    theirs, ours = makers[f"{LAPLACE} {SIZES[0]:g}"], makers[GRADIENT]
    if isinstance(theirs, Missing) or isinstance(ours, Missing):
        return Missing("laplace")
    a, b = theirs(), ours()
    return max(float((a() - b()).abs().max()) for _ in range(SAME_PATH))


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__)
    report = Report("hyper_step", "Precisions in closed form", __doc__ or "")
    images = nets.images(512)
    net = nets.paper_conv()
    nets.train(net, nets.Batches(images.x, images.y, 128), EPOCHS)
    net = net.double().eval()
    batches = nets.Batches(images.x.double(), images.y, 128)
    problem = Problem.of(net, batches)
    laplace = hyper.laplace_objective(net, batches, problem)
    optima = {
        FIXED: accuracy.learn(net, problem.found).log_precisions,
        PROFILE: hyper.profile_optimum(problem),
    }
    with harness.threads(1):
        makers = contenders(problem, laplace)
        walks = {o: walk(makers[o], optima[o], options.reps) for o in makers}
        path = same_path(makers[FIXED])
    add_goals(report, walks, path)
    add_agreement(report, problem, laplace, optima)
    add_walks(report, walks)
    rows: list[Sequence[Cell]] = [
        [layer, float(optima[FIXED][i]), float(optima[PROFILE][i])]
        for i, layer in enumerate(problem.groups)
    ]
    report.table("Optimal log precisions", ["layer", FIXED, PROFILE], rows)
    report.write(options.out)


def add_goals(
    report: Report, walks: Mapping[str, Mapping[str, Found]], path: float | Missing
) -> None:
    """The closed form against Adam, to convergence, each to the optimum of its own objective."""
    ours = walks[PROFILE][CLOSED_FORM]
    steps = ours.steps if isinstance(ours.steps, int) else MOST_STEPS
    report.goal("steps of the closed form to its optimum", steps, 1)
    for objective, name in ((FIXED, LAPLACE), (PROFILE, AUTOGRAD)):
        theirs = walks[objective][f"{name} {SIZES[0]:g}"].total
        if ours.total is not None and theirs is not None:
            what = f"closed form / {name} {SIZES[0]:g}, time to convergence"
            report.goal(what, ratio(ours.total, theirs), 0.2)
    report.goal(f"{GRADIENT} and laplace-torch, largest distance on the way", path, 1e-9)


if __name__ == "__main__":
    main()
