"""An ordinary CNN becomes one on a group, which wrap takes with conv, ffc and gconv paths."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
import symlearn
from symlearn.geometry import OverGroup
from symlearn.groups import GROUPS, GridGroup, GroupPool, act_on_features, named
from symlearn.paths import GConv
from symlearn.relaxed import relaxed_layers

pytestmark = pytest.mark.core
D = torch.float64


def cnn(stride: int = 1) -> nn.Sequential:
    """All layers that lift knows, and a head that pools over all sites."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, stride=stride, bias=False),
        nn.GroupNorm(2, 6),
        nn.PReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.InstanceNorm2d(6, affine=True),
        nn.Dropout2d(0.2),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def shaken(model: nn.Module) -> nn.Module:
    """In float64 with random weights everywhere."""
    model.double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=D)
    return model


def images(size: int = 9, n: int = 3) -> Tensor:
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(1), dtype=D)


def assert_invariant(model: nn.Module, x: Tensor, group: str) -> None:
    """``f(g . x) = f(x)`` for every element."""
    g = named(group)
    out = model(x)
    assert out.detach().std() > 0
    for e in range(g.order):
        torch.testing.assert_close(model(g.act(x, e)), out, rtol=0, atol=1e-10)


@pytest.mark.parametrize("group", ["vertical", "p4", "p4m"])
@pytest.mark.parametrize("width", [1.0, 0.67, 2])
@pytest.mark.parametrize("first", ["lift", "repeat"])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_the_lifted_network_is_invariant(group: str, width: float, first: str, pool: str) -> None:
    model = cnn().double()
    before = copy.deepcopy(model.state_dict())
    lifted = symlearn.lift(model, group, width=width, first=first, pool=pool)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for size in (6, 9):
        assert_invariant(lifted.eval(), images(size), group)
    convs = [m for m in lifted.modules() if isinstance(m, nn.Conv2d)]
    order, repeat = named(group).order, first == "repeat"
    assert convs[0].in_channels == (2 * order if repeat else 2)
    assert convs[1].in_channels == convs[0].out_channels == round(4 * width) * order
    assert convs[2].groups == round(6 * width)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_kept_weights_give_the_features_of_turned_images(how: str) -> None:
    """The output pools, before the head, what the given network sees in each turned image."""
    model, group = shaken(cnn()).eval(), named("p4m")
    lifted, x = symlearn.lift(model, "p4m", pool=how), images()
    body, head = model[:9], model[9:]
    turned = [group.act(body(group.act(x, int(group.inverse[g]))), g) for g in range(group.order)]
    features = torch.stack(turned)
    pooled = features.amax(0) if how == "max" else features.mean(0)
    torch.testing.assert_close(lifted(x), head(pooled), rtol=0, atol=1e-10)


def trained(relaxed: nn.Module, x: Tensor, steps: int = 4) -> list[float]:
    """A few steps on random labels; the losses."""
    optimiser = torch.optim.Adam(relaxed.parameters(), lr=0.02)
    y = torch.arange(len(x)) % 3
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(relaxed(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_wrap_keeps_the_function_in_the_strictest_path(boundary: str) -> None:
    lifted, x = symlearn.lift(cnn().double(), "p4").eval(), images(8)
    relaxed = symlearn.wrap(lifted, x, paths=("conv", "ffc", "gconv"), boundary=boundary)
    if boundary == "keep":
        torch.testing.assert_close(relaxed(x), lifted(x), rtol=0, atol=1e-12)
    for layer in relaxed_layers(relaxed).values():
        on = {name: path.contributes() for name, path in layer.named_paths().items()}
        assert on == {"conv": False, "ffc": False, "gconv": True}
        assert layer.geometry.group == "p4"
    assert_invariant(relaxed, x, "p4")
    groups = symlearn.wrap.__globals__["prior_groups"](relaxed)
    names = {"0.conv", "3", "6.conv"}
    assert {f"{n}.{p}" for n in names for p in ("conv", "ffc", "gconv")} <= set(groups)
    assert {"0.bias.bias", "6.bias.bias"} <= set(groups)


@pytest.mark.parametrize("factor", ["full", "separable", "depthwise-separable", "pointwise"])
def test_group_convolutions_stay_invariant_in_training(factor: str) -> None:
    lifted, x = symlearn.lift(cnn().double(), "p4", width=0.67), images(6, 8)
    paths = GConv(factor=factor)
    relaxed = symlearn.wrap(lifted, x, paths=paths, init="fresh", boundary="circular")
    assert_invariant(relaxed.eval(), x, "p4")
    losses = trained(relaxed.train(), x, 12)
    assert losses[-1] < losses[0]
    assert_invariant(relaxed.eval(), x, "p4")
    torch.testing.assert_close(relaxed(x.roll((1, 2), (2, 3))), relaxed(x))


def test_other_paths_can_break_the_symmetry() -> None:
    lifted, x = symlearn.lift(cnn().double(), "p4"), images(6, 8)
    relaxed = symlearn.wrap(lifted, x, paths=("conv", "gconv"))
    trained(relaxed, x)
    with pytest.raises(AssertionError):
        assert_invariant(relaxed.eval(), x, "p4")
    with pytest.raises(AssertionError):
        assert_invariant(nn.Sequential(relaxed, nn.Threshold(1e9, torch.nan)), x, "p4")


def test_features_of_a_lifted_layer_move_with_the_image() -> None:
    group, x = named("p4m"), images(7)
    lifted = symlearn.lift(cnn().double(), "p4m").eval()
    relaxed = symlearn.wrap(lifted, x, paths=("gconv",))
    body = relaxed[:6]
    for g in range(group.order):
        moved = body(group.act(x, g))
        torch.testing.assert_close(moved, act_on_features(body(x), group, g, True))


def test_every_weight_of_a_wrapped_network_has_a_curvature() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 3),
    )
    x = images(4)
    relaxed = symlearn.wrap(symlearn.lift(model.double()), x, paths=("conv", "ffc", "gconv"))
    found = curvature.kronecker(relaxed, (x, torch.arange(3)))
    assert set(found) == {name for name, _ in relaxed.named_parameters()}


def test_heads() -> None:
    """The pool stands before the first of a pool, a flatten and a linear layer, or at the end."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).relu().flatten(1))

    x = images(4)
    for width in (1, 0.5):
        lifted = symlearn.lift(Functional().double(), "p4", width=width)
        assert isinstance(lifted.fc[0], GroupPool)
        assert lifted.fc[0].sites == 16
        assert lifted(x).shape == (3, 3)
    ends = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 5, 1)).double()
    lifted = symlearn.lift(ends, "p4", width=2)
    assert lifted(x).shape == (3, 5, 4, 4)  # outputs are not widened
    turned = lifted(x.rot90(1, (2, 3)))
    torch.testing.assert_close(turned, lifted(x).rot90(1, (2, 3)))


def test_options_of_layers_survive() -> None:
    model = cnn()
    model[3].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    model[1].eval()
    for width in (1, 2):
        lifted = symlearn.lift(model, "p4", width=width)
        assert not lifted[3].weight.requires_grad
        assert not lifted[0].bias.bias.requires_grad
        assert lifted[1].module.training == model[1].training
        assert lifted[7].module.affine
        assert lifted[8].module.p == 0.2
        again = copy.deepcopy(lifted)
        assert vars(again[3])["symlearn_over_group"] == OverGroup("p4", False)
        assert symlearn.wrap(again, images().float(), paths="gconv", init="fresh") is not None


def test_fresh_weights_come_from_the_seed() -> None:
    first, same, other = (
        symlearn.lift(cnn(), "p4", width=2, seed=s)[0].conv.weight for s in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    symlearn.lift(cnn_without_draws(), "p4", width=2)
    assert torch.equal(torch.rand(1), expected)


def cnn_without_draws() -> nn.Sequential:
    state = torch.get_rng_state()
    made = cnn()
    torch.set_rng_state(state)
    return made


def test_a_group_of_ones_own() -> None:
    diagonal = GridGroup.generated("test-lift", [((0, 1), (1, 0))])
    try:
        lifted, x = symlearn.lift(cnn().double(), diagonal).eval(), images()
        relaxed = symlearn.wrap(lifted, x, paths=("gconv", "conv"))
        torch.testing.assert_close(relaxed(x.mT), relaxed(x))
    finally:
        GROUPS.pop("test-lift", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "p6"}, "unknown group 'p6'"),
        ({"pool": "min"}, r"unknown pool 'min'; choose one of \['max', 'mean'\]"),
        ({"first": "none"}, "unknown first 'none'"),
        ({"init": "he"}, "unknown init 'he'"),
        ({"width": 0}, "width is 0"),
        ({"width": float("nan")}, "width is nan"),
        ({"width": 2, "init": "keep"}, "init='keep' needs width=1, got 2"),
    ],
)
def test_wrong_options(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symlearn.lift(cnn(), **options)


def test_models_that_cannot_be_lifted() -> None:
    with pytest.raises(TypeError, match=r"torch.nn.Module, got str"):
        symlearn.lift("cnn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no nn.Conv2d layer to lift"):
        symlearn.lift(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"put it into nn.Sequential\(conv\)"):
        symlearn.lift(nn.Conv2d(1, 1, 3))
    wrapped = symlearn.wrap(cnn(), images().float())
    with pytest.raises(ValueError, match="wrapped already; lift the plain network"):
        symlearn.lift(wrapped)
    with pytest.raises(ValueError, match="0.conv is over the group 'p4' already"):
        symlearn.lift(symlearn.lift(cnn()))
    many = nn.Sequential(
        nn.Conv2d(1, 4, (3, 2)),
        nn.PReLU(4),
        nn.Conv2d(4, 4, 2),
        nn.ConvTranspose2d(4, 6, 3),
        nn.GroupNorm(3, 6),
        nn.Conv2d(6, 6, 1, groups=3),
        nn.Linear(7, 2),
    )
    with pytest.raises(ValueError) as caught:
        symlearn.lift(many, "p4", width=0.67)
    for part in (
        "0 cannot be turned: the window (3, 2) must be odd",
        "1 is a PReLU",
        "2 cannot be turned: the window (2, 2) must be odd",
        "3 is a ConvTranspose2d",
        "4 has 4 channels at this width, which 3 groups cannot share",
        "5 has 4 channels at this width, which 3 groups cannot share",
        "reads 7 features, no multiple of the 6 channels",
    ):
        assert part in str(caught.value)


def test_gconv_needs_a_lifted_network() -> None:
    x = images().float()
    with pytest.raises(ValueError, match=r"0, path 'gconv': .*call symlearn.lift\(model, group\)"):
        symlearn.wrap(cnn(), x, paths=("conv", "gconv"))
    with pytest.raises(ValueError, match="over the group 'p4', not 'p4m'"):
        symlearn.wrap(symlearn.lift(cnn(), "p4"), x, paths=GConv("p4m"))
    with pytest.raises(ValueError, match=r"square maps, got size \(9, 8\)"):
        symlearn.wrap(symlearn.lift(cnn(), "p4"), x[..., :8], paths="gconv")
