"""In which layers free paths are needed: the networks compared, and what their evidence says."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from symlearn.report import rule, schema, table
from symlearn.report.document import Document
from symlearn.report.text import WIDTH, draw_lines

if TYPE_CHECKING:
    from typing_extensions import Self

START, CONTROL = "start", "control"


@dataclass(frozen=True)
class Network:
    """One fitted network of the comparison.

    Attributes:
        kind: "start" for a fit from one of the starts; "held" or "free" for a refit without some
            paths, in which all others stay as they are or may be started and switched off.
        name: Name of the start; of a refit the paths that were taken away, as "layer.path" joined
            by "+", or "control" if none was.
        layers: Layers in which a free path is on at the end.
        log_evidence: Log evidence in nats at the end, with the exact curvature of all data.
        behind: Nats behind the best start, or behind the control of the refits; for a refit this is
            the log Bayes factor of the paths that were taken away.
    """

    kind: str
    name: str
    layers: tuple[str, ...]
    log_evidence: float
    behind: float

    def __post_init__(self) -> None:
        """Check that every field is a plain value."""
        schema.check(self)


@dataclass(frozen=True)
class Location(Document):
    """Whether free paths are needed, and where. Printing it shows the comparison.

    Attributes:
        needed: "needed", "not needed" or "undecided".
        layers: Layers in which every network that explains the data has a free path, those left
            out that have only more of them than another.
        undecided: Layers in which some of them have, and the evidence does not say which.
        networks: The networks compared.
        tolerance: Nats by which log evidences must differ to prefer one network.
        n_data: Number of training samples.
    """

    FORMAT = "symlearn.location/1"

    needed: str
    layers: tuple[str, ...]
    undecided: tuple[str, ...]
    networks: tuple[Network, ...]
    tolerance: float
    n_data: int

    def __post_init__(self) -> None:
        """Check the field types."""
        schema.check(self)

    @classmethod
    def of(cls, networks: Sequence[Network], n_data: int, tolerance: float) -> Self:
        """Judge a comparison (`symlearn.report.rule.whereabouts`).

        Args:
            networks: The networks.
            n_data: Number of training samples.
            tolerance: Nats by which log evidences must differ (`symlearn.report.rule.tolerance`).

        Raises:
            ValueError: If no network has a finite evidence.
        """
        behind = [(frozenset(network.layers), network.behind) for network in networks]
        needed, every, some = rule.whereabouts(behind, tolerance)
        order = list(dict.fromkeys(name for network in networks for name in network.layers))
        return cls(
            needed,
            tuple(sorted(every, key=order.index)),
            tuple(sorted(some, key=order.index)),
            tuple(networks),
            tolerance,
            n_data,
        )

    @property
    def verdict(self) -> str:
        """The finding in words."""
        if self.needed == rule.NOT_NEEDED:
            return "no free path is needed"
        if self.needed == rule.UNDECIDED:
            return f"undecided whether one is needed, in {_layers(self.undecided)}"
        if not self.layers:
            return f"needed, location undecided among {_layers(self.undecided)}"
        also = f"; undecided in {_layers(self.undecided)}" if self.undecided else ""
        return f"needed in {_layers(self.layers)}{also}"

    def factor(self, path: str, mode: str) -> float:
        """Log Bayes factor of a path in nats, the others "held" or "free" to take over its work.

        It is 0 for a path that was off in the network that the refits started from.

        Args:
            path: The path as "layer.path".
            mode: "held" or "free".

        Raises:
            ValueError: For another mode.
        """
        if mode not in ("held", "free"):
            raise ValueError(f"mode is {mode!r}; choose one of ['held', 'free']")
        found = [n.behind for n in self.networks if (n.kind, n.name) == (mode, path)]
        return found[0] if found else 0.0

    def __str__(self) -> str:
        """Return the text."""
        return _text(self)


# --- Text ---

_TITLES = ("network", "paths taken away", "free paths in layers", "log evidence", "behind (nats)")
_KINDS = {START: "start", "held": "refit, others held", "free": "refit, others free"}


def _text(found: Location) -> str:
    rows = []
    for n in found.networks:
        what = (f"start {n.name}", "") if n.kind == START else (_KINDS[n.kind], n.name)
        cells = (*what, _names(n.layers) or table.NONE)
        rows.append([*map(table.printable, cells), f"{n.log_evidence:,.1f}", f"{n.behind:,.1f}"])
    lines = draw_lines(_TITLES, rows, (False, False, False, True, True))
    ruler = "─" * max(len(line.rstrip()) for line in lines)
    rows_from = len(lines) - len(rows)
    note = (
        "Behind is the distance to the best start, or for refits to the control: the log Bayes "
        "factor of the paths taken away, while the others stay, or may be started and switched "
        f"off. Networks at most {table.number(found.tolerance)} nats behind the best explain the "
        f"{found.n_data:,} data as well; of these, what all share is needed, unless one has the "
        "free paths of another and more."
    )
    head = [f"Free paths: {table.printable(found.verdict)}", "═" * len(ruler)]
    body = [*lines[:rows_from], ruler, *lines[rows_from:], ruler]
    drawn = [*head, *body, "", *textwrap.wrap(note, WIDTH)]
    return "\n".join(line.rstrip() for line in drawn)


def _names(layers: Sequence[str]) -> str:
    return ", ".join(layers)


def _layers(layers: Sequence[str]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {_names(layers)}"
