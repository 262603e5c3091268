"""The figure: bars are the shares, markers the precisions, and pyplot knows nothing of it."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from symlearn.report import LayerStructure, plots
from tests.report import samples


def test_bars_are_the_relative_shares() -> None:
    report = samples.quadrant()
    axes = report.plot().axes[0]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    shares = [path.relative_effective_params for layer in report for path in layer.paths.values()]
    assert widths == pytest.approx([share for share in shares if share > 0.0])


def test_markers_are_the_precisions_and_hollow_ones_are_off() -> None:
    report = samples.quadrant()
    axes = report.plot().axes[1]
    paths = [path for layer in report for path in layer.paths.values()]
    assert len(axes.lines) == len(paths)
    for line, path in zip(axes.lines, paths, strict=True):
        hollow = to_hex(line.get_markerfacecolor()) == "#ffffff"
        assert hollow is not path.on
        if math.isfinite(path.prior_precision):
            assert np.asarray(line.get_xdata()).tolist() == [path.prior_precision]


def test_each_layer_shows_its_verdict() -> None:
    report = samples.quadrant()
    texts = [text.get_text() for text in report.plot().axes[0].texts]
    assert [text for text in texts if "%" not in text] == [layer.verdict for layer in report]


def test_a_layer_without_shares_says_why() -> None:
    dead = LayerStructure.of("dead", {"conv": samples.path(normalised=0.0)})
    broken = LayerStructure.of("broken", {"conv": samples.path(normalised=math.nan)})
    texts = [text.get_text() for text in samples.report(dead, broken).plot().axes[0].texts]
    assert texts == ["no effective parameters", "off", "not measured", "undecided"]


def test_pyplot_is_left_alone() -> None:
    before = plt.get_fignums()
    samples.digit().plot()
    assert plt.get_fignums() == before


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_figure_is_saved(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"r.{suffix}"
    samples.awkward().plot(target)
    assert target.stat().st_size > 1000


def test_paths_of_other_makers_have_their_own_style() -> None:
    names = ["conv", "ffc", "mine", "yours", "theirs"]
    layer = LayerStructure.of("x", {name: samples.path() for name in names})
    styles = plots.styles_of(layer.paths)
    assert list(styles) == names
    assert len(set(styles.values())) == len(names)
    assert styles["conv"] == plots._STYLES["conv"]
