"""The check of verdicts: trained operators and shift errors against dense, slow oracles."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import FitConfig
from symlearn.audit import as_transformations, measure
from symlearn.fit.check import (
    SharedShifts,
    check_report,
    checked_after_fit,
    operator_shares,
    without,
)
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.report import LayerStructure, StructureReport
from tests.fit.problems import blobs, tiny_relaxed
from tests.report import samples

pytestmark = pytest.mark.core


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(conv: nn.Module, *size: int, boundary: str = "keep") -> RelaxedLayer:
    """A relaxed layer in double precision whose paths all have random weights."""
    channels: int = conv.in_channels  # type: ignore[assignment]
    model = symlearn.wrap(nn.Sequential(conv), torch.zeros(1, channels, *size), boundary=boundary)
    layer = relaxed_layers(model)["0"].double()
    layer.reset_parameters(generator())
    return layer


def constant(layer: RelaxedLayer) -> RelaxedLayer:
    """The layer with a free path that writes the same everywhere, of the mean of what it reads."""
    with torch.no_grad():
        for p in layer.path("ffc").parameters():
            p.copy_(p.mean(2, keepdim=True).expand_as(p))
    return layer


# --- The operator ---


def dense(layer: RelaxedLayer, names: list[str]) -> Tensor:
    """The matrix of some paths, [D', D]."""
    shape = (layer.geometry.in_channels, *layer.geometry.in_size)
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return torch.stack([layer.path(n)(eye).flatten(1).T for n in names]).sum(0)


def averaged(matrix: Tensor, layer: RelaxedLayer, orders: tuple[int, ...]) -> Tensor:
    """The matrix averaged over all shifts, moved on both sides."""
    geo = layer.geometry
    shapes = (geo.out_channels, *geo.out_size), (geo.in_channels, *geo.in_size)
    t = matrix.reshape(*shapes[0], *shapes[1])
    n = len(geo.in_size)
    total = torch.zeros_like(t)
    for index in itertools.product(*map(range, orders)):
        out = [i * s // o for i, s, o in zip(index, geo.out_size, orders, strict=True)]
        read = [i * s // o for i, s, o in zip(index, geo.in_size, orders, strict=True)]
        total += t.roll([*out, *read], (*range(1, n + 1), *range(n + 2, 2 * n + 2)))
    return total.reshape(matrix.shape) / math.prod(orders)


CASES = {
    "circular": (nn.Conv2d(2, 3, 3, padding=1), (4, 4), "circular", (4, 4)),
    "zero padding": (nn.Conv2d(2, 3, 3, padding=1), (4, 6), "keep", (4, 6)),
    "stride": (nn.Conv2d(2, 3, 3, padding=1, stride=2), (8, 8), "keep", (4, 4)),
    "aligned stride": (nn.Conv2d(2, 3, 3, padding=1, stride=2), (8, 8), "circular", (4, 4)),
    "to one pixel": (nn.Conv2d(2, 3, 4), (4, 4), "keep", (4, 4)),
    "aligned to one pixel": (
        *(nn.Conv2d(2, 3, 3, padding=1, stride=2), (2, 2)),
        *("circular", (2, 2)),
    ),
    "one axis": (nn.Conv1d(2, 3, 3, padding=1), (6,), "keep", (6,)),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_shares_are_those_of_the_dense_matrix(name: str) -> None:
    conv, size, boundary, orders = CASES[name]
    layer = layer_of(conv, *size, boundary=boundary)
    whole, free = dense(layer, ["conv", "ffc"]), dense(layer, ["ffc"])
    norm = float(whole.square().sum())
    loose = float((free - averaged(free, layer, orders)).square().sum()) / norm
    rest = float((whole - averaged(whole, layer, orders)).square().sum()) / norm
    commuting = 1 - (loose if layer.align is not None else rest)
    with torch.no_grad():
        found = torch.tensor([operator_shares(layer, generator(seed)) for seed in range(4)])
    error = found.double().std(0) / 4**0.5
    difference = (found.mean(0) - torch.tensor([commuting, loose])).abs()
    assert bool((difference <= 5 * error + 1e-9).all())
    assert bool((error < 0.03).all())


def test_exact_on_constructed_layers() -> None:
    circular = layer_of(nn.Conv2d(2, 3, 3, padding=1), 4, 4, boundary="circular")
    with torch.no_grad():
        with without(circular.path("ffc")):
            commuting, breaking = operator_shares(circular, generator())
        assert breaking == 0
        assert commuting == pytest.approx(1, abs=1e-12)
        # a free path is there, but commutes
        commuting, breaking = operator_shares(constant(circular), generator())
        assert breaking == pytest.approx(0, abs=1e-12)
        assert commuting == pytest.approx(1, abs=1e-12)


def test_shares_are_unknown_where_nothing_can_be_moved() -> None:
    odd = layer_of(nn.Conv2d(1, 2, 3), 5, 5)  # from 5 to 3 pixels
    empty = layer_of(nn.Conv2d(1, 2, 3, padding=1), 4, 4)
    for path in empty.named_paths().values():
        path.switch_off()
    for layer in (odd, empty):
        assert all(map(math.isnan, operator_shares(layer, generator())))


def test_shifts_are_different_and_undone() -> None:
    shifts = SharedShifts((8, 6), (4, 6))
    assert (shifts.orders, shifts.order) == ((4, 6), 24)
    drawn = shifts.draw(100, generator(), first=1)
    assert {tuple(g) for g in drawn.tolist()} == set(itertools.product(range(4), range(6))) - {
        (0, 0)
    }
    x, y = torch.randn(2, 1, 8, 6), torch.randn(2, 1, 4, 6)
    for g in drawn[:5]:
        assert torch.equal(shifts.move(x, g).roll((-2 * int(g[0]), -int(g[1])), (2, 3)), x)
        assert torch.equal(shifts.move(y, g, back=True).roll((int(g[0]), int(g[1])), (2, 3)), y)


# --- The network ---


def told(model: nn.Module, shares: dict[str, float]) -> StructureReport:
    """A report that gives the free paths of a network these shares."""
    layers = [
        LayerStructure.of(
            name,
            {
                "conv": samples.path(normalised=1 - shares.get(name, 0.0)),
                "ffc": samples.path(on=name in shares, normalised=shares.get(name, 0.0)),
            },
        )
        for name in relaxed_layers(model)
    ]
    return samples.report(*layers)


def with_free(*layers: str, seed: int = 1) -> nn.Module:
    """The tiny circular network, in which some layers have a free path."""
    model = tiny_relaxed(4).double()
    for name, layer in relaxed_layers(model).items():
        layer.path("ffc").switch_off()
        if name in layers:
            layer.path("ffc").switch_on()
            layer.path("ffc").reset_parameters(generator(seed))
    return model.eval()


def x_of(n: int = 12) -> Tensor:
    return blobs(n, place=True)[0].double()


def slow_errors(model: nn.Module, x: Tensor) -> Tensor:
    """The shift error of each image over all shifts, and all pairs of different images."""
    with torch.no_grad():
        y = model(x)
        pairs = (y.unsqueeze(0) - y.unsqueeze(1)).square().sum(2).sum() / (len(y) * (len(y) - 1))
        moves = [(i, j) for i in range(8) for j in range(8) if (i, j) != (0, 0)]
        moved = [(model(x.roll(g, (2, 3))) - y).square().sum(1) for g in moves]
    errors: Tensor = torch.stack(moved).mean(0) / pairs
    return errors


def test_shift_error_is_that_of_all_shifts_and_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["symlearn.fit.check"], "_SHIFTS", 64)
    model, x = with_free("2"), x_of()
    check = check_report(told(model, {"2": 0.3}), model, x)["2"].checks[0]
    errors = slow_errors(model, x)
    assert check.shift_error == pytest.approx(float(errors.mean()), rel=1e-9)
    with without(relaxed_layers(model)["2"].path("conv")):
        expected = float(slow_errors(model, x).mean())
    assert {r.paths: r.shift_error for r in check.removals} == {
        "conv": pytest.approx(expected, rel=1e-9),
        "ffc": pytest.approx(0, abs=1e-20),
    }
    # nothing is left without it, so each image's drop is its error
    assert check.drop == pytest.approx(check.shift_error)
    assert check.drop_error == pytest.approx(float(errors.std() / len(x) ** 0.5), rel=1e-9)
    assert check.outcome == "agree"


def test_images_like_any_other_have_error_one() -> None:
    """Shifting white noise is as good as drawing anew."""
    x = torch.randn(200, 1, 6, 6, generator=generator(), dtype=torch.float64)
    report = samples.report(LayerStructure.of("0", {"conv": samples.path()}))
    # where outputs are maps they are moved back
    for tail, expected in ((nn.Flatten(), 1.0), (nn.Identity(), 0.0)):
        net = nn.Sequential(nn.Conv2d(1, 1, 1), tail).double()
        model = symlearn.wrap(net, x[:1], paths="conv")
        check = check_report(report, model, x, images=200)["0"].checks[0]
        assert check.shift_error == pytest.approx(expected, abs=0.02 * expected + 1e-20)


@pytest.mark.parametrize("flat", [False, True])
def test_inputs_that_are_no_images(flat: bool) -> None:
    """A signal has shifts and no LEE; a vector that the network folds has neither."""
    folds = [nn.Unflatten(1, (1, 8))] if flat else []
    net = nn.Sequential(*folds, nn.Conv1d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(10, 8) if flat else torch.randn(10, 1, 8)
    model = symlearn.wrap(net, x[:1])
    layer = relaxed_layers(model)[str(len(folds))]
    layer.path("ffc").reset_parameters(generator())
    check = check_report(told(model, {str(len(folds)): 0.3}), model, x).layers[0].checks[0]
    assert math.isnan(check.lee)
    assert math.isnan(check.shift_error) == flat
    assert math.isnan(check.drop) == flat
    assert check.breaking_share > 0.01


def test_lee_is_that_of_the_audit() -> None:
    model, x = with_free("2"), x_of()
    check = check_report(told(model, {"2": 0.3}), model, x)["2"].checks[0]
    axes = as_transformations(("translation_x", "translation_y"))
    with torch.no_grad():
        expected = sum(measure(model, x, axis).mean_square for axis in axes) / 2
        with without(relaxed_layers(model)["2"].path("ffc")):
            after = sum(measure(model, x, axis).mean_square for axis in axes) / 2
    assert check.lee == pytest.approx(expected, rel=1e-9)
    assert {r.paths: r.lee for r in check.removals}["ffc"] == pytest.approx(after, rel=1e-9)


def test_a_free_path_that_computes_a_convolution_is_a_disagreement() -> None:
    model = with_free("2")
    constant(relaxed_layers(model)["2"])
    report = check_report(told(model, {"2": 0.3}), model, x_of())
    assert report["2"].verdict == "conv+ffc"
    assert report["2"].checks[0].outcome == "disagree"
    assert report["2"].supported == "undecided"
    assert report["0"].checks[0].outcome == "agree"


def test_a_break_that_the_evidence_does_not_see_is_a_disagreement() -> None:
    model = with_free("2")
    report = check_report(told(model, {"2": 0.001}), model, x_of())
    assert report["2"].verdict == "conv"
    assert report["2"].checks[0].outcome == "disagree"


def test_a_layer_is_not_excused_by_another_one_that_breaks_too() -> None:
    """Without one free path the other still breaks; alone, each is seen to."""
    model = with_free("0", "2")
    report = check_report(told(model, {"0": 0.3, "2": 0.3}), model, x_of(32))
    assert [layer.checks[0].outcome for layer in report] == ["agree", "agree"]
    assert all(layer.checks[0].drop > 0.1 for layer in report)


def test_a_layer_of_free_paths_alone_has_no_vote_of_the_network() -> None:
    model = with_free("2")
    relaxed_layers(model)["2"].path("conv").switch_off()
    check = check_report(told(model, {"2": 1.0}), model, x_of())["2"].checks[0]
    assert math.isnan(check.drop)
    assert check.removals == ()
    assert check.outcome == "agree"  # evidence and operator


def test_a_check_leaves_the_network_as_it_is() -> None:
    model = with_free("2").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(p.requires_grad, m.training) for m in model.modules() for p in m.parameters(False)]
    paths = [p.enabled for layer in relaxed_layers(model).values() for p in layer.paths.values()]
    with pytest.raises(ValueError, match="NaN"):
        check_report(told(model, {"2": 0.3}), model, torch.full((4, 1, 8, 8), math.nan))
    check_report(told(model, {"2": 0.3}), model, x_of())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert flags == [
        (p.requires_grad, m.training) for m in model.modules() for p in m.parameters(False)
    ]
    assert paths == [
        p.enabled for layer in relaxed_layers(model).values() for p in layer.paths.values()
    ]


def test_a_path_that_is_off_stays_off() -> None:
    conv, ffc = relaxed_layers(with_free())["2"].named_paths().values()
    with without(conv, ffc):
        assert not conv.enabled
    assert (conv.enabled, ffc.enabled) == (True, False)


def test_the_same_seed_gives_the_same_check() -> None:
    model, x = with_free("2"), x_of()
    report = told(model, {"2": 0.3})
    first, again, other = (check_report(report, model, x, seed=s) for s in (0, 0, 1))
    assert first == again != other


# --- In a fit ---


def test_an_evidence_fit_checks_itself() -> None:
    data = blobs(60, place=True)
    config = FitConfig(epochs=2, burn_in=0.0, progress=False)
    for changes, n_checks in (({}, 1), ({"check_images": 0}, 0), ({"objective": "map"}, 0)):
        result = symlearn.fit(tiny_relaxed(4), data, replace(config, **changes))
        assert [len(layer.checks) for layer in result.report] == [n_checks] * 2
    again = result.check(data, images=20)
    assert all(layer.checks for layer in again)
    assert all(not layer.checks for layer in result.report)
    for bad, message in ((data[0][:1], "at least 2, got 1"), (torch.ones(()), "shape")):
        with pytest.raises(ValueError, match=message):
            result.check(bad)
    with pytest.raises(ValueError, match="images is 1; give a whole number of at least 2"):
        result.check(data, images=1)


def test_a_network_that_cannot_be_checked_says_so() -> None:
    model, x = with_free("2"), x_of(4)
    with torch.no_grad():
        model[6].weight[0, 0] = math.nan  # type: ignore[index]
    report = told(model, {"2": 0.3})
    checked = checked_after_fit(report, model, [(x, torch.zeros(4))], 64)
    assert checked.layers == report.layers
    assert "NaN or infinite" in str(checked.meta["check"])
    assert checked_after_fit(report, model, [(x[:1], torch.zeros(1))], 64) is report


def test_vectors_have_nothing_to_check() -> None:
    from symlearn.groups import SO, Scalar, V

    group = SO(2)
    x, y = torch.randn(20, 2), torch.randn(20, 1)
    model = symlearn.relaxed_mlp(V(group), Scalar(group), group, width=8, depth=1)
    config = symlearn.FitConfig(epochs=1, likelihood="gaussian", progress=False)
    result = symlearn.fit(model, (x, y), config)
    assert all(layer.checks == () for layer in result.report)
    with pytest.raises(ValueError, match="all relaxed layers are between vectors"):
        result.check(x)


def test_a_brief_check_measures_the_network_and_leaves_out_its_parts() -> None:
    x, _ = blobs(12)
    model = tiny_relaxed(4).eval()
    report = told(model, {"2": 0.3})
    (brief,) = check_report(report, model, x, brief=True)["2"].checks
    (whole,) = check_report(report, model, x)["2"].checks
    assert (brief.shift_error, brief.lee) == (whole.shift_error, whole.lee)
    assert brief.removals == ()
    assert math.isnan(brief.drop)
    assert 0 <= brief.breaking_share <= 1
