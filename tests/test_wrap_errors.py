"""wrap: which layers it relaxes, and errors that name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from symlearn import RelaxedLayer
from symlearn.relaxed import relaxed_layers
from tests.nets import assert_same_function, conv, make

pytestmark = pytest.mark.core
D = torch.float64


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("0", ["0"]),
        ("1.*", ["1.conv1", "1.conv2", "1.shortcut"]),
        (["0", "*.shortcut"], ["0", "1.shortcut", "2.shortcut"]),
        (lambda name, module: module.stride == (2, 2), ["2.conv1", "2.shortcut"]),
        (("2.conv[12]",), ["2.conv1", "2.conv2"]),
    ],
)
def test_selection(layers: Any, expected: list[str]) -> None:
    net, x = make("residual")
    relaxed = symlearn.wrap(net, x, layers=layers)
    assert list(relaxed_layers(relaxed)) == expected
    assert_same_function(net, relaxed, x)


ALL = r"\['0', '1.conv1', '1.conv2', '1.shortcut', '2.conv1', '2.conv2', '2.shortcut'\]"


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("3", ValueError, r"no convolution is named \['3'\].*" + ALL),
        (["0", "con*", "x"], ValueError, r"no convolution is named \['con\*', 'x'\].*" + ALL),
        ([], ValueError, "no convolution is selected.*" + ALL),
        (lambda name, module: False, ValueError, "no convolution is selected.*" + ALL),
        ([0, "0"], TypeError, r"layers takes names.*got \[0\]"),
    ],
)
def test_wrong_selection(layers: Any, error: type[Exception], message: str) -> None:
    net, x = make("residual")
    with pytest.raises(error, match=message):
        symlearn.wrap(net, x, layers=layers)


def one() -> nn.Module:
    return nn.Sequential(conv(2, 3), nn.ReLU())


class Twice(nn.Module):
    """One convolution on two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(1, 1), conv(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(F.avg_pool2d(self.one(x), 2)))


class Listed(nn.Module):
    """Calls its convolution through a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(1, 1), conv(1, 1)
        self.order = [self.first]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.order[0](x))


def tied() -> nn.Module:
    net = nn.Sequential(conv(2, 2), conv(2, 2), conv(2, 2))
    net[2].weight = net[1].weight
    return net


def hooked() -> nn.Module:
    net = nn.Sequential(conv(2, 2), conv(2, 2))
    net[1].register_forward_hook(lambda m, args, out: 2 * out)
    return net


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = nn.utils.weight_norm(conv(2, 2))
    return nn.Sequential(layer)


X = torch.zeros(1, 2, 8, 8)
MODELS: dict[str, tuple[Callable[[], Any], Any, type[Exception], str]] = {
    "not a module": (lambda: 3, X, TypeError, "takes a torch.nn.Module, got int"),
    "no convolution": (lambda: nn.Linear(2, 2), X, ValueError, "no nn.Conv1d, nn.Conv2d or"),
    "no tensor": (one, [X], TypeError, "must be a tensor, got list"),
    "wrong channels": (one, X[:, :1], ValueError, r"does not accept .* shape \[1, 1, 8, 8\]"),
    "wrong axes": (lambda: nn.Sequential(conv(2, 1)), X[0], ValueError, "3 axes; give a batch"),
    "wrong dtype": (lambda: one().double(), X, ValueError, r"\(torch.float32\)"),
    "other device": (one, X.to("meta"), ValueError, "is on meta, the model on cpu"),
    "bare": (lambda: conv(2, 2), X, ValueError, "put it into nn.Sequential"),
    "several sizes": (Twice, X[:, :1], ValueError, r"one runs .*\[\[8, 8\], \[4, 4\]\]"),
    "tied weights": (tied, X, ValueError, "(?s)1 shares its weights.*2 shares its weights"),
    "hooks": (hooked, X, ValueError, "1 carries hooks"),
    "weight norm": (old_weight_norm, X, ValueError, "cannot be copied|carries hooks"),
    "in a list": (Listed, X[:, :1], ValueError, r"convolutions \['first'\] outside"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_be_wrapped(name: str) -> None:
    build, x, error, message = MODELS[name]
    with pytest.raises(error, match=message):
        symlearn.wrap(build(), x)


def test_what_cannot_be_relaxed_can_be_left_out() -> None:
    for name, layers in (("several sizes", "two"), ("tied weights", "0"), ("hooks", "0")):
        build, x, *_ = MODELS[name]
        net, x = build().double(), torch.randn_like(x, dtype=D)
        assert_same_function(net, symlearn.wrap(net, x, layers=layers), x)


def test_what_circular_boundaries_cannot_leave_out() -> None:
    for name, message in (("several sizes", "one runs on several"), ("tied weights", "1 shares")):
        build, x, *_ = MODELS[name]
        with pytest.raises(ValueError, match=message):
            symlearn.wrap(build(), x, layers=["two", "0"][name[0] == "t"], boundary="circular")
    pooled = nn.Sequential(conv(2, 2), nn.MaxPool2d(2))
    pooled[1].register_forward_hook(lambda m, args, out: 2 * out)
    with pytest.raises(ValueError, match="1 carries hooks"):
        symlearn.wrap(pooled, X, boundary="circular")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": ("conv", "cnov")}, r"unknown paths \['cnov'\]; the paths are \['conv', 'fc'"),
        ({"boundary": "torus"}, r"unknown boundary 'torus'.*\['keep', 'circular'\]"),
        ({"tie": "layer"}, r"unknown tie 'layer'; choose one of \['path', 'tensor'\]"),
        ({"init": "zero"}, r"unknown init 'zero'; choose one of \['keep', 'fresh'\]"),
        ({"paths": ("ffc",)}, r"none of the paths \['ffc'\] can hold .*\['0', '3'\]"),
        ({"paths": ("fc",), "boundary": "circular"}, r"can hold the pretrained .*\['0', '3'\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    net, x = make("strided")
    with pytest.raises(ValueError, match=message):
        symlearn.wrap(net, x, **options)


def test_a_network_is_wrapped_once() -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x)
    for model in (relaxed, nn.Sequential(relaxed)):
        with pytest.raises(ValueError, match="wrapped already"):
            symlearn.wrap(model, x)


def test_memory_is_predicted_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(conv(2, 64), nn.ReLU(), conv(64, 64), nn.AdaptiveAvgPool2d(1)).eval()
    x = torch.zeros(1, 2, 64, 64)
    monkeypatch.setattr(RelaxedLayer, "__init__", lambda *args: pytest.fail("a layer was built"))
    with pytest.raises(ValueError, match="(?s)memory_limit_gib is 8.*2: path 'fc' needs.*'ffc'"):
        symlearn.wrap(net, x, paths=("conv", "fc"))


def test_memory_limit_is_on_the_sum() -> None:
    net, x = make("strided")
    one = symlearn.paths.FFC()
    weights = [
        5 * one.n_params(layer.geometry) + 2 * one.factor_elements(layer.geometry)
        for layer in relaxed_layers(symlearn.wrap(net, x)).values()
    ]
    total = 8 * sum(weights) / 2**30  # float64
    options = {"paths": ("ffc",), "init": "fresh"}
    symlearn.wrap(net, x, **options, memory_limit_gib=1.001 * total)
    with pytest.raises(ValueError, match="0: path 'ffc' needs"):
        symlearn.wrap(net, x, **options, memory_limit_gib=0.999 * total)


@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_images_of_another_size_are_refused(boundary: str) -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, boundary=boundary)
    with pytest.raises(ValueError, match="wrapped for .*8, 8.*got .*8, 7"):
        relaxed(x[..., :7])
