"""How paths appear and disappear: starting at zero, being tested, seeded, and switched off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from symlearn.geometry import Geometry
from symlearn.paths import FC, FFC, SFC, Conv, LConv, SConv
from tests.paths.slow import conv_geometry

pytestmark = pytest.mark.core
SPECS = (Conv(), FC(), FFC(), LConv(2, rank=2), SConv(), SFC())
FACTORED = ("ffc", "sfc")
# weights that a factored path's first gradient does not reach
WAITING = {
    **dict.fromkeys(FACTORED, {"theta1.weight"}),
    "lconv": {f"terms.L{i}.{factor}.weight" for i in (1, 2) for factor in "UV"},
}
each_path = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def geometry(c_in: int, c_out: int, size: tuple[int, int], stride: int = 1) -> Geometry:
    return conv_geometry(nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1), size)


def samples(geo: Geometry, n: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Layer inputs and gradients at its outputs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, geo.in_channels, *geo.in_size), (n, geo.out_channels, *geo.out_size)
    x, g = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return x, g


def svd_oracle(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Leading left singular vectors [C', C, S'] and values [C', C] of the dense gradients."""
    dense = torch.einsum("ndy,ncx->dcyx", g.flatten(2), x.flatten(2))
    u, values, _ = torch.linalg.svd(dense, full_matrices=False)
    return u[..., 0], values[..., 0]


def assert_same_lines(found: Tensor, expected: Tensor, tolerance: float = 1e-7) -> None:
    """Check that unit vectors along the last axis are equal up to their signs."""
    torch.testing.assert_close(found.norm(dim=-1), torch.ones_like(found[..., 0]))
    signs = (found * expected).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(found * signs, expected, rtol=0, atol=tolerance)


@each_path
def test_life_of_a_path(spec: Any) -> None:
    geo = geometry(2, 3, (4, 4))
    path, (x, _) = spec.build(geo).double(), samples(geo, 2)
    path.reset_parameters(torch.Generator().manual_seed(0))
    assert path.enabled
    assert path.contributes()
    assert path(x).abs().max() > 0
    path.switch_off()
    assert not path.enabled
    assert not path.contributes()
    assert not any(p.requires_grad or p.any() for p in path.parameters())
    path.switch_on()
    assert path.enabled
    assert all(p.requires_grad for p in path.parameters())
    assert not path.contributes()
    path.start_at_zero(torch.Generator().manual_seed(0))
    assert not path.contributes()
    assert not path(x).any()


def test_half_of_a_factored_path_contributes_nothing() -> None:
    path = FFC().build(geometry(1, 1, (3, 3)))
    for factor in (path.theta1, path.theta2):
        nn.init.zeros_(path.theta1.weight)
        nn.init.zeros_(path.theta2.weight)
        nn.init.ones_(factor.weight)
        assert not path.contributes()


@each_path
def test_gradients_reach_every_weight_after_starting_at_zero(spec: Any) -> None:
    """At once, but some of a factored path's wait until the others move: an exact saddle."""
    geo = geometry(2, 3, (4, 4), stride=2)
    path, (x, target) = spec.build(geo).double(), samples(geo)
    path.start_at_zero(torch.Generator().manual_seed(0))
    for step in range(2):
        path.zero_grad()
        F.mse_loss(path(x), target).backward()
        reached = {name for name, p in path.named_parameters() if p.grad.any()}
        waiting = WAITING.get(spec.name, set()) if step == 0 else set()
        assert reached == {name for name, _ in path.named_parameters()} - waiting
        with torch.no_grad():
            for p in path.parameters():
                p -= 0.1 * p.grad


@each_path
def test_tested_is_a_weight_at_zero_after_a_proposal(spec: Any) -> None:
    geo = geometry(2, 3, (4, 4))
    path, (x, g) = spec.build(geo).double(), samples(geo)
    path.reset_parameters(torch.Generator().manual_seed(0))
    path.propose(x, g)
    assert any(path.tested() is p for p in path.parameters())
    assert not path.tested().any()
    assert not path(x).any()
    assert path.needs_direction() == (spec.name in WAITING)


@each_path
def test_seeding_lowers_the_loss(spec: Any) -> None:
    geo = geometry(2, 3, (4, 4), stride=2)
    path, (x, target) = spec.build(geo).double(), samples(geo)

    def loss() -> Tensor:
        return 0.5 * (path(x) - target).square().sum()

    before = float(loss().detach())
    path.propose(x, -target)
    (g,) = torch.autograd.grad(loss(), path.tested())
    path.seed(-g, 1e-3)
    after = float(loss().detach())
    assert path.contributes()
    assert after < before


def assert_of_one_size(map_a: Tensor, map_b: Tensor, rtol: float = 0.3) -> None:
    """Assert that two maps have about the same norm."""
    torch.testing.assert_close(map_a.norm(), map_b.norm(), rtol=rtol, atol=0)


# of an L-conv only one generator is seeded: tests/paths/test_lconv.py
@pytest.mark.parametrize("spec", [s for s in SPECS if s.name != "lconv"], ids=lambda s: s.name)
@pytest.mark.parametrize("smooth", [False, True], ids=["noise", "gradient"])
def test_seed_size_is_relative_to_a_fresh_path(spec: Any, smooth: bool) -> None:
    """A path seeded at size 1 has the size of a freshly drawn one; maps count, not weights.

    The gradient of smooth images is smooth: basis functions add up in it.
    """
    geo = geometry(4, 6, (5, 5))
    fresh, path, (x, g) = spec.build(geo).double(), spec.build(geo).double(), samples(geo)
    fresh.reset_parameters(torch.Generator().manual_seed(0))
    x = x.mean((2, 3), keepdim=True).expand_as(x) if smooth else x
    path.propose(x, g)
    descent = torch.randn_like(path.tested())
    if smooth:
        (descent,) = torch.autograd.grad((path(x) * g).sum(), path.tested())
    path.seed(descent, 1.0)
    units = torch.eye(100, dtype=torch.float64).reshape(100, 4, 5, 5)
    one, other = path(units), fresh(units)
    assert_of_one_size(one, other)
    for wrong in (2 * one, one / 2, torch.full_like(one, torch.nan)):
        with pytest.raises(AssertionError):
            assert_of_one_size(wrong, other)


def test_seeded_factors_are_balanced() -> None:
    geo = geometry(2, 2, (4, 4), stride=2)
    path, (x, g) = FFC().build(geo).double(), samples(geo)
    path.propose(x, g)
    path.seed(torch.randn_like(path.tested()), 0.1)
    norms = [factor.weight.norm(dim=-1) for factor in (path.theta1, path.theta2)]
    torch.testing.assert_close(*norms)


@pytest.mark.parametrize("make", SPECS, ids=lambda spec: spec.name)
def test_a_zero_descent_direction_gives_no_nan(make: Any) -> None:
    geo = geometry(2, 2, (4, 4))
    path, (x, g) = make.build(geo).double(), samples(geo)
    path.propose(x, g)
    path.seed(torch.zeros_like(path.tested()), 0.1)
    assert all(torch.isfinite(p).all() for p in path.parameters())


# S' and S at most 12: the search is exact; with few samples the gradient has few directions
@pytest.mark.parametrize(
    ("size", "stride", "n"),
    [((3, 4), 1, 30), ((6, 6), 2, 30), ((8, 8), 1, 9), ((1, 1), 1, 30), ((2, 2), 2, 30)],
    ids=["3x4", "6x6-halved", "few-samples", "S=S'=1", "S'=1"],
)
def test_proposal_is_the_leading_singular_vector(size: Any, stride: int, n: int) -> None:
    geo = geometry(3, 4, size, stride)
    path, (x, g) = FFC().build(geo).double(), samples(geo, n)
    path.propose(x, g)
    expected, _ = svd_oracle(x, g)
    assert_same_lines(path.theta1.weight.detach(), expected)


def test_proposal_when_only_the_input_has_one_site() -> None:
    conv = nn.Conv2d(3, 2, 1, padding=1)
    geo = conv_geometry(conv, (1, 1))
    assert (geo.in_sites, geo.out_sites) == (1, 9)
    path, (x, g) = FFC().build(geo).double(), samples(geo)
    path.propose(x, g)
    assert_same_lines(path.theta1.weight.detach(), svd_oracle(x, g)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_proposal_on_large_maps_finds_almost_all_of_the_gradient(
    dtype: torch.dtype, scale: float
) -> None:
    """White noise is the worst case: no singular value stands out."""
    geo = geometry(3, 4, (12, 12))
    path, (x, g) = FFC().build(geo).to(dtype), samples(geo, 300)
    path.propose(x.to(dtype), (scale * g).to(dtype))
    dense = torch.einsum("ndy,ncx->dcyx", g.flatten(2), x.flatten(2))
    u = path.theta1.weight.detach().double()
    captured = torch.einsum("dcyx,dcy->dcx", dense, u).norm(dim=-1) / svd_oracle(x, g)[1]
    assert float(captured.min()) > 0.97
    assert float(captured.max()) < 1 + 1e-5


def test_proposal_finds_a_direction_that_stands_out() -> None:
    geo = geometry(2, 2, (10, 10))
    x, g = samples(geo, 200)
    u, v = (torch.randn(100, dtype=torch.float64) for _ in range(2))
    strength = torch.randn(200, 1, 1, dtype=torch.float64)
    x, g = x.flatten(2) + strength * v, g.flatten(2) + strength * u
    path = FFC().build(geo).double()
    path.propose(x.reshape(200, 2, 10, 10), g.reshape(200, 2, 10, 10))
    assert_same_lines(path.theta1.weight.detach(), svd_oracle(x, g)[0], 1e-6)


def test_proposal_of_pairs_without_gradient_is_finite() -> None:
    geo = geometry(3, 4, (4, 4))
    x, g = samples(geo)
    x[:, 1], g[:, 2] = 0, 0
    x[10:, 0], g[:10, 0] = 0, 0  # never active together: both nonzero, their gradient zero
    path = FFC().build(geo).double()
    path.propose(x, g)
    theta1 = path.theta1.weight.detach()
    expected, values = svd_oracle(x, g)
    zero = torch.zeros(4, 3, dtype=torch.bool)
    zero[:, 1], zero[2], zero[0, 0] = True, True, True
    assert torch.equal(values < 1e-12, zero)
    torch.testing.assert_close(theta1.norm(dim=-1), torch.ones(4, 3, dtype=torch.float64))
    assert_same_lines(theta1[~zero], expected[~zero])
    path.propose(x * 0, g * 0)
    assert torch.isfinite(path.theta1.weight).all()


def test_proposal_sees_directions_that_smooth_starts_miss() -> None:
    """A gradient with a checkerboard only: orthogonal to constants and to slopes."""
    geo = geometry(1, 1, (4, 4))
    rows, cols = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    board = (1.0 - 2 * ((rows + cols) % 2)).double().reshape(1, 1, 4, 4)
    path = FFC().build(geo).double()
    path.propose(board, board)
    assert_same_lines(path.theta1.weight.detach(), board.reshape(1, 1, 16) / 4)


def test_proposal_is_repeatable() -> None:
    geo = geometry(2, 3, (6, 6))
    x, g = samples(geo)
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        path = FFC().build(geo).double()
        path.reset_parameters(torch.Generator().manual_seed(seed))
        path.propose(x, g)
        found.append(path.theta1.weight.detach().clone())
    assert torch.equal(*found)


class LargestResult(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize(("n", "c_in", "c_out", "size"), [(40, 20, 25, 8), (200, 8, 12, 8)])
def test_proposal_needs_little_memory(n: int, c_in: int, c_out: int, size: int) -> None:
    geo = geometry(c_in, c_out, (size, size))
    path, (x, g) = FFC().build(geo).double(), samples(geo, n)
    with LargestResult() as seen:
        path.propose(x, g)
    pairs, sites = c_in * c_out, geo.in_sites
    given = max(x.numel(), g.numel())
    assert seen.largest <= max(n * pairs, pairs * sites, given)
    assert seen.largest < pairs * sites * sites


def test_same_lines_can_fail() -> None:
    lines = F.normalize(torch.randn(2, 3, 5, dtype=torch.float64), dim=-1)
    assert_same_lines(-lines, lines)
    bad = lines.clone()
    bad[0, 0, 0] = float("nan")
    for wrong in (bad, 2 * lines, lines.roll(1, -1)):
        with pytest.raises(AssertionError):
            assert_same_lines(wrong, lines)
