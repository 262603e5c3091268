"""Channels that have vanished are cut out, and only those."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from symlearn.collapse.channels import Pruning, prune_channels
from symlearn.collapse.modules import FactoredMap
from symlearn.collapse.verify import CollapseError
from symlearn.relaxed import relaxed_layers
from tests.nets import make
from tests.test_collapse import lively

pytestmark = pytest.mark.core


def images(channels: int = 2) -> Tensor:
    return torch.randn(5, channels, 6, 6, dtype=torch.float64)


def kill(layer: nn.Module, channels: list[int], bias: float) -> None:
    """Zero the filters of some output channels, and set their biases."""
    with torch.no_grad():
        layer.get_parameter("weight")[channels] = 0
        if layer.bias is not None:
            layer.get_parameter("bias")[channels] = bias


def pruned(net: nn.Module, x: Tensor, vanished: dict[str, Tensor] | None = None) -> Pruning:
    """Prune a network, and compare its outputs with those before."""
    before = net(x)
    found = prune_channels(net.eval(), vanished or {}, [x[:3], x[3:]])
    torch.testing.assert_close(net(x), before, rtol=0, atol=1e-10)
    return found


def chain(**options: object) -> nn.Sequential:
    """Two convolutions and a linear head over all sites, with everything that is followed."""
    given = {"padding": 1, **options}
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, **given), nn.ReLU(), nn.Dropout(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(5, 3),
    ).double().eval()  # fmt: skip


def test_a_chain_loses_dead_channels_on_both_sides() -> None:
    net = chain()
    kill(net[0], [1, 3], -1.0)
    net[1].running_mean.normal_()
    net[1].bias.data[[1, 3]] = -5.0  # zero behind the ReLU
    kill(net[4], [0], 0.7)
    found = pruned(net, images())
    assert found == Pruning({"0": (4, 2), "4": (5, 4)}, {})
    assert net[0].weight.shape[0] == net[0].out_channels == net[1].num_features == 2
    assert net[4].weight.shape == (4, 2, 3, 3)
    assert net[9].weight.shape == (3, 4)
    assert (net[4].in_channels, net[9].in_features) == (2, 4)


@pytest.mark.parametrize(
    ("options", "folds"),
    [
        ({"padding": 0}, True),
        ({"padding_mode": "circular"}, True),
        ({"padding_mode": "replicate"}, True),
        ({"bias": False, "padding": 0}, True),
        ({}, False),
    ],
    ids=str,
)
def test_constants_fold_where_there_is_no_border(options: dict[str, object], folds: bool) -> None:
    net = chain(**options) if "padding" not in options else nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, **options), nn.Flatten(),
        nn.Linear(80, 3),
    ).double()  # fmt: skip
    kill(net[0], [2], 1.5)
    found = pruned(net, images())
    assert bool(found.removed) == folds
    if not folds:
        assert found.kept == {"0": "4 cannot absorb a constant that is not zero"}


def test_sites_of_a_flattened_channel_go_together() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    kill(net[0], [0, 2], 0.4)
    assert pruned(net, images()).removed == {"0": (4, 2)}
    assert net[3].weight.shape == (3, 32)


def test_sums_need_both_sides() -> None:
    net, x = make("residual")
    plain = symlearn.collapse(lively(symlearn.wrap(net, x)), x, drop=["0.ffc"])
    for name in ("2.conv2", "2.shortcut"):
        layer = plain.get_submodule(name)
        conv, factored = layer["conv"], layer["ffc"]
        kill(conv, [1], 0.0)
        if name == "2.conv2":
            with torch.no_grad():
                factored.write[1] = 0
    plain[2].norm2.bias.data[1] = -0.2
    plain[2].norm2.running_mean[1] = 0
    found = pruned(plain, x)
    assert not found.removed
    assert "they are added to channels of" in found.kept["2.conv2.conv"]
    with torch.no_grad():
        plain[2].shortcut["ffc"].read[1] = 0
    found = pruned(plain, x)
    assert found.removed["2.shortcut.conv"] == found.removed["2.conv2.ffc"] == (4, 3)
    assert plain[2].norm2.num_features == 3
    assert plain[5].in_features == 3
    assert isinstance(plain[2].shortcut["ffc"], FactoredMap)
    assert plain[2].shortcut["ffc"].out_shape[0] == 3


def test_dead_relus_by_judgement() -> None:
    """A channel that is never active has weights, but no effect."""
    net = chain(padding_mode="replicate")
    net[1] = nn.Identity()
    net[0].bias.data[2] = -50.0
    assert pruned(net, images()) == Pruning()
    mask = torch.tensor([False, False, True, False])
    assert pruned(net, images(), {"0": mask}).removed == {"0": (4, 3)}


def test_a_channel_in_use_that_is_called_vanished_changes_outputs_as_told() -> None:
    net, x = chain(padding=0, padding_mode="zeros"), images()
    net[7] = nn.Identity()
    nn.init.constant_(net[4].bias, 0.5)
    before = net(x)
    found = prune_channels(net, {"4": torch.tensor([True] + 4 * [False])}, [x])
    assert found.removed == {"4": (5, 4)}
    assert 1e-6 < float((net(x) - before).detach().abs().max()) < 1


class Odd(nn.Module):
    """Convolutions in every place that cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.norm = nn.GroupNorm(2, 4)
        self.rows = nn.Linear(6, 6)
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(F.relu(self.stem(x))))
        x = self.norm(torch.cat([self.a(x), self.b(x)], 1))
        return self.last(self.rows(self.grouped(x))).mean((2, 3))


def test_what_cannot_be_followed_stays() -> None:
    net = Odd().double()
    for name in ("stem", "twice", "a", "grouped", "last"):
        kill(net.get_submodule(name), [0], 0.0)
    found = pruned(net, images())
    assert found.removed == {}
    assert {name: reason.split(" (")[0] for name, reason in found.kept.items()} == {
        "stem": "twice runs more than once",
        "twice": "twice runs more than once",
        "a": "cat",
        "grouped": "grouped has channel groups",
        "last": "the network's output reads them",
    }


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.sum() > 0:
            x = -x
        return self.head(x.relu().mean(dim=(-2, -1)))


def test_untraceable_networks_and_no_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.fx cannot trace"):
        prune_channels(Branches().double(), {}, [images()])
    with pytest.raises(ValueError, match="give data"):
        prune_channels(chain(), {}, [])


def test_a_wrong_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3)).double()
    kill(net[0], [0], 3.0)
    surgery = importlib.import_module("symlearn.collapse.surgery")
    monkeypatch.setattr(surgery, "_add_to_bias", lambda module, change: None)
    with pytest.raises(CollapseError, match="without vanished channels"):
        prune_channels(net, {}, [images()])


def test_functions_and_methods_are_followed() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
            self.c, self.head = nn.Conv2d(4, 3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(torch.relu(self.a(x)) + self.b(x).relu(), 2)
            x = F.adaptive_avg_pool2d(F.gelu(self.c(x)), 1)
            return self.head(F.dropout(torch.flatten(x, 1), training=self.training))

    net = Functional().double().eval()
    kill(net.a, [3], 0.5)
    kill(net.b, [3], 0.25)
    kill(net.c, [1], 0.25)
    assert pruned(net, images()).removed == {"a": (4, 3), "b": (4, 3), "c": (3, 2)}


def test_at_least_one_channel_stays() -> None:
    net = chain()
    kill(net[4], [0, 1, 2, 3, 4], -1.0)
    assert pruned(net, images()).removed == {"4": (5, 1)}


@pytest.mark.parametrize("boundary", ["keep", "circular"])
def test_through_collapse(boundary: str) -> None:
    net, x = make("strided")
    relaxed = lively(symlearn.wrap(net, x, boundary=boundary))
    for layer in list(relaxed_layers(relaxed).values())[:1]:
        with torch.no_grad():
            layer.path("conv").conv.weight[1] = 0
            layer.path("ffc").theta1.weight[1] = 0
            layer.bias[1] = 0
        relaxed[1].running_mean[1] = 1.0
        relaxed[1].bias.data[1] = 0
    plain = symlearn.collapse(relaxed, x, prune_channels=True)
    torch.testing.assert_close(plain(x), relaxed(x), rtol=0, atol=1e-10)
    report = symlearn.collapse_report(plain)
    assert set(report.channels.values()) == {(3, 2)}
    assert "3 channels, now 2" in str(report)
    with pytest.raises(ValueError, match="give data"):
        symlearn.collapse(relaxed, prune_channels=True)
