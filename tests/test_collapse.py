"""Collapse: the same function from plain modules, whatever paths are on."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import symlearn
from symlearn.collapse.convert import plain_layer
from symlearn.collapse.cost import latency, multiply_adds, weights
from symlearn.collapse.modules import ConstantMap, FactoredMap, MapSum
from symlearn.collapse.verify import CollapseError
from symlearn.geometry import Geometry
from symlearn.groupconv import GroupConv2d
from symlearn.paths import FFC, SFC, GConv, LConv, SConv, as_specs
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from tests.nets import NETS, make

pytestmark = pytest.mark.core

EVERY = ("conv", "ffc", "fc")
ROOT = Path(symlearn.__file__).parents[1]


def lively(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Give every path and bias of a network weights that matter."""
    generator = torch.Generator().manual_seed(0)
    for layer in relaxed_layers(model).values():
        layer.reset_parameters(generator)
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
    return model.eval()


def one_layer(
    paths: tuple[str, ...],
    in_size: tuple[int, ...] = (5, 4),
    bias: bool = True,
    **options: object,
) -> RelaxedLayer:
    """A relaxed layer from 4 to 6 channels, in float64, with random weights."""
    given = {"kernel_size": 3, "padding": 1, **options}
    make_conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(in_size)]
    conv = make_conv(4, 6, **given)
    out_size = tuple(conv(torch.zeros(1, 4, *in_size)).shape[2:])
    layer = RelaxedLayer(Geometry.of(conv, in_size, out_size), as_specs(paths), bias).double()
    lively(layer)
    return layer


def images(layer: RelaxedLayer) -> Tensor:
    return torch.randn(3, layer.geometry.in_channels, *layer.geometry.in_size, dtype=torch.float64)


def assert_same(layer: nn.Module, plain: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(plain(x), layer(x), rtol=0, atol=1e-12)
    assert not any(isinstance(m, (RelaxedLayer, symlearn.paths.Path)) for m in plain.modules())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        (("conv",), [nn.Conv2d]),
        (("ffc",), [FactoredMap]),
        (("conv", "ffc"), [nn.Conv2d, FactoredMap]),
        (("ffc", "conv"), [nn.Conv2d, FactoredMap]),
        (("fc",), [nn.Linear]),
        (EVERY, [nn.Linear]),
    ],
)
def test_each_mixture_becomes_the_smallest_module(
    paths: tuple[str, ...], classes: list[type], bias: bool
) -> None:
    layer = one_layer(paths, bias=bias)
    plain = plain_layer(layer)
    assert_same(layer, plain, images(layer))
    found = [type(m) for m in plain.modules() if list(m.parameters(recurse=False))]
    assert found == classes
    assert weights(plain) <= weights(layer) + 6 * (layer.geometry.out_sites - 1)
    assert (sum("bias" in name for name, _ in plain.named_parameters()) == 1) == bias


@settings(max_examples=40)
@given(
    st.sampled_from([("conv",), ("conv", "ffc"), ("ffc",), EVERY]),
    st.lists(st.integers(3, 6), min_size=1, max_size=3),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, "same"]),
    st.sampled_from([1, 2]),
    st.sampled_from(["zeros", "circular", "replicate"]),
)
def test_any_geometry(
    paths: tuple[str, ...],
    in_size: list[int],
    kernel: int,
    stride: int,
    padding: int | str,
    groups: int,
    mode: str,
) -> None:
    stride = 1 if padding == "same" else stride
    options = {"stride": stride, "padding": padding, "groups": groups, "padding_mode": mode}
    layer = one_layer(paths, tuple(in_size), kernel_size=kernel, **options)
    assert_same(layer, plain_layer(layer), images(layer))


@pytest.mark.parametrize(
    ("paths", "described"),
    [
        (("conv", "sconv", "symconv"), "Conv2d"),
        (("sconv",), "Conv2d"),
        (("sfc",), "FactoredMap"),
        (("sconv", "sfc", "ffc"), "Conv2d+FactoredMap+FactoredMap"),
        ((SConv(anchors=4), SFC(anchors=3), "conv"), "Conv2d+FactoredMap"),
        (("symconv", "sfc", "fc"), "Linear"),
        ((LConv(2, rank=3), "conv"), "Conv2d+GeneratorMap+GeneratorMap"),
        ((LConv(0, fixed=("window",)),), "Conv2d"),
        (
            ("conv", "ffc", LConv(1, 2, ("rotation",))),
            "Conv2d+FactoredMap+GeneratorMap+GeneratorMap",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [2, 40])
def test_other_paths(paths: tuple[object, ...], described: str, channels: int) -> None:
    cnn = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1)).double()
    x = torch.randn(3, 3, 8, 7, dtype=torch.float64)
    relaxed = lively(symlearn.wrap(cnn, x, paths=paths, init="fresh"))
    plain = symlearn.collapse(relaxed, x)
    assert_same(relaxed, plain, x)
    report = symlearn.collapse_report(plain)
    assert report.layers[0].module == described
    assert report.after.multiply_adds <= report.before.multiply_adds


def test_anchors_are_multiplied_out_where_that_is_smaller() -> None:
    spec = SFC(anchors=3)
    for channels, coordinates in ((1, (None, None)), (60, (3, 3))):
        cnn = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))
        relaxed = symlearn.wrap(cnn, torch.zeros(1, channels, 5, 5), paths=spec, init="fresh")
        assert symlearn.collapse(relaxed)[0].coordinates == coordinates


@pytest.mark.parametrize("boundary", ["keep", "circular"])
@pytest.mark.parametrize(
    "gconv", [GConv(factor="full"), GConv(factor="separable", inner_bias=True)], ids=str
)
def test_features_over_a_group(gconv: GConv, boundary: str) -> None:
    cnn = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2, padding=1),
        nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 3),
    )  # fmt: skip
    lifted = symlearn.lift(cnn, "p4").double()
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    boundaries = {"keep": "keep", "circular": symlearn.Circular(group="p4")}
    relaxed = symlearn.wrap(
        lifted, x, paths=(gconv, "conv", FFC(over_group=True), SFC(over_group=True)),
        boundary=boundaries[boundary], init="fresh",
    )  # fmt: skip
    lively(relaxed)
    for conv in relaxed.modules():
        if isinstance(conv, GroupConv2d) and conv.bias is not None:
            nn.init.normal_(conv.bias)
    plain = symlearn.collapse(relaxed, x)
    torch.testing.assert_close(plain(x), relaxed(x), rtol=0, atol=1e-12)


def test_a_convolution_keeps_its_names_and_weights() -> None:
    cnn = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3))
    x = torch.randn(2, 1, 6, 6)
    plain = symlearn.collapse(symlearn.wrap(cnn, x, paths="conv"))
    assert {k: v.tolist() for k, v in plain.state_dict().items()} == {
        k: v.tolist() for k, v in cnn.state_dict().items()
    }
    summed = symlearn.collapse(lively(symlearn.wrap(cnn, x)))
    assert list(summed[0].state_dict()) == ["conv.weight", "conv.bias", "ffc.read", "ffc.write"]


def test_small_maps_become_one_matrix() -> None:
    whole = one_layer(("conv", "ffc"), (2, 2), stride=2)
    plain = plain_layer(whole)
    assert type(plain) is nn.Conv2d
    assert plain.kernel_size == (2, 2)
    assert_same(whole, plain, images(whole))
    point = one_layer(EVERY, (1, 1))
    plain = plain_layer(point)
    assert type(plain) is nn.Conv2d
    assert plain.weight.shape == (6, 4, 1, 1)
    assert_same(point, plain, images(point))
    # a convolution stays one, so that it runs on maps of other sizes too
    assert plain_layer(one_layer(("conv",), (1, 1))).kernel_size == (3, 3)


def test_a_layer_without_paths_is_its_bias() -> None:
    for bias in (True, False):
        layer = one_layer(("conv", "ffc"), bias=bias)
        for path in layer.named_paths().values():
            path.switch_off()
        plain = plain_layer(layer)
        assert type(plain) is ConstantMap
        assert_same(layer, plain, images(layer))


class Doubled(symlearn.paths.ConvPath):
    """A path that lies about its filters."""

    def filters(self) -> Tensor:
        return 2 * super().filters()


def test_a_path_that_lies_about_its_filters_is_caught() -> None:
    layer = one_layer(("conv",))
    layer.paths["conv"].__class__ = Doubled
    with pytest.raises(CollapseError, match="layer '0' differs"):
        symlearn.collapse(nn.Sequential(layer))


class Squeezed(symlearn.paths.ConvPath):
    """A path that collapse knows nothing of."""

    reads_aligned = False

    def filters(self) -> None:
        return None


def test_an_unknown_path_is_kept_as_it_is() -> None:
    layer = one_layer(("conv", "ffc"), (8, 8))
    layer.paths["conv"].__class__ = Squeezed
    plain = plain_layer(layer)
    assert isinstance(plain, MapSum)
    torch.testing.assert_close(plain(x := images(layer)), layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_whole_networks(name: str) -> None:
    net, x = make(name)
    relaxed = lively(symlearn.wrap(net, x))
    plain = symlearn.collapse(relaxed, x)
    torch.testing.assert_close(plain(x), relaxed(x), rtol=0, atol=1e-10)
    assert not relaxed_layers(plain)
    report = symlearn.collapse_report(plain)
    assert report.error <= report.tolerance < 1e-9
    assert report.n_data == 4


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("phase", ["template", "centroid", "polyphase"])
def test_whole_circular_networks(name: str, phase: str) -> None:
    net, x = make(name)
    relaxed = lively(symlearn.wrap(net, x, boundary=symlearn.Circular(phase)))
    plain = symlearn.collapse(relaxed, x)
    torch.testing.assert_close(plain(x), relaxed(x), rtol=0, atol=1e-10)
    assert not relaxed_layers(plain)
    torch.testing.assert_close(copy.deepcopy(plain)(x), plain(x), rtol=0, atol=0)


def test_float32_and_modes() -> None:
    net, x = make("residual")
    relaxed = lively(symlearn.wrap(net, x)).float()
    plain = symlearn.collapse(relaxed.train())
    assert plain.training
    assert plain[0].training
    torch.testing.assert_close(
        plain.eval()(x.float()), relaxed.eval()(x.float()), rtol=1e-5, atol=1e-5
    )
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in plain.parameters())


def test_dropped_paths() -> None:
    net, x = make("strided")
    relaxed = lively(symlearn.wrap(net, x))
    plain = symlearn.collapse(relaxed, x, drop=["0.ffc", "3.conv"])
    report = symlearn.collapse_report(plain)
    assert [(row.kept, row.dropped) for row in report.layers] == [
        (("conv",), ("ffc",)),
        (("ffc",), ("conv",)),
    ]
    assert [row.module for row in report.layers] == ["Conv2d", "FactoredMap"]
    reduced = copy.deepcopy(relaxed)
    relaxed_layers(reduced)["0"].path("ffc").switch_off()
    relaxed_layers(reduced)["3"].path("conv").switch_off()
    torch.testing.assert_close(plain(x), reduced(x), rtol=0, atol=1e-12)
    assert not torch.allclose(plain(x), relaxed(x), atol=1e-3)
    with pytest.raises(ValueError, match=r"no paths are named \['0.gconf'\]; the paths are"):
        symlearn.collapse(relaxed, drop=["0.gconf"])
    with pytest.raises(TypeError, match="one string"):
        symlearn.collapse(relaxed, drop="0.ffc")


def test_scores_of_each_stage() -> None:
    net, x = make("strided")
    relaxed = lively(symlearn.wrap(net, x))
    y = torch.tensor([0, 1, 2, 0])
    plain = symlearn.collapse(relaxed, (x, y), drop=["0.ffc"])
    scores = symlearn.collapse_report(plain).scores
    assert list(scores) == ["relaxed", "dropped"]
    assert scores["relaxed"] == symlearn.score(relaxed, (x, y), "categorical")
    assert scores["dropped"] == pytest.approx(symlearn.score(plain, (x, y), "categorical"))
    assert symlearn.collapse_report(symlearn.collapse(relaxed, x)).scores == {}


def test_the_report_prints_and_travels() -> None:
    net, x = make("strided")
    plain = symlearn.collapse(
        lively(symlearn.wrap(net, x)), (x, torch.tensor([0, 1, 2, 0])), drop=["0.ffc"]
    )
    report = symlearn.collapse_report(plain)
    for text in ("0      conv", "multiply-adds", "batch of 4, 1 thread", "largest difference"):
        assert text in str(report)
    assert symlearn.collapse_report(copy.deepcopy(plain)) == report
    assert symlearn.collapse_report(pickle.loads(pickle.dumps(plain))) == report
    without = symlearn.collapse_report(symlearn.collapse(lively(symlearn.wrap(net, x))))
    assert "random inputs" in str(without)
    with pytest.raises(ValueError, match="no collapse report"):
        symlearn.collapse_report(net)


def test_pickles_in_a_fresh_process(tmp_path: Path) -> None:
    """A network of convolutions needs torch only."""
    net, x = make("strided")
    relaxed = lively(symlearn.wrap(net, x))
    for name, drop in (("strict", ["0.ffc", "3.ffc"]), ("mixed", [])):
        plain = symlearn.collapse(relaxed, x, drop=drop)
        torch.save((plain, x, plain(x)), tmp_path / name)
    code = (
        "import sys, torch; sys.modules['symlearn'] = None\n"
        "net, x, y = torch.load('strict', weights_only=False)\n"
        "assert torch.equal(net(x), y) and type(net[0]) is torch.nn.Conv2d\n"
        f"del sys.modules['symlearn']; sys.path.insert(0, {str(ROOT)!r})\n"
        "net, x, y = torch.load('mixed', weights_only=False)\n"
        "assert torch.equal(net(x), y) and 'symlearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_multiply_adds_by_hand() -> None:
    layer = one_layer(("conv", "ffc"), (5, 4), stride=2)
    x = images(layer)
    conv, factored = 6 * 4 * 9 * 6, 6 * 4 * (20 + 6)
    assert multiply_adds(plain_layer(layer), x) == conv + factored
    assert multiply_adds(nn.Sequential(nn.Flatten(), nn.Linear(80, 7)).double(), x) == 560
    grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2).double()
    assert multiply_adds(grouped, x) == 6 * 2 * 9 * 20


def test_latency_restores_the_threads() -> None:
    before = torch.get_num_threads()
    small, large = nn.Linear(4, 4), nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    times = latency((small, large), torch.zeros(2, 4))
    assert 0 < times[0] < times[1]
    assert torch.get_num_threads() == before


def test_bad_data() -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x)
    with pytest.raises(ValueError, match="NaN"):
        symlearn.collapse(relaxed, x * float("nan"))
    with pytest.raises(ValueError, match="empty"):
        symlearn.collapse(relaxed, [])
    with pytest.raises(ValueError, match="no relaxed layer"):
        symlearn.collapse(net)
