"""L-conv: its map, its special cases, its generators one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.generators import AffineGenerator, FixedGenerator, derivative
from symlearn.paths import LConv
from tests.paths.cases import CONVS, geometries
from tests.paths.layers import drawn, geometry
from tests.paths.slow import _source, circular_geometry, conv_geometry, sites

pytestmark = pytest.mark.core


def line(c_in: int, c_out: int, length: int, **options: Any) -> nn.Conv1d:
    return nn.Conv1d(c_in, c_out, length, bias=False, **options).double()


def slow_window(geo: Any) -> dict[tuple[int, ...], Tensor]:
    """The matrix of each tap of the window, entry by entry."""
    ins, outs = list(sites(geo.in_size)), list(sites(geo.out_size))
    found = {}
    for tap in sites(geo.kernel_size):
        matrix = torch.zeros(len(outs), len(ins), dtype=torch.float64)
        for row, p in enumerate(outs):
            where = tuple(_source(geo, axis, p[axis], tap[axis]) for axis in range(len(p)))
            if None not in where:
                matrix[row, ins.index(where)] = 1
        found[tap] = matrix
    return found


def slow_lconv(terms: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """``sum_i L_i h W_i`` as Eq. 6 writes it: [L_i]_m^n h_n^c [W_i]_c^a, index by index."""
    out = torch.zeros(len(x), len(terms[0][1]), len(terms[0][0]), dtype=torch.float64)
    for matrix, w in terms:
        for a in range(len(w)):
            for m in range(len(matrix)):
                for c in range(w.shape[1]):
                    out[:, a, m] += w[a, c] * (x.flatten(2)[:, c] @ matrix[m])
    return out


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_lconv_is_eq_6(name: str, circular: bool) -> None:
    make, size = CONVS[name]
    conv = make().double()
    geo = circular_geometry(conv, size) if circular else conv_geometry(conv, size)
    path = drawn(LConv(2, rank=1), geo)
    window = slow_window(geo)
    middle = window[tuple((k - 1) // 2 for k in geo.kernel_size)]
    terms = [(middle, path.terms["I"].W.weight.detach())]
    for key in ("L1", "L2"):
        term = path.terms[key]
        terms.append(((term.U.weight @ term.V.weight).detach(), term.W.weight.detach()))
        torch.testing.assert_close(path.generator(key), terms[-1][0])
    x = torch.randn(2, geo.in_channels, *size, dtype=torch.float64)
    expected = slow_lconv(terms, x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(path(x).flatten(2), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.generator("I"), middle)


@pytest.mark.parametrize(("name", "circular"), geometries())
def test_shift_generators_are_a_convolution(name: str, circular: bool) -> None:
    """Proposition 4, for every padding, stride, dilation and channel groups."""
    make, size = CONVS[name]
    conv = make().double()
    geo = circular_geometry(conv, size) if circular else conv_geometry(conv, size)
    path = LConv(1, rank=1, fixed=("window",)).build(geo).double()
    assert len(path.terms) == geo.window + 1
    moves = circular and max(geo.stride) > 1
    assert path.adopt(conv) != moves
    if moves:
        return
    x = torch.randn(2, geo.in_channels, *size, dtype=torch.float64)
    taps = slow_window(geo)
    weight = conv.get_parameter("weight").detach()
    per_in, per_out = geo.in_channels // geo.groups, geo.out_channels // geo.groups
    expected = torch.zeros(2, geo.out_channels, geo.out_sites, dtype=torch.float64)
    for tap, matrix in taps.items():
        for o in range(geo.out_channels):
            for c in range(per_in):
                read = x.flatten(2)[:, o // per_out * per_in + c] @ matrix.T
                expected[:, o] += weight[(o, c, *tap)] * read
    torch.testing.assert_close(path(x).flatten(2), expected, rtol=0, atol=1e-10)
    found = path.filters()
    if geo.groups == 1:
        torch.testing.assert_close(found, weight, rtol=0, atol=0)
    else:
        assert found is None
    path.terms["L1"].draw(1.0, torch.Generator().manual_seed(0))
    assert path.filters() is None


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (line(2, 3, 5, padding=2), (9,)),
        (line(2, 3, 4, padding=1, padding_mode="circular"), (7,)),
        (nn.Conv2d(2, 3, 3, padding=1, bias=False).double(), (5, 6)),
        (nn.Conv2d(3, 2, (2, 3), stride=2, padding=1, bias=False).double(), (6, 5)),
    ],
    ids=["1d", "1d-circular", "2d", "2d-strided"],
)
def test_proposition_4_against_torch(conv: Any, size: tuple[int, ...]) -> None:
    geo = conv_geometry(conv, size)
    path = LConv(0, fixed=("window",)).build(geo).double()
    assert path.adopt(conv)
    x = torch.randn(3, geo.in_channels, *size, dtype=torch.float64)
    torch.testing.assert_close(path(x), conv(x), rtol=0, atol=1e-10)


def test_an_adjacency_matrix_gives_a_graph_convolution() -> None:
    """Proposition 5 and Kipf and Welling's propagation rule ``D^-1/2 (A + I) D^-1/2 H W``."""
    torch.manual_seed(0)
    edges = (torch.rand(6, 6) < 0.4).double().triu(1)
    loops = edges + edges.T + torch.eye(6, dtype=torch.float64)
    scale = loops.sum(1).rsqrt()
    rule = scale[:, None] * loops * scale
    geo = conv_geometry(nn.Conv1d(2, 4, 1), (6,))
    spec = LConv(0, fixed=(FixedGenerator.of("graph", rule),), identity=False)
    h, w = torch.randn(3, 6, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    path = spec.build(geo).double()
    path.terms["graph"].W.weight.data = w
    expected = rule @ h @ w.T  # nodes x features
    torch.testing.assert_close(path(h.mT).mT, expected, rtol=0, atol=1e-10)
    # as the flow that A - I generates, with the same weights for L_0 and L_1
    flow = FixedGenerator.of("flow", rule - torch.eye(6, dtype=torch.float64))
    path = LConv(0, fixed=(flow,)).build(geo).double()
    for term in path.terms.values():
        term.W.weight.data = w
    torch.testing.assert_close(path(h.mT).mT, expected, rtol=0, atol=1e-10)


def test_one_hot_generators_give_a_fully_connected_layer() -> None:
    """Proposition 3: gl(d) one-hot generators, then a sum over sites."""
    d, m = 4, 3
    torch.manual_seed(0)
    layer = nn.Linear(d, m).double()
    one_hot = torch.eye(d * d, dtype=torch.float64).reshape(-1, d, d)
    fixed = tuple(FixedGenerator.of(f"E{i}", matrix) for i, matrix in enumerate(one_hot))
    geo = conv_geometry(nn.Conv1d(1, m, 1), (d,))
    path = LConv(0, fixed=fixed, identity=False).build(geo).double()
    for i, (row, column) in enumerate((r, c) for r in range(d) for c in range(d)):
        # W_(row, column)^b = w_b^column, the same for all rows; rows are divided out by the sum
        path.terms[f"E{i}"].W.weight.data = layer.weight.data[:, [column]] * float(row == column)
    h = torch.randn(5, d, dtype=torch.float64)
    pooled = path(h.unsqueeze(1)).sum(2) + layer.bias
    torch.testing.assert_close(pooled, layer(h), rtol=0, atol=1e-10)
    # without pooling, with a channel per output: any matrix over sites
    wide = torch.randn(d, d, dtype=torch.float64)
    geo = conv_geometry(nn.Conv1d(1, 1, 1), (d,))
    path = LConv(0, fixed=fixed, identity=False).build(geo).double()
    for i, value in enumerate(wide.flatten()):
        path.terms[f"E{i}"].W.weight.data = value.reshape(1, 1)
    torch.testing.assert_close(path(h.unsqueeze(1))[:, 0], h @ wide.T, rtol=0, atol=1e-10)


def test_composed_layers_approach_a_group_convolution() -> None:
    """Proposition 2: l layers ``I + t/l L`` approach ``exp(t L)`` with an error of order 1/l.

    Its constant is that of ``(1 + z/l)^l = e^z (1 - z^2/2l + ...)``: ``-t^2/2l L^2 exp(t L)``.
    """
    t, size = 1.7, (9,)
    generator = -derivative(9)
    geo = conv_geometry(nn.Conv1d(1, 1, 1), size)
    h = torch.randn(4, 1, 9, dtype=torch.float64)
    exact = h @ torch.linalg.matrix_exp(t * generator).T
    leading = -(t**2) / 2 * exact @ (generator @ generator).T
    errors = []
    for depth in (64, 128, 256, 512):
        path = LConv(0, fixed=("translation_x",)).build(geo).double()
        path.terms["I"].W.weight.data.fill_(1.0)
        path.terms["translation_x"].W.weight.data.fill_(t / depth)
        out = h
        for _ in range(depth):
            out = path(out)
        errors.append(float((out - exact).detach().norm()))
        rest = float(((out.detach() - exact) * depth - leading).norm() / leading.norm())
        assert rest < 20 / depth
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(order - 1) < 0.05 for order in orders), orders


def test_a_group_convolution_is_a_sum_of_compositions() -> None:
    """The last step of Proposition 2: kernel values aggregate the group elements."""
    geo = conv_geometry(nn.Conv1d(1, 1, 1), (9,))
    kernel = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)  # g(u) at shifts 0, 1, 2
    h = torch.randn(4, 1, 9, dtype=torch.float64)
    expected = sum(k * h.roll(i, 2) for i, k in enumerate(kernel))
    errors = []
    for depth in (256, 512):
        path = LConv(0, fixed=("translation_x",)).build(geo).double()
        path.terms["I"].W.weight.data.fill_(1.0)
        path.terms["translation_x"].W.weight.data.fill_(1 / depth)
        found, moved = kernel[0] * h, h
        for k in kernel[1:]:
            for _ in range(depth):
                moved = path(moved)
            found = found + k * moved
        errors.append(float((found.detach() - expected).norm() / expected.norm()))
    assert errors[1] < 0.05
    assert abs(errors[0] / errors[1] - 2) < 0.1


@pytest.mark.parametrize("name", ["rotation", "translation_y"])
def test_named_generators_move_maps(name: str) -> None:
    geo = geometry(1, 1, (5, 4))
    path = LConv(0, fixed=(name,), identity=False).build(geo).double()
    path.terms[name].W.weight.data.fill_(1.0)
    x = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    expected = AffineGenerator(name, (5, 4)).apply(x)
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


def test_generators_of_strided_layers_are_read_at_the_output_sites() -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    geo = conv_geometry(conv, (6, 5))
    user = torch.randn(30, 30, dtype=torch.float64)
    spec = LConv(0, fixed=("rotation", FixedGenerator.of("mine", user)))
    path = spec.build(geo).double()
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64)
    for name, full in (("rotation", AffineGenerator("rotation", (6, 5)).matrix()), ("mine", user)):
        for term in path.terms.values():
            nn.init.zeros_(term.W.weight)
        path.terms[name].W.weight.data.fill_(1.0)
        expected = (x.flatten(2) @ full.T).reshape(2, 1, 6, 5)[..., ::2, ::2]
        torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_large_maps_use_sparse_generators(dense: bool) -> None:
    geo = geometry(1, 2, (36, 36))
    spec = LConv(0, fixed=("rotation",), dense=dense)
    path = drawn(spec, geo)
    sites: Any = path.terms["rotation"].sites
    assert (sites.dense is not None) == dense
    if dense:
        assert spec.fixed_elements(geo) == sites.dense.numel()
        # refused before anything of that size is built
        net, x = nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 300, 300)
        with pytest.raises(ValueError, match="the paths need .* GiB in all"):
            symlearn.wrap(net, x, paths=spec)
    else:
        assert 36**4 > spec.fixed_elements(geo) >= 5 * len(sites.values)
    x = torch.randn(2, 1, 36, 36, dtype=torch.float64, requires_grad=True)
    turned = AffineGenerator("rotation", (36, 36)).apply(x)
    w, w0 = path.terms["rotation"].W.weight, path.terms["I"].W.weight
    expected = w.reshape(1, 2, 1, 1) * turned + w0.reshape(1, 2, 1, 1) * x
    torch.testing.assert_close(path(x), expected, rtol=0, atol=1e-9)
    (mine,) = torch.autograd.grad(path(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-8)
