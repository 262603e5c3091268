"""A dry run of `wrap`: what it would do to each convolution, and what that would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from curvature.checking import check_positive
from symlearn.memory.paths import Cost, Place, hint, lighter
from symlearn.observe import Site, observe_convs, why_left_alone
from symlearn.paths import PathSpec
from symlearn.report.text import draw_lines
from symlearn.select import PathsFor, Selection, assign, obstacles, select, stages, unsuited
from symlearn.wrap import check_model

ACTIONS = ("relax", "leave alone", "refuse")
_TITLES = (
    *("layer", "convolution", "input", "output", "stage", "action", "paths"),
    *("weights", "relaxed", "factors MiB", "note"),
)
_NUMBERS = ("stage", "weights", "relaxed", "factors MiB")


@dataclass(frozen=True)
class PlanRow:
    """What `wrap` would do to one convolution.

    Attributes:
        layer: Its qualified name.
        module: Its class and options.
        in_shape: Shape of its input without the batch, [C, *size]; empty if it does not run.
        out_shape: The same for its output.
        stage: Number of its stage, from 1 (see `symlearn.last_stages`); None if it is in none.
        action: One of `ACTIONS`; `wrap` raises an error if a selected layer is to be refused.
        reason: Why it is left alone or refused; empty if it is relaxed.
        paths: Costs of the paths it would have.
        lighter: Costs of what to take in place of paths that need too much memory, by path name;
            None if nothing is light enough.
        params_before: Its parameters now.
        params_after: Its parameters once wrapped.
    """

    layer: str
    module: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    stage: int | None
    action: str
    reason: str
    paths: tuple[Cost, ...]
    lighter: dict[str, Cost | None]
    params_before: int
    params_after: int

    @property
    def factor_gib(self) -> float:
        """Memory of the curvature factors of its paths."""
        return sum(cost.factor_gib for cost in self.paths)

    @property
    def gib(self) -> float:
        """Memory of weights, gradients, optimiser state and factors of its paths."""
        return sum(cost.gib for cost in self.paths)

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        note = [self.reason] if self.reason else []
        note += [f"{name!r} is too large: {hint(cost)}" for name, cost in self.lighter.items()]
        return (
            self.layer,
            self.module,
            "x".join(map(str, self.in_shape)) or "-",
            "x".join(map(str, self.out_shape)) or "-",
            str(self.stage or "-"),
            self.action,
            "+".join(cost.spec.name for cost in self.paths) or "-",
            f"{self.params_before:,}",
            f"{self.params_after:,}",
            f"{1024 * self.factor_gib:,.1f}" if self.paths else "-",
            "; ".join(note),
        )


@dataclass(frozen=True)
class WrapPlan:
    """A table of all convolutions of a network, in the order they first run.

    Attributes:
        rows: One per convolution; those that do not run come last.
        memory_limit_gib: Limit on the memory of all paths, as given.
    """

    rows: tuple[PlanRow, ...]
    memory_limit_gib: float

    @property
    def relaxed(self) -> tuple[PlanRow, ...]:
        """The layers that would be relaxed."""
        return self._of("relax")

    @property
    def left_alone(self) -> tuple[PlanRow, ...]:
        """The layers that would stay as they are."""
        return self._of("leave alone")

    @property
    def refused(self) -> tuple[PlanRow, ...]:
        """The selected layers that cannot be relaxed; leave them out with ``layers=``."""
        return self._of("refuse")

    @property
    def gib(self) -> float:
        """Memory that all paths would need."""
        return sum(row.gib for row in self.rows)

    @property
    def fits(self) -> bool:
        """Whether that keeps to the limit."""
        return self.gib <= self.memory_limit_gib

    @property
    def paths(self) -> dict[str, tuple[PathSpec, ...]]:
        """Paths by layer, lighter ones in place of those too heavy: for ``wrap(paths=...)``.

        Layers with a path for which nothing is light enough are left out.
        """
        found = {}
        for row in self.relaxed:
            costs = [row.lighter.get(cost.spec.name, cost) for cost in row.paths]
            specs = tuple(cost.spec for cost in costs if cost is not None)
            if len(specs) == len(costs):
                found[row.layer] = specs
        return found

    def _of(self, action: str) -> tuple[PlanRow, ...]:
        return tuple(row for row in self.rows if row.action == action)

    def summary(self) -> str:
        """Totals, in one sentence each."""
        before, after = (
            sum(getattr(row, f"params_{when}") for row in self.rows) for when in ("before", "after")
        )
        counts = f"{len(self.relaxed)} relaxed, {len(self.left_alone)} left alone"
        lines = [
            f"{len(self.rows)} convolutions: {counts}, {len(self.refused)} refused.",
            f"Parameters of convolutions: {before:,} before, {after:,} after.",
            f"Memory of paths: {self.gib:.3g} GiB of {self.memory_limit_gib:g} GiB allowed.",
        ]
        if not self.fits:
            lines.append(
                "This does not fit: select fewer layers, or take the lighter paths of the notes "
                "with wrap(paths=plan.paths)."
            )
        return " ".join(lines)

    def __str__(self) -> str:
        body = [row.cells() for row in self.rows]
        lines = draw_lines(_TITLES, body, [title in _NUMBERS for title in _TITLES])
        return "\n".join([*(line.rstrip() for line in lines), "", self.summary()])

    def to_markdown(self) -> str:
        """The table and the totals as Markdown."""
        rule = ["---:" if title in _NUMBERS else "---" for title in _TITLES]
        lines = [_TITLES, rule, *(row.cells() for row in self.rows)]
        return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", self.summary()])


def plan(
    model: nn.Module,
    example_input: Tensor,
    *,
    paths: PathsFor = ("conv", "ffc"),
    layers: Selection = None,
    memory_limit_gib: float = 8.0,
) -> WrapPlan:
    """Say what `wrap` (with ``boundary="keep"``) would do; nothing is built or changed.

    The example runs once, in eval mode. All convolutions are listed: those that would be relaxed,
    with what their paths cost, and those that would be left alone or refused, with the reason.
    Where the paths need more memory than allowed, the notes name lighter ones that would fit.

    Args:
        model: The network.
        example_input: A batch it accepts, [N, C, *size].
        paths: As for `wrap`.
        layers: As for `wrap`.
        memory_limit_gib: As for `wrap`, which refuses a plan that needs more.

    Returns:
        The plan; print it for a table.

    Raises:
        ValueError: As for `wrap`, but not for layers that cannot be replaced, nor for memory.
        TypeError: As for `wrap`.

    Example:
        >>> import torch, symlearn
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> plan = symlearn.plan(cnn, torch.randn(2, 1, 8, 8))
        >>> plan.relaxed[0].params_before, plan.relaxed[0].params_after
        (40, 552)
    """
    check_model(model, example_input)
    check_positive("memory_limit_gib", memory_limit_gib)
    sites = observe_convs(model, example_input)
    relaxable = [site for site in sites if why_left_alone(site.module) is None]
    chosen = assign(select(sites, layers), paths) if relaxable or layers is not None else {}
    selected = [site for site in relaxable if site.name in chosen]
    planned = [(site, spec) for site in selected for spec in chosen[site.name]]
    found, misfits = obstacles(model, selected), unsuited(planned)
    problems = {
        site.name: "; ".join([*found.get(site.name, ()), *misfits.get(site.name, ())])
        for site in selected
    }
    table = _Table(
        chosen,
        problems,
        {site.name: i for i, run in enumerate(stages(relaxable), start=1) for site in run},
        lighter([(Place.of(s), p) for s, p in planned if not problems[s.name]], memory_limit_gib),
    )
    ran = {site.name for site in sites}
    convs = ((n, m) for n, m in model.named_modules() if isinstance(m, _ConvNd))
    idle = [Site(name, module) for name, module in convs if name not in ran]
    return WrapPlan(tuple(table.row(site) for site in [*sites, *idle]), memory_limit_gib)


@dataclass(frozen=True)
class _Table:
    """What is known of all layers, by name."""

    chosen: dict[str, tuple[PathSpec, ...]]
    problems: dict[str, str]
    stages: dict[str, int]
    lighter: dict[str, dict[str, Cost | None]]

    def row(self, site: Site) -> PlanRow:
        """The row of one convolution."""
        conv: Any = site.module
        action, reason = self._decision(site)
        relaxed = action == "relax"
        specs = self.chosen[site.name] if relaxed else ()
        costs = tuple(Cost.of(Place.of(site), spec) for spec in specs)
        before = sum(p.numel() for p in conv.parameters())
        bias = conv.out_channels if conv.bias is not None else 0
        in_size, out_size = site.calls[0] if site.calls else (None, None)
        return PlanRow(
            layer=site.name,
            module=_described(conv),
            in_shape=() if in_size is None else (conv.in_channels, *in_size),
            out_shape=() if out_size is None else (conv.out_channels, *out_size),
            stage=self.stages.get(site.name),
            action=action,
            reason=reason,
            paths=costs,
            lighter=self.lighter.get(site.name, {}),
            params_before=before,
            params_after=sum(cost.n_params for cost in costs) + bias if relaxed else before,
        )

    def _decision(self, site: Site) -> tuple[str, str]:
        unknown = why_left_alone(site.module)
        if unknown is not None:
            return "leave alone", unknown
        if not site.calls:
            return "leave alone", "does not run on the example (in eval mode)"
        if site.name not in self.chosen:
            return "leave alone", "not selected"
        problem = self.problems[site.name]
        return ("refuse", problem) if problem else ("relax", "")


def _described(conv: Any) -> str:
    """Class and options of a convolution, those of their default value left out."""
    parts = [f"{type(conv).__name__} {'x'.join(map(str, conv.kernel_size))}"]
    for option, plain in (("stride", 1), ("dilation", 1)):
        values = getattr(conv, option)
        if any(value != plain for value in values):
            parts.append(f"{option} {'x'.join(map(str, dict.fromkeys(values)))}")
    if conv.groups > 1:
        depthwise = conv.groups == conv.in_channels
        parts.append("depthwise" if depthwise else f"groups {conv.groups}")
    if conv.padding_mode != "zeros":
        parts.append(conv.padding_mode)
    return ", ".join(parts)
