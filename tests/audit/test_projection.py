"""The commuting part of an operator equals the dense projection."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.audit import Averaged, Shifts, split_operator, split_paths
from symlearn.audit.projection import ActsOnMaps
from symlearn.groups import act_on_features, named
from symlearn.relaxed import relaxed_layers

pytestmark = pytest.mark.core


def dense(f: Any, shape: tuple[int, ...]) -> Tensor:
    """The matrix [out, in] of the linear part of a module."""
    basis = torch.eye(int(torch.tensor(shape).prod()), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return (f(basis) - f(torch.zeros_like(basis))).flatten(1).T


def action(group: ActsOnMaps, g: int, shape: tuple[int, ...], lifted: bool) -> Tensor:
    """The matrix of a group element on maps of a shape; the identity on vectors."""
    if len(shape) == 1:
        return torch.eye(shape[0], dtype=torch.float64)
    act = (lambda v: act_on_features(v, group, g, True)) if lifted else lambda v: group.act(v, g)
    return dense(act, shape)


def check(
    module: nn.Module,
    shape: tuple[int, int, int],
    group: ActsOnMaps,
    lifted: tuple[bool, bool] = (False, False),
) -> float:
    """Compare a split with the dense projection; returns the share."""
    t = dense(module, shape)
    with torch.no_grad():
        out = tuple(module(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    projected = torch.zeros_like(t)
    for g in range(group.order):
        a, b = action(group, g, shape, lifted[0]), action(group, g, out, lifted[1])
        projected += b.T @ t @ a / group.order
    for batch in (256, 3):
        found = split_operator(module, shape, group, lifted=lifted, batch=batch)
        commuting, rest = float(projected.square().sum()), float((t - projected).square().sum())
        assert found.commuting == pytest.approx(commuting, rel=1e-10, abs=1e-12)
        assert found.rest == pytest.approx(rest, rel=1e-10, abs=1e-12)
        assert found.norm_square == pytest.approx(float(t.square().sum()), rel=1e-10)
    averaged = dense(Averaged(module, group, lifted), shape)
    torch.testing.assert_close(averaged, projected, rtol=0, atol=1e-12)
    return found.share


MODULES: dict[str, Any] = {
    "conv": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "strided": lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2, padding_mode="circular"),
    "valid": lambda: nn.Conv2d(2, 3, 3),
    "to a vector": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 5)),
}


@pytest.mark.parametrize("group", ["shifts", "p4", "p4m", "vertical"])
@pytest.mark.parametrize("name", list(MODULES))
def test_splits_are_dense_projections(name: str, group: str) -> None:
    module = MODULES[name]().double()
    sites = {"strided": (2, 2), "valid": (2, 2)}.get(name, (4, 4))
    share = check(module, (2, 4, 4), Shifts(sites) if group == "shifts" else named(group))
    assert share <= 1 + 1e-12
    if group == "shifts" and name in ("circular", "strided"):
        assert share == pytest.approx(1, abs=1e-12)
    else:
        assert 0.01 < share < 0.99


def test_features_over_a_group() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1).double()
    check(conv, (4, 3, 3), named("p4"), (True, True))
    check(nn.Conv2d(1, 8, 3, padding=1).double(), (1, 4, 4), named("p4m"), (False, True))
    plain = nn.Sequential(
        *(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    lifted = symlearn.lift(plain, "p4")
    net = symlearn.wrap(lifted, torch.zeros(1, 1, 4, 4), paths=("gconv",)).double()
    inner = list(relaxed_layers(net).values())[1]
    inner.reset_parameters(torch.Generator().manual_seed(0))
    shape = (inner.geometry.in_channels, *inner.geometry.in_size)
    gconv = inner.named_paths()["gconv"]
    assert split_operator(gconv, shape, "p4", lifted=(True, True)).share == pytest.approx(1)
    assert split_operator(gconv, shape, "p4").share < 0.9


def test_translations_of_input_and_output_are_shared() -> None:
    strided = nn.Conv2d(1, 2, 4, padding=1, stride=2, padding_mode="circular").double()
    found = split_operator(strided, (1, 8, 6))
    assert found.group == "shifts 4x3"
    assert found.rest < 1e-20
    assert split_operator(nn.Conv2d(1, 1, 3).double(), (1, 6, 6)).group == "shifts 2x2"
    symmetric = nn.Conv2d(1, 1, 3, padding=1).double()
    with torch.no_grad():
        symmetric.weight.copy_(Averaged(nn.Identity(), "p4m")(symmetric.weight) * 0 + 1)
    assert split_operator(symmetric, (1, 5, 5), "p4m").share == pytest.approx(1, abs=1e-12)


def test_paths_of_a_relaxed_layer() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
    net = symlearn.wrap(nn.Sequential(conv), torch.zeros(1, 2, 4, 4), paths=("conv", "fc"))
    net = net.double()
    (layer,) = relaxed_layers(net).values()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    splits = split_paths(layer)
    assert list(splits) == ["conv", "fc", "sum"]
    assert splits["conv"].share == pytest.approx(1, abs=1e-12)
    # of 2 * 3 * 16 * 16 weights of any size, one in 16 directions commutes
    assert splits["fc"].share == pytest.approx(1 / 16, abs=0.03)
    for name, path in layer.named_paths().items():
        norm = float(dense(path, (2, 4, 4)).square().sum())
        assert splits[name].norm_square == pytest.approx(norm, rel=1e-10)
    assert splits["sum"].rest == pytest.approx(splits["fc"].rest, rel=1e-10)
    layer.named_paths()["fc"].switch_off()
    assert list(split_paths(layer)) == ["conv", "sum"]


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


def test_bad_input_is_an_error() -> None:
    conv = nn.Conv2d(2, 3, 3)
    with pytest.raises(ValueError, match="not linear"):
        split_operator(Square(), (1, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        split_operator(Nan(), (1, 4, 4))
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        split_operator(conv, (4, 4))
    with pytest.raises(ValueError, match=r"does not take inputs of shape \[N, 1, 4, 4\]"):
        split_operator(conv, (1, 4, 4))
    with pytest.raises(ValueError, match="square maps"):
        split_operator(conv, (2, 4, 6), "p4")
    with pytest.raises(ValueError, match="unknown group"):
        split_operator(conv, (2, 4, 4), "p5")
    with pytest.raises(ValueError, match="do not act on maps"):
        split_operator(conv, (2, 4, 4), Shifts((4, 4)))
    with pytest.raises(ValueError, match="no features over p4"):
        split_operator(conv, (2, 4, 4), "p4", lifted=(True, False))
    zero = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.zeros_(zero.weight)
    assert split_operator(zero, (1, 4, 4)).share != split_operator(zero, (1, 4, 4)).share
