"""Lifted networks, and what collapse leaves of them, come back from their descriptions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import Circular, FitConfig, architecture
from symlearn.collapse.modules import CircularConv, KeptPaths
from symlearn.groups import GROUPS, GridGroup
from symlearn.paths import Conv, GConv
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs

pytestmark = pytest.mark.core
QUICK = FitConfig(epochs=2, burn_in=0.0, progress=False, batch_size=32)
PATHS = ("conv", "ffc", "gconv")
BOUNDARIES = ["keep", "circular", Circular("template", group="p4")]
TURN = ((0, -1), (1, 0))
HALF = ((-1, 0), (0, -1))


def cnn() -> nn.Sequential:
    """Layers of all kinds that lift knows, as random as they come."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.PReLU().requires_grad_(False),  # no curvature rule
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.GroupNorm(2, 4),
        nn.Dropout2d(0.1),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def fitted(boundary: object, group: str | GridGroup = "p4", **options: Any) -> Any:
    x, y = blobs(60)
    net = symlearn.lift(cnn(), group, **options)
    relaxed = symlearn.wrap(net, x[:2], paths=PATHS, boundary=boundary)  # type: ignore[arg-type]
    return symlearn.fit(relaxed, (x, y), QUICK)


def rebuilt(net: nn.Module) -> nn.Module:
    """A network from its description and its tensors."""
    again = architecture.build(json.loads(json.dumps(architecture.describe(net))))
    again.load_state_dict(net.state_dict(), assign=True)
    return again.eval()


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"first": "repeat", "pool": "mean", "width": 1.5}], ids=["lift", "repeat"]
)
def test_fitted_lifted_networks_round_trip(
    tmp_path: Path, boundary: object, options: dict[str, Any]
) -> None:
    x, _ = blobs(20, seed=1)
    result = fitted(boundary, **options)
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run")
    assert torch.equal(again.predict_proba(x), result.predict_proba(x))
    plain = result.collapse()
    assert any(isinstance(m, CircularConv) for m in plain.modules()) == (boundary != "keep")
    symlearn.save_plain(plain, tmp_path / "plain")
    loaded = symlearn.load_plain(tmp_path / "plain")
    assert str(loaded) == str(plain)
    assert torch.equal(loaded(x), plain(x))


def test_paths_that_stay_as_they_are(tmp_path: Path) -> None:
    x, _ = blobs(5)
    spec = GConv(factor="separable", inner_bias=True)
    relaxed = symlearn.wrap(
        symlearn.lift(cnn(), "p4"), x[:2], paths=spec, boundary="circular", init="fresh"
    )
    with torch.no_grad():
        for name, p in relaxed.named_parameters():
            if name.endswith("spatial.bias"):
                p.normal_()
    plain = symlearn.collapse(relaxed.eval(), x)
    assert any(isinstance(m, KeptPaths) for m in plain.modules())
    symlearn.save_plain(plain, tmp_path / "plain")
    assert torch.equal(symlearn.load_plain(tmp_path / "plain")(x), plain(x))


def test_a_rebuilt_lifted_network_is_still_over_its_group() -> None:
    x, _ = blobs(5)
    lifted = symlearn.lift(cnn(), "p4m").eval()
    again = rebuilt(lifted)
    assert torch.equal(again(x), lifted(x))
    wrapped = symlearn.wrap(again, x[:2], paths=PATHS).eval()
    _layers(wrapped)[1].path("ffc").switch_off()
    same = rebuilt(wrapped)
    assert torch.equal(same(x), wrapped(x))
    on = [[path.enabled for path in layer.named_paths().values()] for layer in _layers(same)]
    assert on == [[True, True, True], [True, False, True]]
    found = [(layer.geometry.group, layer.geometry.lifts) for layer in _layers(wrapped)]
    assert found == [("p4m", True), ("p4m", False)]


def test_own_groups_must_be_known_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = blobs(5)
    own = GridGroup.generated("my turns", [TURN])
    monkeypatch.setitem(GROUPS, own.name, own)
    result = fitted("keep", own)
    result.save(tmp_path / "run")
    symlearn.save_plain(result.collapse(), tmp_path / "plain")
    assert torch.equal(symlearn.load(tmp_path / "run").predict_proba(x), result.predict_proba(x))
    expected = symlearn.load_plain(tmp_path / "plain")(x)
    monkeypatch.delitem(GROUPS, own.name)
    with pytest.raises(ValueError, match=r"unknown group 'my turns'.*groups\.register adds one"):
        symlearn.load(tmp_path / "run")
    assert torch.equal(symlearn.load_plain(tmp_path / "plain")(x), expected)
    monkeypatch.setitem(GROUPS, own.name, GridGroup.generated(own.name, [HALF]))
    with pytest.raises(ValueError, match="a group 'my turns' with other elements"):
        symlearn.load(tmp_path / "run")
    with pytest.raises(ValueError, match="a group 'my turns' with other elements"):
        symlearn.load_plain(tmp_path / "plain")


@dataclass(frozen=True)
class Foreign(Conv):
    """A path under a name that stands for another one here."""


def test_what_could_not_be_rebuilt_is_not_described() -> None:
    x: Tensor = torch.zeros(1, 1, 8, 8)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    assert architecture.describe(symlearn.wrap(net, x, paths="conv")) is not None
    assert architecture.describe(symlearn.wrap(net, x, paths=Foreign())) is None


@pytest.mark.parametrize(
    "root",
    [
        {"kind": "Linear", "arguments": []},
        {"kind": "GroupPool", "arguments": {"group": "p4"}},
        {"kind": "PerElement", "arguments": {"module": {"kind": "System"}, "group": {}}},
        {"kind": "CircularPool", "arguments": {"pool": {"kind": "ReLU"}}},
    ],
    ids=str,
)
def test_what_is_no_description_is_told(root: object) -> None:
    with pytest.raises(ValueError, match="not a network description"):
        architecture.build({"root": root, "reference": None})


def _layers(net: nn.Module) -> list[Any]:
    return list(relaxed_layers(net).values())
