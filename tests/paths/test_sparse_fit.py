"""Sparse paths in a fit: hyperparameters, prior groups, growth, challenges, saving, copies."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from symlearn.paths import FFC, PATHS, SFC, SConv
from symlearn.paths.base import Path
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.wrap import prior_groups
from tests.fit.problems import blobs, tiny_cnn
from tests.paths.layers import drawn, geometry, samples

pytestmark = pytest.mark.core
OMEGA = {"control": "omega"}


@pytest.mark.parametrize("control", ["u", "omega"])
@pytest.mark.parametrize("make", [SConv, SFC])
def test_switching_off_keeps_hyperparameters(make: Any, control: str) -> None:
    path: Path = make(learn_omega=True, learn_anchors=True, control=control).build(geometry())
    path.reset_parameters(torch.Generator().manual_seed(0))
    kept = set(path.hyperparameters())
    before = {name: p.detach().clone() for name, p in path.named_parameters() if name in kept}
    assert len(before) == (2 if make is SConv else 4)
    path.switch_off()
    assert not path.contributes()
    assert not any(p.requires_grad for p in path.parameters())
    for name, p in path.named_parameters():
        assert torch.equal(p, before[name]) if name in kept else not p.any()
    path.switch_on()
    assert all(p.requires_grad for p in path.parameters())
    assert not path.contributes()


def test_a_factored_path_is_off_if_one_factor_is_zero() -> None:
    path: Any = drawn(SFC(**OMEGA), geometry())
    nn.init.zeros_(path.theta2.weight)
    assert not path.contributes()
    path = drawn(SFC(omega=0.0, **OMEGA), geometry())
    assert path.contributes()  # constant maps, but no zeros
    path.scale(4.0)
    assert not path.reading.omega.any()
    path = drawn(SConv(omega=0.5, **OMEGA), geometry())
    before = path.filters()
    path.scale(4.0)
    torch.testing.assert_close(path.filters(), 4 * before)


@pytest.mark.parametrize("tie", ["path", "tensor"])
def test_prior_groups(tie: str) -> None:
    specs = (SConv(9, learn_anchors=True, learn_omega=True), SFC(**OMEGA))
    model = symlearn.wrap(tiny_cnn(), torch.zeros(1, 1, 8, 8), paths=specs, layers="2", tie=tie)
    before = prior_groups(model)
    mine = {group: names for group, names in before.items() if group.startswith(("2.s", "2.p"))}
    stem = "2.paths.sfc."
    expected = {
        "path": {
            "2.sconv": ["2.paths.sconv.conv.weight"],
            "2.sfc": [f"{stem}theta1.weight", f"{stem}theta2.weight"],
        },
        "tensor": {
            "2.sconv.conv.weight": ["2.paths.sconv.conv.weight"],
            "2.sfc.theta1.weight": [f"{stem}theta1.weight"],
            "2.sfc.theta2.weight": [f"{stem}theta2.weight"],
        },
    }[tie]
    omegas = [f"{stem}reading.omega", f"{stem}writing.omega"]
    assert mine == {**expected, "2.sfc.omega": omegas}
    for path in relaxed_layers(model)["2"].named_paths().values():
        path.switch_off()
    assert prior_groups(model) == before


def test_proposal_is_the_leading_singular_vector_of_projected_gradients() -> None:
    geo = geometry(3, 2, (4, 4))
    path: Any = SFC().build(geo).double()
    generator = torch.Generator().manual_seed(0)
    shapes = (30, 3, 16), (30, 2, 16)
    x, g = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    path.propose(x.reshape(30, 3, 4, 4), g.reshape(30, 2, 4, 4))
    phi1, phi2 = path.writing.matrix(), path.reading.matrix()
    dense = torch.einsum("ndy,ncx->dcyx", g, x)
    u = torch.linalg.svd(phi1.T @ dense @ phi2).U[..., 0]
    found = path.theta1.weight.detach()
    signs = (u * found).sum(2, keepdim=True).sign()
    torch.testing.assert_close(found, u * signs, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("paths", "boundary"),
    [
        (("conv", "sfc"), "circular"),
        ((SConv(9, learn_omega=True, learn_anchors=True), "sfc"), "keep"),
        ((SConv(9, **OMEGA), SFC(**OMEGA)), symlearn.Circular("polyphase")),
    ],
    ids=["conv+sfc", "learned", "omega"],
)
def test_fit_grows_challenges_and_saves(paths: Any, boundary: Any, tmp_path: Any) -> None:
    model = symlearn.wrap(tiny_cnn(4), torch.zeros(1, 1, 8, 8), paths=paths, boundary=boundary)
    sfc: Any = relaxed_layers(model)["2"].path("sfc")
    sfc.reset_parameters(torch.Generator().manual_seed(0))
    config = symlearn.FitConfig(epochs=14, progress=False, burn_in=0.2, challenge_epochs=2)
    result = symlearn.fit(model, blobs(100, place=True), config)
    assert any(key.startswith("without ") for key in result.report.meta)  # a path was challenged
    assert {p for layer in result.report.layers for p in layer.paths} == {
        spec if isinstance(spec, str) else spec.name for spec in paths
    }
    result.save(tmp_path / "run")
    x, _ = blobs(20, seed=1)
    again = symlearn.load(tmp_path / "run").predict_proba(x)
    torch.testing.assert_close(again, result.predict_proba(x), rtol=0, atol=1e-6)


def test_an_absent_sparse_path_is_tested() -> None:
    model = symlearn.wrap(tiny_cnn(4), torch.zeros(1, 1, 8, 8), paths=("conv", SFC(**OMEGA)))
    table = symlearn.screen(model, blobs(60, place=True), paths=(SFC(**OMEGA),))
    assert {(row.layer, row.path) for row in table} == {("0", "sfc"), ("2", "sfc")}
    assert all(row.gain == row.gain for row in table)


@pytest.mark.parametrize("spec", [SConv(0.5, 0.3, fit_tolerance=0.2), SFC(4, **OMEGA), FFC(True)])
def test_options_survive_json(spec: Any) -> None:
    assert PATHS[spec.name](**json.loads(json.dumps(spec.options()))) == spec


def test_layers_copy() -> None:
    geo = geometry()
    layer = RelaxedLayer(geo, (SConv(**OMEGA), SFC(learn_anchors=True))).double()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    x, _ = samples(geo, 2)
    y = layer(x)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    fresh = RelaxedLayer(geo, layer.specs).double()
    fresh.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fresh(x), y, rtol=0, atol=0)
    with torch.no_grad():
        other.path("sconv").get_parameter("conv.basis.omega").mul_(2)
    assert (other(x) - y).abs().max() > 1e-3
    torch.testing.assert_close(layer(x), y, rtol=0, atol=0)
