"""All cases by section of docs/reference/errors.md, and the page made of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.bad_input import files, fitting, using, wrapping
from tests.bad_input.case import Bad

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"

SECTIONS: dict[str, list[Bad]] = {
    "wrap, plan, lift and models": wrapping.WRAP,
    "Options of a fit": fitting.OPTIONS,
    "Training data": fitting.DATA,
    "Networks": fitting.MODELS,
    "While a fit runs": fitting.RUN,
    "Predictions and reports": using.PREDICTIONS,
    "screen": using.SCREEN,
    "audit": using.AUDIT,
    "collapse": using.COLLAPSE,
    "Files and folders": files.FILES,
    "curvature.kronecker": using.CURVATURE,
}

_INTRODUCTION = """\
# Errors

What the package says to bad input. Every row was produced by running the case on a small network
(`tests/bad_input`, a test compares); `run` stands for a folder, and `...` for a list of names, or
for the words of another library, which differ between its versions. An error says what was given
and what is accepted. It changes nothing: networks, data, results, folders and the states of random
number generators are as they were. Bad options and data are told before training, those of
`validation` included; what shows up later, such as a loss that is not finite, stops the run, and
the checkpoints before it stay.

Errors of your own code, such as a dataset or a callback, pass through as they are; where a dataset
raises a `RuntimeError` or a `TypeError`, the number of the batch is put before it.

What is *not* an error: one sample, one class, a class never seen, constant images, duplicates,
random labels, a network that is dead (`tests/test_bad_input_data.py`). Such a fit ends with a
report whose numbers are finite, and the verdict of a layer in which nothing is explained is "off"
or "undecided".
"""


def cases() -> Iterator[Bad]:
    """All cases in the page's order."""
    for section in SECTIONS.values():
        yield from section


def refused(case: Bad) -> Exception:
    """The error of a case.

    Raises:
        AssertionError: If there is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.act(*case.made)
    except Exception as error:  # of whatever kind: the caller looks at it
        return error
    raise AssertionError(f"{case.given}: accepted")


def page() -> str:
    """The page, by running all cases."""
    parts = [_INTRODUCTION]
    for title, section in SECTIONS.items():
        rows = [case.row(refused(case)) for case in section]
        table = ["| given | error | text |", "|---|---|---|", *rows]
        parts.append(f"## {title}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)
