"""Names and options of paths."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from symlearn.paths import FC, FFC, PATHS, SFC, Conv, LConv, PathSpec, SConv, as_specs, register
from tests.paths.cases import CONVS
from tests.paths.slow import conv_geometry

pytestmark = pytest.mark.core


def test_names_and_objects() -> None:
    assert as_specs("conv") == (Conv(),)
    assert as_specs(FFC()) == (FFC(),)
    assert as_specs(("fc", Conv())) == (FC(), Conv())
    assert as_specs(name for name in ("ffc", "conv")) == (FFC(), Conv())


@pytest.mark.parametrize("name", PATHS)
def test_every_name_is_known(name: str) -> None:
    (spec,) = as_specs(name)
    assert spec.name == name
    assert PATHS[name](**spec.options()) == spec


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        (
            ("conv", "fcc", "spam"),
            ValueError,
            r"unknown paths \['fcc', 'spam'\].*'conv', 'fc', 'ffc'",
        ),
        ((), ValueError, "at least one"),
        (("conv", Conv()), ValueError, "none twice"),
        (("conv", 3), TypeError, "names or path objects"),
        ((FFC,), TypeError, "names or path objects"),
        (3, TypeError, "names or path objects"),
    ],
)
def test_wrong_paths(paths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_specs(paths)


@pytest.mark.parametrize(
    "spec",
    [
        *(Conv(), FC(), FFC(), LConv(), SConv(), SFC()),
        LConv(2, fixed="window"),
        SConv(0.3, learn_anchors=True),
        SFC(1, control="omega", learn_anchors=True),
        SFC(learn_omega=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", CONVS)
def test_predicted_number_of_weights(spec: Any, name: str) -> None:
    make, size = CONVS[name]
    geo = conv_geometry(make(), size)
    assert spec.n_params(geo) == sum(p.numel() for p in spec.build(geo).parameters())


def test_geometry_of_a_convolution() -> None:
    geo = conv_geometry(nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding="valid", groups=2), (7, 9))
    assert (geo.in_sites, geo.out_sites, geo.window, geo.fan_in) == (63, 15, 15, 30)
    assert geo.padding == "valid"


def test_a_registered_path_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Conv):
        name = "own"

    monkeypatch.setitem(PATHS, "own", Own)  # taken out again after the test
    assert register(Own) is Own
    assert as_specs("own") == (Own(),)


def test_registering_what_is_none_or_another_ones_name() -> None:
    class Usurper(Conv):
        name = "fc"

    with pytest.raises(ValueError, match="there is a path 'fc' already"):
        register(Usurper)
    for wrong in (Conv(), int, type("Nameless", (PathSpec,), {})):
        with pytest.raises(TypeError, match="a subclass of PathSpec with a name"):
            register(wrong)  # type: ignore[arg-type]
