"""The symmetry extracted by a fit, on data whose symmetry is known."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import FitConfig, FitResult
from symlearn.extract import second_moment
from symlearn.generators import AffineGenerator
from symlearn.paths import LConv
from symlearn.relaxed import relaxed_layers
from symlearn.report import StructureReport, symmetry

pytestmark = pytest.mark.core
SIDE = 5
ORDER = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(7))
CONFIG = FitConfig(
    epochs=30, likelihood="gaussian", noise=0.3, batch_size=20, grow=False, check_images=0,
    progress=False,
)  # fmt: skip


def smooth(n: int) -> Tensor:
    """Images [n, 1, 5, 5] of the nine longest waves."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    k = torch.fft.fftfreq(SIDE, 1 / SIDE)
    low = k[:, None].square() + k.square() <= 2
    x = torch.fft.ifft2(torch.fft.fft2(noise) * low).real
    return (x / x.std()).float()


def scrambled(x: Tensor) -> Tensor:
    return x.flatten(2)[..., ORDER].reshape(x.shape)


def problem(kind: str, scramble: bool) -> tuple[Tensor, Tensor]:
    """Images and what becomes of them: moved by a generator, or convolved; with noise."""
    x = smooth(200)
    if kind == "convolved":
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        y = 0.6 * x.roll(1, 3) - 0.4 * x.roll(1, 2)
    else:
        y = x + 0.25 * AffineGenerator(kind, (SIDE, SIDE)).apply(x)
    y = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return (scrambled(x), scrambled(y).flatten(1)) if scramble else (x, y.flatten(1))


@cache
def fitted(kind: str, scramble: bool, path: str) -> FitResult:
    x, y = problem(kind, scramble)
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    rank = 25 if kind == "convolved" else 9  # as many as there are waves
    paths: dict[str, Any] = {"conv": "conv", "lconv": LConv(1, rank=rank)}
    relaxed = symlearn.wrap(nn.Sequential(conv, nn.Flatten()), x, paths=paths[path], init="fresh")
    return symlearn.fit(relaxed, (x, y), CONFIG)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scramble", "better", "worse"), [(True, "lconv", "conv"), (False, "conv", "lconv")]
)
def test_the_evidence_prefers_lconv_exactly_where_pixels_are_scrambled(
    scramble: bool, better: str, worse: str
) -> None:
    """The map is a convolution; scrambling hides that from a convolution, not from an L-conv."""
    gain = (
        fitted("convolved", scramble, better).log_evidence
        - fitted("convolved", scramble, worse).log_evidence
    )
    assert gain > 200


def test_the_rotation_behind_scrambled_images_is_found() -> None:
    result = fitted("rotation", True, "lconv")
    x, _ = problem("rotation", True)
    (layer,) = symlearn.extract(result, x, order=ORDER)
    found = {one.name: one for one in layer.likeness}
    assert [name for name, one in found.items() if one.found] == ["rotation"]
    assert found["rotation"].cosine > 0.97
    assert max(one.cosine for name, one in found.items() if name != "rotation") < 0.3
    (field,) = layer.fields
    rotation = AffineGenerator("rotation", (SIDE, SIDE)).field()
    aligned = torch.cosine_similarity(field.field.flatten(), rotation.flatten(), dim=0)
    assert abs(float(aligned)) > 0.97
    # read on the scrambled images it is like nothing known
    (raw,) = symlearn.extract(result, x)
    assert not any(one.found for one in raw.likeness)
    text = str(symlearn.extract(result, x, order=ORDER))
    assert "symmetry extracted" in text
    assert "rotation" in text


def test_facts_of_generators() -> None:
    result = fitted("rotation", True, "lconv")
    (layer,) = symlearn.extract(result, order=ORDER)
    one, learned = layer.generators
    assert (one.name, one.learned, learned.name, learned.learned) == ("I", False, "L1", True)
    assert one.strength + learned.strength == pytest.approx(1.0)
    assert one.field is not None
    assert one.field.share == pytest.approx(1.0)
    assert not one.field.field.any()
    assert learned.precision == pytest.approx(result.prior.group_precision("0.lconv.L1"))
    assert learned.n_params == 2 * 9 * 25 + 1
    assert 100 < learned.effective_params < learned.n_params
    assert len(layer.strengths) == 1
    path: Any = relaxed_layers(result.model)["0"].path("lconv")
    term = path.terms["L1"]
    size = (path.generator("L1").norm() * term.W.weight.norm()).item()
    assert layer.strengths[0] == pytest.approx(size, rel=1e-4)
    assert math.isnan(layer.closure_error)


def test_a_generator_that_has_vanished_and_a_result_from_disk(tmp_path: Path) -> None:
    x, y = problem("rotation", False)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    relaxed = symlearn.wrap(net, x, paths=LConv(2, rank=2), init="fresh")
    relaxed_layers(relaxed)["0"].path("lconv").drop("L1")
    result = symlearn.fit(relaxed, (x, y), replace(CONFIG, epochs=1))
    result.save(tmp_path)
    (layer,) = symlearn.extract(symlearn.load(tmp_path), x)
    states = {one.name: (one.on, one.precision) for one in layer.generators}
    assert states["L1"] == (False, math.inf)
    assert states["L2"][0]
    assert all(math.isnan(one.effective_params) for one in layer.generators)
    assert "nan" not in str(layer.likeness)


def test_layers_without_generators_and_with_fixed_ones_only() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    config = replace(CONFIG, epochs=1, objective="map")
    x, y = problem("rotation", False)
    result = symlearn.fit(symlearn.wrap(net, x, paths="conv"), (x, y), config)
    assert str(symlearn.extract(result)) == "no generators"
    fixed = symlearn.wrap(net, x, paths=LConv(0, fixed=("rotation",)), init="fresh")
    (layer,) = symlearn.extract(symlearn.fit(fixed, (x, y), config))
    assert not layer.likeness
    assert layer.generators[1].field is not None
    assert layer.generators[1].field.share == pytest.approx(1.0)


@pytest.mark.parametrize(("side", "compared"), [(4, True), (17, False)])
def test_an_evidence_fit_reports_what_it_extracted(side: int, compared: bool) -> None:
    """Large maps are left to the user: comparing them takes longer than the fit."""
    x = torch.randn(12, 1, side, side)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    config = replace(CONFIG, epochs=1, check_images=4, challenge_epochs=0)
    relaxed = symlearn.wrap(net, x, paths=LConv(2, rank=2), init="fresh")
    result = symlearn.fit(relaxed, (x, x.flatten(1)), config)
    (layer,) = result.report.symmetry
    assert (layer.layer, layer.path) == ("0", "lconv")
    assert [(one.name, one.learned) for one in layer.generators] == [
        *(("I", False), ("L1", True), ("L2", True))
    ]
    assert bool(layer.known) == compared
    assert math.isnan(layer.generators[0].strength) != compared
    assert len(layer.strengths) == compared  # of one channel in and out there is one
    assert StructureReport.from_json(result.report.to_json()).to_json() == result.report.to_json()
    tables = symmetry.tables([layer])
    assert len(tables) == 1 + compared
    text, markdown = str(result.report), result.report.to_markdown().replace("\\", "")
    for table in tables:
        for row in table.rows:
            assert any(all(cell in line for cell in row) for line in text.splitlines())
            assert f"| {' | '.join(row)} |" in markdown
    assert ("symmetry extracted" in text) == compared
    (extracted,) = symlearn.extract(result, x, draws=119, most_sites=256)
    assert extracted.facts().strengths == pytest.approx(layer.strengths)
    assert [one.name for one in extracted.likeness] == [one.name for one in layer.known]
    again = symlearn.fit(result.model, (x, x.flatten(1)), replace(config, check_images=0))
    assert not again.report.symmetry
    assert "generators" not in str(again.report)


def test_second_moment_of_a_layers_input() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 3)).double()
    x = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    relaxed = symlearn.wrap(net, x, paths=("conv", "lconv"))
    hidden = torch.tanh(relaxed[0](x)).detach().reshape(30, 16)
    found = second_moment(relaxed, relaxed[2], x)
    torch.testing.assert_close(found, hidden.T @ hidden / 30)


def test_strided_and_large_layers_are_listed_without_likeness() -> None:
    x, y = torch.randn(8, 1, 34, 34), torch.randn(8, 17 * 17)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, 2, 1), nn.Flatten())
    relaxed = symlearn.wrap(net, x, paths=LConv(1, rank=1), init="fresh")
    config = FitConfig(epochs=1, objective="map", likelihood="gaussian", progress=False)
    first, second = symlearn.extract(symlearn.fit(relaxed, (x, y), config))
    for layer in (first, second):
        assert [one.name for one in layer.generators] == ["I", "L1"]
        assert not layer.likeness
        assert all(one.field is None for one in layer.generators)


def test_wrong_order() -> None:
    with pytest.raises(ValueError, match="permutation of the 25 sites"):
        symlearn.extract(fitted("rotation", True, "lconv"), order=torch.arange(24))
