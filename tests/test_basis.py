"""Basis functions: their values, gradients and layout, and when they are evaluated."""

from __future__ import annotations

import copy
import io
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import symlearn.basis as module
from symlearn.basis import (
    Basis,
    BasisOptions,
    evaluate,
    grid_sites,
    hyperparameters,
    initial_omega,
    spread,
)
from tests.paths.slow import slow_basis

pytestmark = pytest.mark.core
LEARNED = BasisOptions(learn_omega=True, learn_anchors=True)
sizes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)


class Counter:
    """Counts evaluations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(module, "evaluate", self)

    def __call__(self, *args: Tensor) -> Tensor:
        self.count += 1
        return evaluate(*args)


@settings(max_examples=30)
@given(size=sizes, share=st.floats(0.05, 1), omega=st.floats(0, 2))
def test_values_are_the_definition(size: tuple[int, ...], share: float, omega: float) -> None:
    basis = Basis(size, BasisOptions(share, omega)).double()
    assert basis.matrix().shape == (math.prod(size), math.ceil(share * math.prod(size)))
    torch.testing.assert_close(basis.matrix(), slow_basis(size, basis), rtol=0, atol=1e-13)


def separation(places: Tensor) -> float:
    """Distance of the closest two."""
    return float(torch.pdist(places).min())


@settings(max_examples=40)
@given(size=sizes, data=st.data())
def test_anchors_are_spread_evenly(size: tuple[int, ...], data: st.DataObject) -> None:
    """No site is farther from its anchor than the closest two anchors are from each other."""
    total = math.prod(size)
    count, seed = data.draw(st.integers(1, total)), data.draw(st.integers(0, 3))
    anchors = spread(size, count, seed)
    assert len({tuple(z) for z in anchors.tolist()}) == count
    assert torch.equal(anchors, spread(size, count, seed))
    everywhere = {tuple(p) for p in itertools.product(*map(range, size))}
    assert {tuple(map(int, z)) for z in anchors.tolist()} <= everywhere
    if count > 1:
        reach = torch.cdist(grid_sites(size), anchors).min(1).values.max()
        assert float(reach) <= separation(anchors) + 1e-12
    if count == total:
        assert torch.equal(anchors, grid_sites(size))


def test_half_of_a_small_window_is_a_quincunx() -> None:
    corners_and_middle = [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2]]
    assert spread((3, 3), 5).tolist() == corners_and_middle
    board = spread((5, 5), 13)
    assert set((board.sum(1) % 2).tolist()) == {0.0}


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (6, 5)])
def test_half_of_the_sites_are_not_crowded(size: tuple[int, int]) -> None:
    """No square of four neighbouring sites is full."""
    taken = torch.zeros(size)
    taken[tuple(spread(size, math.prod(size) // 2).long().T)] = 1
    squares = taken.unfold(0, 2, 1).unfold(1, 2, 1).sum((2, 3))
    assert float(squares.max()) < 4


def test_the_seed_decides_ties() -> None:
    layouts = {str(spread((6, 6), 7, seed).tolist()) for seed in range(6)}
    assert len(layouts) > 1


@pytest.mark.parametrize("count", [0, -1, 10])
def test_spread_refuses_other_numbers(count: int) -> None:
    with pytest.raises(ValueError, match=rf"{count} anchors on a grid of 9 positions; give 1 to 9"):
        spread((3, 3), count)


@pytest.mark.parametrize(
    ("anchors", "size", "count"),
    [
        (None, (3, 3), 5),
        (None, (1, 1), 1),
        (None, (32, 32), 512),
        (4, (3, 3), 4),
        (0.3, (3, 3), 3),
        (1.0, (5,), 5),
    ],
)
def test_number_of_anchors(anchors: Any, size: tuple[int, ...], count: int) -> None:
    """Half as many as sites, rounded upwards, unless said otherwise (paper, App. F.4)."""
    options = BasisOptions(anchors)
    assert options.count(size) == count
    assert Basis(size, options).matrix().shape == (math.prod(size), count)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"anchors": 0},
            ValueError,
            r"anchors is 0; give a whole number from 1.*share in \(0, 1\]",
        ),
        ({"anchors": -2}, ValueError, "anchors is -2"),
        ({"anchors": 1.5}, ValueError, "anchors is 1.5"),
        ({"anchors": math.nan}, ValueError, "anchors is nan"),
        ({"anchors": "half"}, TypeError, "anchors is 'half'"),
        ({"anchors": True}, TypeError, "anchors is True"),
        ({"omega": -1.0}, ValueError, "omega is -1.0; give a finite"),
        ({"omega": math.inf}, ValueError, "omega is inf"),
        ({"omega": math.nan}, ValueError, "omega is nan"),
        ({"control": "w"}, ValueError, r"unknown control 'w'; choose one of \['u', 'omega'\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BasisOptions(**options)


def test_too_many_anchors_names_the_range() -> None:
    (reason,) = BasisOptions(10).too_many("window", (3, 3))
    assert "anchors is 10" in reason
    assert "9 positions (3x3); give a whole number from 1 to 9" in reason
    assert not BasisOptions(9).too_many("window", (3, 3))


def test_neighbours_overlap_at_the_initial_omega() -> None:
    """Functions have fallen to 1/e at the mean distance of anchors; the basis is well posed."""
    assert initial_omega((4, 4), 16) == 1
    assert initial_omega((8, 8), 16) == 0.5
    assert initial_omega((9, 1), 3) == pytest.approx(1 / 3)
    assert initial_omega((1, 1), 1) == 1
    for size, share in itertools.product([(3, 3), (8, 8), (5, 2, 3)], [0.25, 0.5, 1.0]):
        phi = Basis(size, BasisOptions(share)).double().matrix()
        assert float(torch.linalg.cond(phi)) < 100


def test_gradients_and_second_gradients() -> None:
    basis = Basis((3, 2), LEARNED).double()
    sources = (basis.omega, basis.anchors)

    def known(omega: Tensor, anchors: Tensor) -> Tensor:
        values = evaluate(basis.sites, anchors, omega).detach()
        return module._Known.apply(basis.sites, anchors, omega, values)

    assert torch.autograd.gradcheck(known, sources)
    assert torch.autograd.gradgradcheck(known, sources)
    out = basis.matrix()
    slow = evaluate(basis.sites, basis.anchors, basis.omega)
    weights = torch.randn_like(out)
    for mine, wanted in zip(
        torch.autograd.grad((out * weights).sum(), sources),
        torch.autograd.grad((slow * weights).sum(), sources),
        strict=True,
    ):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-14)


def test_gradients_in_one_of_the_two() -> None:
    for options, grads in [
        (BasisOptions(learn_omega=True), {"omega"}),
        (BasisOptions(control="omega"), {"omega"}),
        (BasisOptions(learn_anchors=True), {"anchors"}),
        (BasisOptions(), set()),
    ]:
        basis = Basis((3, 3), options)
        out = basis.matrix()
        assert out.requires_grad == bool(grads)
        if grads:
            out.sum().backward()
        assert {name for name, p in basis.named_parameters() if p.grad is not None} == grads


def test_backward_twice_through_kept_values() -> None:
    """Two passes at the same omega: a graph that is kept would be gone after the first."""
    basis = Basis((3, 3), LEARNED)
    for _ in range(2):
        basis.matrix().sum().backward()
    with torch.no_grad():
        assert not basis.matrix().requires_grad


def test_evaluated_once_per_change(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, basis = Counter(monkeypatch), Basis((4, 4), LEARNED)
    for _ in range(3):
        basis.matrix()
    assert counter.count == 1
    changes = {
        "omega": lambda: basis.omega.add_(0.1),
        "anchors": lambda: basis.anchors.mul_(0.9),
        "state": lambda: basis.load_state_dict(Basis((4, 4), LEARNED).state_dict()),
        "dtype": lambda: basis.double(),
        "back": lambda: basis.float(),
        "assign": lambda: basis.load_state_dict(Basis((4, 4), LEARNED).state_dict(), assign=True),
    }
    for count, (name, change) in enumerate(changes.items(), start=2):
        with torch.no_grad():
            change()
        for _ in range(2):
            out = basis.matrix()
        assert counter.count == count, name
        torch.testing.assert_close(
            out, evaluate(basis.sites, basis.anchors, basis.omega), rtol=0, atol=1e-7, msg=name
        )


@pytest.mark.parametrize("options", [BasisOptions(), LEARNED], ids=["fixed", "learned"])
def test_an_optimiser_step_is_seen(options: BasisOptions) -> None:
    basis = Basis((3, 3), options)
    before = basis.matrix().detach().clone()
    if options.learn_omega:
        optimiser = torch.optim.SGD(basis.parameters(), lr=0.1)
        basis.matrix().square().sum().backward()
        optimiser.step()
    else:
        basis.omega.mul_(2)
    assert not torch.allclose(basis.matrix(), before)
    torch.testing.assert_close(
        basis.matrix(), evaluate(basis.sites, basis.anchors, basis.omega), rtol=0, atol=0
    )


@pytest.mark.parametrize("options", [BasisOptions(), LEARNED], ids=["fixed", "learned"])
def test_copies_are_independent(options: BasisOptions) -> None:
    basis = Basis((3, 3), options)
    basis.matrix()
    with torch.no_grad():
        basis.omega.mul_(3)  # what the copy takes along is out of date
    for other in (copy.deepcopy(basis), _pickled(basis)):
        torch.testing.assert_close(other.matrix(), basis.matrix(), rtol=0, atol=0)
        with torch.no_grad():
            other.omega.mul_(2)
        assert not torch.allclose(other.matrix(), basis.matrix())


def test_copies_leave_the_values_behind() -> None:
    basis = Basis((16, 16), BasisOptions())
    values = basis.matrix()
    file = io.BytesIO()
    torch.save(basis, file)
    assert file.tell() < values.numel()


def _pickled(basis: Basis) -> Basis:
    file = io.BytesIO()
    torch.save(basis, file)
    file.seek(0)
    loaded: Basis = torch.load(file, weights_only=False)
    return loaded


def test_state_holds_omega_and_places() -> None:
    state = Basis((3, 3), BasisOptions(omega=0.3, anchor_seed=1)).state_dict()
    assert set(state) == {"anchors", "omega"}
    other = Basis((3, 3), BasisOptions())
    other.load_state_dict(state)
    assert float(other.omega) == pytest.approx(0.3)
    assert set(Basis((3, 3), LEARNED).state_dict()) == set(state)


@pytest.mark.parametrize("options", [BasisOptions(), LEARNED], ids=["fixed", "learned"])
def test_inside_of_transforms_and_inference_mode(options: BasisOptions) -> None:
    basis = Basis((3, 3), options)
    with torch.inference_mode():
        seen = basis.matrix()
        torch.testing.assert_close(Basis((3, 3), options).matrix(), seen)
    out = basis.matrix()  # values made in inference mode must not spoil training
    (torch.randn(2, 9, requires_grad=True) @ out).sum().backward()
    assert out.requires_grad == options.learn_omega

    def total(omega: Tensor) -> Tensor:
        view = {"omega": omega}
        return torch.func.functional_call(_Call(basis), {f"basis.{k}": v for k, v in view.items()})

    slope = torch.func.grad(total)(torch.tensor(0.5))
    omega = torch.tensor(0.5, requires_grad=True)
    evaluate(basis.sites, basis.anchors, omega).sum().backward()
    torch.testing.assert_close(slope, omega.grad)
    torch.testing.assert_close(basis.matrix(), out)


class _Call(torch.nn.Module):
    """Sum of a basis' values, as a forward pass."""

    def __init__(self, basis: Basis) -> None:
        super().__init__()
        self.basis = basis

    def forward(self) -> Tensor:
        return self.basis.matrix().sum()


def test_hyperparameters_of_a_module() -> None:
    both = torch.nn.ModuleDict(
        {
            "a": Basis((3, 3), LEARNED),
            "b": Basis((3, 3), BasisOptions(control="omega")),
            "c": Basis((3, 3), BasisOptions()),
        }
    )
    assert hyperparameters(both) == {"a.anchors": None, "a.omega": None, "b.omega": "omega"}


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    Basis((5, 5), BasisOptions(anchor_seed=3)).matrix()
    assert torch.equal(torch.get_rng_state(), before)


def test_default_device_of_a_context() -> None:
    with torch.device("meta"):
        basis = Basis((3, 3), BasisOptions())
    assert basis.omega.device.type == "cpu"
    assert basis.to("meta").matrix().shape == (9, 5)
