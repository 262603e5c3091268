"""Pictures of studies: bars of means over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.support.study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UPRIGHT = 70  # most letters below a picture, were all labels as long as the longest


def bars(ax: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Bars side by side: means over seeds, and where there are several a line over their range.

    Args:
        ax: Where to draw.
        groups: Labels below the bars.
        series: Name of a colour to the values of each group, empty where there is none.
    """
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
        heights = [fmean(found) if found else 0.0 for found in values]
        ax.bar(at, heights, width, label=name)
        for x, found in zip(at, values, strict=True):
            if len(found) > 1:
                ax.plot([x, x], [min(found), max(found)], color="black")
    ax.set_xticks(range(len(groups)), groups)
    ax.set_xlim(-0.5, max(1, len(groups)) - 0.5)
    ax.spines[["top", "right"]].set_visible(False)


def bar_picture(
    group: Callable[[Row], str], colour: Callable[[Row], str], panels: Mapping[str, str]
) -> Callable[[list[Row], Path], None]:
    """A picture with a panel for each figure.

    Args:
        group: Label of a row's group of bars.
        colour: Label of its colour.
        panels: Key of a figure in the rows to the words beside its axis; rows in which it is None
            are left out.

    Returns:
        What draws rows into a PNG file, groups and colours in the order of the rows.
    """

    def picture(rows: list[Row], file: Path) -> None:
        if not rows:
            return
        from matplotlib.figure import Figure

        groups, colours = (list(dict.fromkeys(map(of, rows))) for of in (group, colour))
        width = 3 + 0.9 * len(groups) * max(1.0, 0.3 * len(colours))
        upright = max(map(len, groups)) * len(groups) <= _UPRIGHT
        size = (min(16.0, width), (0.8 if upright else 2.2) + 2.4 * len(panels))
        fig = Figure(figsize=size, layout="constrained")
        axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (key, words) in zip(axes, panels.items(), strict=True):
            there = [row for row in rows if row[key] is not None]
            series = {
                one: [
                    [row[key] for row in there if (group(row), colour(row)) == (each, one)]
                    for each in groups
                ]
                for one in colours
            }
            bars(ax, groups, series)
            ax.set_ylabel(words)
        if not upright:
            axes[-1].tick_params(axis="x", labelrotation=90)
        fig.supxlabel("bars: means over seeds, lines: from the least to the largest", fontsize=8)
        if len(colours) > 1:
            fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
        fig.savefig(file, dpi=130)

    return picture
