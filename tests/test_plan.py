"""plan: what wrap would do and cost, without doing it; stages; lighter paths."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import symlearn
from symlearn import RelaxedLayer
from symlearn.memory.paths import LIGHTER, level
from symlearn.paths import FFC, PATHS, SFC, Conv
from symlearn.relaxed import relaxed_layers
from tests.nets import NETS, conv, ending, make

pytestmark = pytest.mark.core


def pyramid() -> tuple[nn.Module, Tensor]:
    """Three stages of 8x8, 4x4 and 2x2 maps, with squeeze and excitation in the second."""

    class Excite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.two(self.one(x.mean((2, 3), keepdim=True))).sigmoid()

    net = nn.Sequential(
        conv(1, 4), conv(4, 4, groups=4), conv(4, 4, stride=2), Excite(), conv(4, 4, dilation=2,
        padding=2), nn.MaxPool2d(2), conv(4, 4), *ending(4), nn.Unflatten(1, (3, 1, 1)),
        nn.Conv2d(3, 2, 1), nn.Flatten(),
    )  # fmt: skip
    return net, torch.randn(2, 1, 8, 8)


STAGES = [["0", "1"], ["2", "3.one", "3.two", "4"], ["6", "11"]]


def test_stages_are_runs_of_equal_maps() -> None:
    net, x = pyramid()
    found: dict[int | None, list[str]] = {}
    for row in symlearn.plan(net, x).rows:
        found.setdefault(row.stage, []).append(row.layer)
    assert list(found.items()) == list(enumerate(STAGES, start=1))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_last_stages(count: int) -> None:
    net, x = pyramid()
    relaxed = symlearn.wrap(net, x, layers=symlearn.last_stages(count))
    assert list(relaxed_layers(relaxed)) == sum(STAGES[-count:], [])


class Backwards(nn.Module):
    """Runs its layers in another order than it holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = conv(2, 2, stride=2), conv(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.late(self.early(x))


def test_layers_come_in_the_order_they_run() -> None:
    x = torch.randn(1, 1, 4, 4)
    assert [row.layer for row in symlearn.plan(Backwards(), x).rows] == ["early", "late"]
    relaxed = symlearn.wrap(Backwards(), x, layers=symlearn.last_stages(1))
    assert list(relaxed_layers(relaxed)) == ["late"]


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (0, ValueError, "last_stages.0.: give at least one"),
        (4, ValueError, "last_stages.4.: the network has 3 stages"),
        (True, TypeError, "number of stages, got True"),
        ("2", TypeError, "number of stages, got '2'"),
    ],
)
def test_wrong_counts_of_stages(count: Any, error: type[Exception], message: str) -> None:
    net, x = pyramid()
    with pytest.raises(error, match=message):
        symlearn.plan(net, x, layers=symlearn.last_stages(count))


PATHS_FOR: list[Any] = [
    ("conv", "ffc"),
    ("conv", "fc"),
    ("conv", SFC(anchors=1)),
    {"[0s]*": "conv", "*": ("conv", "ffc")},
]


@pytest.mark.parametrize("paths", PATHS_FOR)
@pytest.mark.parametrize("name", NETS)
def test_the_plan_is_what_wrap_does(name: str, paths: Any) -> None:
    net, x = make(name)
    plan, relaxed = symlearn.plan(net, x, paths=paths), symlearn.wrap(net, x, paths=paths)
    layers = relaxed_layers(relaxed)
    assert {row.layer for row in plan.relaxed} == set(layers)
    for row in plan.relaxed:
        layer, geometry = layers[row.layer], layers[row.layer].geometry
        assert [cost.spec.name for cost in row.paths] == list(layer.paths)
        assert row.params_after == sum(p.numel() for p in layer.parameters())
        assert row.params_before == sum(
            p.numel() for p in net.get_submodule(row.layer).parameters()
        )
        assert row.in_shape == (geometry.in_channels, *geometry.in_size)
        assert row.out_shape == (geometry.out_channels, *geometry.out_size)


def test_nothing_is_built_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = make("residual")
    net.train()
    net[1].eval()
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    for built in (RelaxedLayer, copy):
        monkeypatch.setattr(built, "__init__" if built is RelaxedLayer else "deepcopy", pytest.fail)
    symlearn.plan(net, x)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_what_is_left_alone_has_a_reason() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.spare = conv(1, 1), conv(1, 1), conv(1, 1)
            self.third = conv(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.third(self.second(self.first(x)))
            return self.third(nn.functional.avg_pool2d(y, 2))

    net, x = Spare(), torch.randn(1, 1, 4, 4)
    plan = symlearn.plan(net, x, layers=["first", "third"])
    assert {row.layer: (row.action, row.reason) for row in plan.rows} == {
        "first": ("relax", ""),
        "second": ("leave alone", "not selected"),
        "third": ("refuse", "runs on several input sizes in one pass: [[4, 4], [2, 2]]"),
        "spare": ("leave alone", "does not run on the example (in eval mode)"),
    }
    assert plan.rows[-1].in_shape == ()
    assert plan.summary().startswith("4 convolutions: 1 relaxed, 2 left alone, 1 refused.")


def test_paths_that_do_not_suit_a_layer_are_refused() -> None:
    net, x = pyramid()
    plan = symlearn.plan(net, x, paths=("conv", SFC(anchors=10)))
    assert [row.layer for row in plan.relaxed] == ["0", "1", "2", "4"]
    assert all("path 'sfc': anchors is 10" in row.reason for row in plan.refused)
    with pytest.raises(ValueError, match="6, path 'sfc': anchors is 10"):
        symlearn.wrap(net, x, paths=("conv", SFC(anchors=10)))
    plan = symlearn.plan(net, x, paths=("conv", "gconv"))
    assert not plan.relaxed
    assert all("call symlearn.lift(model, group) before wrap" in row.reason for row in plan.refused)


def test_rendering() -> None:
    net, x = pyramid()
    plan = symlearn.plan(net, x, layers="[014]", memory_limit_gib=1e-4)
    text, markdown = str(plan), plan.to_markdown()
    lines = text.splitlines()
    assert len(lines) == 1 + len(plan.rows) + 2
    row = next(line for line in lines if line.startswith("1 "))
    for cell in ("Conv2d 3x3, depthwise", "4x8x8", "relax", "conv+ffc", "'ffc' is too large"):
        assert cell in row
    assert "Conv2d 3x3, stride 2" in text
    assert "Conv2d 3x3, dilation 2" in text
    assert "GiB of 0.0001 GiB allowed. This does not fit" in text
    assert markdown.count("\n") == 1 + len(plan.rows) + 2
    assert {line.count("|") for line in markdown.splitlines()[:-2]} == {12}


def test_lighter_paths_make_it_fit() -> None:
    net, x = pyramid()
    free = symlearn.plan(net, x, layers=["0", "1", "2"])
    assert free.fits
    assert not any(row.lighter for row in free.rows)
    limit = 0.5 * free.gib
    plan = symlearn.plan(net, x, layers=["0", "1", "2"], memory_limit_gib=limit)
    assert not plan.fits
    with pytest.raises(ValueError, match=r"1: path 'ffc' needs .* GiB; what fits is SFC\(anchors="):
        symlearn.wrap(net, x, layers=["0", "1", "2"], memory_limit_gib=limit)
    assert any(isinstance(spec, SFC) for specs in plan.paths.values() for spec in specs)
    assert symlearn.plan(net, x, paths=plan.paths, memory_limit_gib=limit).fits
    relaxed = symlearn.wrap(net, x, paths=plan.paths, memory_limit_gib=limit)
    assert {n: layer.specs for n, layer in relaxed_layers(relaxed).items()} == plan.paths
    torch.testing.assert_close(relaxed(x), net(x))


def test_the_largest_budget_of_anchors_is_proposed() -> None:
    net, x = nn.Sequential(conv(4, 4)), torch.randn(1, 4, 16, 16)
    for limit in (1e-3, 3e-4):
        plan = symlearn.plan(net, x, memory_limit_gib=limit)
        (cost,) = (cost for row in plan.rows for cost in row.lighter.values() if cost is not None)
        spare = limit - plan.rows[0].paths[0].gib
        assert cost.gib <= spare
        better = [spec for spec in LIGHTER["ffc"] if cost.spec.anchors < spec.anchors <= 256]
        geometry = relaxed_layers(symlearn.wrap(net, x))["0"].geometry
        for spec in better:
            numbers = 5 * spec.n_params(geometry) + 2 * spec.factor_elements(geometry)
            assert 4 * numbers / 2**30 > spare


def test_where_nothing_is_light_enough_the_layer_is_left_out() -> None:
    net, x = pyramid()
    plan = symlearn.plan(net, x, memory_limit_gib=1e-9)
    assert plan.paths == {}
    assert "'ffc' is too large: nothing lighter fits here, leave the layer out" in str(plan)
    taken = symlearn.plan(net, x, paths=("conv", "ffc", SFC(anchors=1)), memory_limit_gib=1e-5)
    assert {cost for row in taken.rows for cost in row.lighter.values()} == {None}


def test_full_maps_are_replaced_by_factored_ones_first() -> None:
    net, x = nn.Sequential(conv(2, 2)), torch.randn(1, 2, 8, 8)
    need = symlearn.plan(net, x, paths=("conv", "ffc")).gib
    plan = symlearn.plan(net, x, paths=("conv", "fc"), memory_limit_gib=need)
    assert plan.paths == {"0": (Conv(), FFC())}


@pytest.mark.parametrize("name", LIGHTER)
def test_stand_ins_are_ordered(name: str) -> None:
    net, x = nn.Sequential(conv(3, 5)), torch.randn(1, 3, 48, 48)
    geometry = symlearn.wrap(net, x, paths="conv")[0].geometry
    needs = [spec.n_params(geometry) for spec in (PATHS[name](), *LIGHTER[name])]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) >= len(needs) - 1


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(0.01, 30)
)  # fmt: skip
def test_the_common_bound_uses_up_the_limit(needs: list[float], limit: float) -> None:
    bound = level(needs, limit)
    total = sum(min(need, bound) for need in needs)
    if sum(needs) <= limit * (1 - 1e-9):
        assert bound == math.inf
    else:
        assert total == pytest.approx(min(limit, sum(needs)))


def test_paths_by_layer() -> None:
    net, x = make("residual")
    relaxed = symlearn.wrap(net, x, paths={"1.conv1": "conv", "1.*": ("conv", "ffc")})
    assert {name: list(layer.paths) for name, layer in relaxed_layers(relaxed).items()} == {
        "1.conv1": ["conv"],
        "1.conv2": ["conv", "ffc"],
        "1.shortcut": ["conv", "ffc"],
    }
    torch.testing.assert_close(relaxed(x), net(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"names no selected convolution with \['3.\*'\]"):
        symlearn.wrap(net, x, paths={"1.*": "conv", "3.*": "conv"})
    with pytest.raises(ValueError, match="names no selected convolution"):
        symlearn.plan(net, x, paths={})
    with pytest.raises(ValueError, match=r"unknown paths \['cnov'\]"):
        symlearn.plan(net, x, paths={"1.*": "cnov"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "no nn.Conv1d, nn.Conv2d or nn.Conv3d"),
        (symlearn.wrap(nn.Sequential(conv(1, 1)), torch.zeros(1, 1, 4, 4)), "wrapped already"),
    ],
)
def test_models_without_a_plan(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symlearn.plan(model, torch.zeros(1, 1, 4, 4))
