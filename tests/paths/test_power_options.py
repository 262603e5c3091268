"""The power path: its options and names, in a network, collapsed, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import symlearn
from symlearn import architecture
from symlearn.collapse.modules import KeptPaths, PowerMap
from symlearn.generators import BaseMatrix
from symlearn.generators.powers import PowerOptions, powers_of
from symlearn.paths import PATHS, GConv, LConv, Power, SymConv, as_specs
from tests.paths.cases import SHIFTS, SPIRAL
from tests.paths.layers import geometry
from tests.paths.slow import conv_geometry

pytestmark = pytest.mark.core


def test_options_go_through_json() -> None:
    matrix = torch.randn(3, 3, dtype=torch.float64) / 3
    given = BaseMatrix.of("mine", matrix)
    spec = Power(("rotation", SPIRAL, given, BaseMatrix.exponential("other", matrix)), 1, 2)
    back = Power(**json.loads(json.dumps(spec.options())))
    assert back == spec
    assert hash(back) == hash(spec)
    assert Power("rotation").bases == ("rotation",)
    assert Power(SPIRAL).bases == (SPIRAL,)


def test_names_may_have_an_option_behind_a_colon() -> None:
    assert as_specs("power:rotation") == (Power("rotation"),)
    assert as_specs("power:translation_x+scaling") == (Power(("translation_x", "scaling")),)
    assert as_specs(("conv", "lconv:3", "power"))[1:] == (LConv(3), Power())
    assert as_specs("gconv:p4m") == (GConv(group="p4m"),)
    assert as_specs("symconv:p4m") == (SymConv(group="p4m"),)
    for text, message in [
        ("conv:3", "path 'conv' takes no option .* got '3'"),
        ("lconv:many", "a number of generators such as 'lconv:3', got 'many'"),
        ("lconv:-1", "got '-1'"),
        ("power:", "unknown base matrices"),
        ("power:rotaton", r"unknown base matrices \['rotaton'\]; the names are \['translation_x'"),
        ("symconv:p7", "p7"),
        ("spam:rotation", r"unknown paths \['spam:rotation'\]; the paths are \['conv'"),
        (("power:rotation", "power:rotation"), "none twice"),
        ((Power("rotation"), Power("scaling")), "none twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            as_specs(text)


def test_a_layer_may_have_several_power_paths() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten())
    x = torch.randn(2, 1, 6, 6)
    given = ("conv", "power:rotation", "power:translation_x+scaling", Power(label="mine"))
    relaxed = symlearn.wrap(net, x, paths=given, init="fresh")
    paths: Any = relaxed.get_submodule("0.paths")
    assert list(paths) == ["conv", "power:rotation", "power:translation_x-scaling", "mine"]
    assert [path.products for path in list(paths.values())[1:]] == [5, 25, 5]
    described = json.loads(json.dumps(architecture.describe(relaxed)))
    again = architecture.build(described)
    again.load_state_dict(relaxed.state_dict())
    assert torch.equal(again(x), relaxed(x))
    data = x, torch.randn(2, 72)
    rows = symlearn.screen(net, data, paths=given[1:], likelihood="gaussian")
    assert {row.path for row in rows} == set(list(paths)[1:])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Power(()), ValueError, "at least one base matrix"),
        (lambda: Power(("rotation", "rotation")), ValueError, "none twice"),
        (
            lambda: Power(("rotation", BaseMatrix.affine("rotation", scaling=1))),
            ValueError,
            "twice",
        ),
        (lambda: Power(("rotation", 3)), TypeError, r"BaseMatrix objects, got \[3\]"),  # type: ignore[arg-type]
        (
            lambda: Power(label="a.b"),
            ValueError,
            "label of a path is 'a.b'; give text without dots",
        ),
        (lambda: Power(label="keys"), ValueError, "not the name of a method"),
        (lambda: Power(label=""), ValueError, "label of a path is ''"),
        (lambda: Power(powers=0), ValueError, "powers is 0; give a whole number of at least 1"),
        (lambda: Power(powers=1.5), ValueError, "powers is 1.5"),  # type: ignore[arg-type]
        (lambda: Power(dilation=0), ValueError, "dilation is 0"),
        (
            lambda: Power(BaseMatrix.of("graph", torch.ones(3, 3))),
            ValueError,
            r"'graph' is singular .*; give negative=False",
        ),
        (
            lambda: Power(BaseMatrix.of("m", torch.diag(torch.tensor([1.0, 1e-13])))),
            ValueError,
            r"'m' is singular \(condition number 1e\+13\)",
        ),
        (lambda: BaseMatrix.of("m", torch.ones(3, 4)), ValueError, r"shape \[3, 4\]; only square"),
        (lambda: BaseMatrix.of("m", torch.ones(3)), ValueError, "give a matrix over sites"),
        (lambda: BaseMatrix.of("m", torch.full((2, 2), math.nan)), ValueError, "NaN, infinite"),
        (lambda: BaseMatrix.of("m", [[1.0]]), TypeError, "must be a tensor"),  # type: ignore[arg-type]
        (lambda: BaseMatrix.affine("m", turning=1.0), ValueError, "the names are"),
        (lambda: BaseMatrix.affine("m", rotation=math.inf), ValueError, "must be finite"),
        (lambda: BaseMatrix.affine("m", rotation="x"), ValueError, "finite numbers"),  # type: ignore[arg-type]
        (lambda: BaseMatrix("m", matrix=3), TypeError, "given as int; take BaseMatrix.of"),  # type: ignore[arg-type]
        (lambda: Power(BaseMatrix.of("m", torch.zeros(2, 2))), ValueError, "singular"),
        (lambda: Power(None), TypeError, r"BaseMatrix objects, got \[None\]"),  # type: ignore[arg-type]
        (lambda: BaseMatrix.affine("m"), ValueError, "one of the two"),
        (
            lambda: Power(BaseMatrix.of("m", torch.eye(9))).build(geometry()),
            ValueError,
            r"'m' is over 9 sites, but the layer's maps of size \(4, 4\) have 16",
        ),
        (
            lambda: Power().build(conv_geometry(nn.Conv1d(1, 1, 1), (9,))),
            ValueError,
            "unknown generator 'rotation' of maps of size",
        ),
        (
            lambda: Power().build(conv_geometry(nn.Conv3d(1, 1, 1), (3, 3, 3))),
            ValueError,
            "affine generators act on one or two axes",
        ),
        (lambda: Power().build(geometry(size=(2, 2))), ValueError, "moves nothing on maps of size"),
        (
            lambda: Power(BaseMatrix.of("m", 2 * torch.eye(1600))).build(geometry(size=(40, 40))),
            ValueError,
            r"the inverse of base matrix 'm' over 1,600 sites would be a dense matrix of 20 MiB",
        ),
        (
            lambda: Power(BaseMatrix.exponential("m", 400 * torch.eye(16))).build(geometry()),
            ValueError,
            "up to 2 are not finite",
        ),
    ],
)
def test_bad_input(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_matrices_count_for_memory() -> None:
    geo = geometry(1, 2, (6, 6))
    for spec in (Power(), Power(SHIFTS), Power(("translation_x", "rotation"), 1)):
        held = [b for b in spec.build(geo).bases.buffers() if b.is_floating_point()]
        assert spec.fixed_elements(geo) == sum(b.numel() for b in held)
    cnn = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())
    large = torch.zeros(1, 1, 64, 64)
    with pytest.raises(ValueError, match=r"path 'power' needs 0.25 GiB"):
        symlearn.wrap(cnn, large, paths=("conv", Power(dense=True)), memory_limit_gib=0.1)
    relaxed: Any = symlearn.wrap(cnn, large, paths=("conv", "power"), memory_limit_gib=0.1)
    assert relaxed[0].path("power").is_stepped()


def network(padding_mode: Any = "circular") -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 3, 3, padding=1, padding_mode=padding_mode)
    return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 3))


def test_wrapped_beside_others_it_keeps_the_function() -> None:
    net, x = network(), torch.randn(4, 1, 6, 6)
    relaxed: Any = symlearn.wrap(net, x, paths=("conv", "lconv", "power:rotation"))
    torch.testing.assert_close(relaxed(x), net(x))
    assert relaxed[0].path("power").bases[0].matrices.dtype == torch.float32
    alone: Any = symlearn.wrap(net, x, paths=Power(SHIFTS, 1))
    torch.testing.assert_close(alone(x), net(x))


@pytest.mark.parametrize(
    ("paths", "module"),
    [
        (Power(SHIFTS, 1), "Conv2d"),
        (("conv", "power:rotation"), "Conv2d+PowerMap"),
        (("conv", Power(("rotation", "translation_x"), 1)), "Conv2d+PowerMap"),
        (("conv", Power(SHIFTS, 2)), "Conv2d+PowerMap"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stride", [1, 2])
def test_collapse(tmp_path: Any, paths: Any, module: str, stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 3, 3, stride=stride, padding=1, padding_mode="circular")
    net = nn.Sequential(conv, nn.Tanh(), nn.AdaptiveAvgPool2d(2))
    x = torch.randn(4, 1, 6, 6)
    relaxed: Any = symlearn.wrap(net, x, paths=paths)
    relaxed[0].path("power").reset_parameters(torch.Generator().manual_seed(0))
    plain = symlearn.collapse(relaxed, x)
    assert symlearn.collapse_report(plain).layers[0].module == module
    torch.testing.assert_close(plain(x), relaxed(x), rtol=0, atol=1e-6)
    symlearn.save_plain(plain, tmp_path / "plain")
    torch.testing.assert_close(symlearn.load_plain(tmp_path / "plain")(x), plain(x))


def test_a_stepped_path_is_kept_by_collapse() -> None:
    cnn = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())
    x = torch.randn(1, 1, 33, 32)
    relaxed: Any = symlearn.wrap(cnn, x, paths=("conv", Power(powers=1)))
    relaxed[0].path("power").reset_parameters(torch.Generator().manual_seed(0))
    plain: Any = symlearn.collapse(relaxed, x)
    assert isinstance(plain[0]["power"], KeptPaths)
    assert not any(isinstance(m, PowerMap) for m in plain.modules())


def test_the_evidence_prefers_the_series_that_made_the_data(tmp_path: Any) -> None:
    """A layer that turns images by fixed angles: no 3x3 window does that far from the centre."""
    turn = powers_of(
        BaseMatrix.affine("turn", rotation=0.6), (6, 6), PowerOptions(1, 1, True, False)
    )
    generator = torch.Generator().manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(150, 1, 8, 8, generator=generator), 3, 1)
    turned = turn(smooth.flatten(2))[:, 0, 2] - turn(smooth.flatten(2))[:, 0, 0]
    y = (3 * turned + 0.1 * torch.randn(150, 36, generator=generator)).float()
    config = symlearn.FitConfig(
        **{"epochs": 20, "batch_size": 20, "likelihood": "gaussian", "noise": 0.3},
        **{"grow": False, "check_images": 0, "progress": False, "learning_rate": 0.1},
    )
    evidences = {}
    for name in ("conv", "power"):
        layer = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
        path = Power(BaseMatrix.affine("turn", rotation=0.6), 1) if name == "power" else name
        relaxed = symlearn.wrap(layer, smooth[:2], paths=path, init="fresh")
        result = symlearn.fit(relaxed, (smooth, y), config)
        evidences[name] = result.log_evidence
    assert evidences["power"] > evidences["conv"] + 1000
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run")
    torch.testing.assert_close(again.model(smooth), result.model(smooth))
    assert PATHS["power"] is Power
