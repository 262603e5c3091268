"""Tasks whose symmetry is known by construction, for `benchmarks.study_truth`.

The truth is one of

* `KEPT`: labels do not change, or targets move along, under the group: no layer needs a freer path;
* `BROKEN`: they do not obey the group: some layer needs one;
* `ABSENT`: nothing of the map obeys it: the strict path has no part in it either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.support.symmetric import (
    Problem,
    approximate_o5,
    filtered,
    noise_labels,
    placed,
    signals,
    turned,
    vectors,
)
from symlearn import datasets

KEPT, BROKEN, ABSENT = "kept", "broken", "absent"
ACCEPTED = {KEPT: (KEPT,), BROKEN: (BROKEN, ABSENT), ABSENT: (ABSENT,)}


@dataclass(frozen=True)
class Task:
    """A task of known symmetry.

    Attributes:
        name: Name.
        truth: `KEPT`, `BROKEN` or `ABSENT`.
        why: How the data are made, and why that is the truth.
        strict: Name of the strict path.
        half: "A" if thresholds may be chosen on it, "B" if they are judged on it.
        make: Draws it by a seed.
    """

    name: str
    truth: str
    why: str
    strict: str
    half: str
    make: Callable[[int], Problem]


TASKS = (
    Task(
        "digit",
        KEPT,
        "UCI digits 0 to 4 in one of four quadrants: no shift changes which digit it is",
        "conv",
        "A",
        placed("digits", "digit"),
    ),
    Task(
        "quadrant",
        BROKEN,
        "the same pictures, labelled by digit and quadrant: a shift by half a canvas changes that",
        "conv",
        "A",
        placed("digits", "quadrant"),
    ),
    Task(
        "mnist-digit",
        KEPT,
        "as *digit*, of MNIST",
        "conv",
        "B",
        placed("mnist5k", "digit"),
    ),
    Task(
        "mnist-quadrant",
        BROKEN,
        "as *quadrant*, of MNIST",
        "conv",
        "B",
        placed("mnist5k", "quadrant"),
    ),
    Task(
        "turned-digits",
        KEPT,
        "digits turned by random quarter turns, labelled by the digit",
        "gconv",
        "A",
        turned(asks_turn=False),
    ),
    Task(
        "which-way-up",
        BROKEN,
        "the same pictures, labelled by digit and turn: each turn changes that",
        "gconv",
        "A",
        turned(asks_turn=True),
    ),
    Task(
        "signals-anywhere",
        KEPT,
        "MNIST-1D, rolled by random numbers of sites: no shift changes which digit it is",
        "conv",
        "B",
        signals(asks_half=False),
    ),
    Task(
        "signals-aligned",
        BROKEN,
        "MNIST-1D, digits aligned in either half, labelled by digit and half: a shift by half the "
        "signal changes that",
        "conv",
        "B",
        signals(asks_half=True),
    ),
    Task(
        "filter",
        KEPT,
        "a filter of 3x3 on noise, with noise: it commutes with all shifts",
        "conv",
        "A",
        filtered(scrambled=False),
    ),
    Task(
        "scrambled-filter",
        ABSENT,
        "a filter between pixels in a random order, less its part that commutes with shifts",
        "conv",
        "A",
        filtered(scrambled=True),
    ),
    Task(
        "bars",
        KEPT,
        "a bar in noise, labelled by whether it lies or stands: no shift changes that",
        "conv",
        "B",
        noise_labels(local=True),
    ),
    Task(
        "template",
        BROKEN,
        "white noise, labelled by the sign of its product with a random image of mean zero; "
        "averaged over shifts, the product is zero",
        "conv",
        "B",
        noise_labels(local=False),
    ),
    Task(
        "twist-exact",
        KEPT,
        "a turn of the plane by a right angle, offered SO(2), with which it commutes",
        "emlp",
        "A",
        vectors(lambda seed: datasets.twist(300, seed)),
    ),
    Task(
        "twist-approximate",
        BROKEN,
        "the same, with one axis stretched by a half",
        "emlp",
        "A",
        vectors(lambda seed: datasets.twist(300, seed, symmetry="approximate")),
    ),
    Task(
        "twist-misspecified",
        ABSENT,
        "the same turn, offered O(2), no map of which is a turn",
        "emlp",
        "A",
        vectors(lambda seed: datasets.twist(300, seed, symmetry="misspecified")),
    ),
    Task(
        "o5-exact",
        KEPT,
        "a function of two vectors' lengths and angle",
        "emlp",
        "B",
        vectors(lambda seed: datasets.o5(300, seed), depth=1),
    ),
    Task(
        "o5-approximate",
        BROKEN,
        "the same, plus twice a coordinate",
        "emlp",
        "B",
        vectors(approximate_o5, depth=1),
    ),
    Task(
        "diabetes",
        BROKEN,
        "a table: its columns are different quantities, and no shift of them is a symmetry",
        "emlp",
        "B",
        vectors(lambda seed: datasets.tabular("diabetes", seed)),
    ),
    Task(
        "wine",
        BROKEN,
        "another table",
        "emlp",
        "B",
        vectors(lambda seed: datasets.tabular("wine", seed)),
    ),
)
