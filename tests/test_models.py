"""Reference networks: they build, run, are reproducible, and have the paper's sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from symlearn import Circular, RelaxedLayer
from symlearn.groups import named
from symlearn.models import GROUP_KINDS, PAPER_KINDS, paper_cnn, small_cnn
from symlearn.paths import PATHS, as_specs
from symlearn.relaxed import relaxed_layers
from tests.shifts import assert_invariant, shifted

pytestmark = pytest.mark.core

# Table 6 with alpha = 10: channels in and out, map in and out, of the eight spatial layers
TABLE_6 = [
    (3, 10, 32, 32),
    (10, 20, 32, 16),
    (20, 20, 16, 16),
    (20, 40, 16, 8),
    (40, 40, 8, 8),
    (40, 80, 8, 4),
    (80, 80, 4, 2),
    (80, 160, 2, 1),
]
HEADS = 160 * 640 + 640 + 640 * 10 + 10
BIASES = sum(c_out for _, c_out, _, _ in TABLE_6)
WEIGHTS = {
    "conv": sum(9 * c * d for c, d, _, _ in TABLE_6),
    "fc": sum(c * d * (a * b) ** 2 for c, d, a, b in TABLE_6),
    "ffc": sum(c * d * (a * a + b * b) for c, d, a, b in TABLE_6),
    # half of the anchors, rounded upwards (App. F.4)
    "sconv": sum(5 * c * d for c, d, _, _ in TABLE_6),
    "sfc": sum(c * d * (-(-a * a // 2) - (-b * b // 2)) for c, d, a, b in TABLE_6),
}
# millions of parameters in Table 2; it gives FC+CONV as 133.9, the sum of the rounded parts
TABLE_2 = {
    **{"fc": 133.6, "conv": 0.3, "fc+conv": 133.8, "ffc": 1.5, "ffc+conv": 1.8},
    **{"sfc": 0.8, "sconv": 0.2, "sfc+sconv": 1.0},
}


def expected(kind: str) -> int:
    return sum(WEIGHTS[name] for name in kind.split("+")) + BIASES + HEADS


def test_the_table_read_row_by_row_has_the_sizes_of_table_2() -> None:
    assert {kind: round(expected(kind) / 1e6, 1) for kind in TABLE_2} == TABLE_2
    assert expected("conv") == 338_770  # Table 7, classical CNN


@pytest.mark.parametrize("kind", ["conv", "ffc", "ffc+conv", "sfc", "sconv", "sfc+sconv"])
def test_parameters_of_the_papers_network(kind: str) -> None:
    net = paper_cnn(kind)
    assert sum(p.numel() for p in net.parameters()) == expected(kind)
    rows = []
    for layer in relaxed_layers(net).values():
        geo = layer.geometry
        assert geo.in_size[0] == geo.in_size[1]
        rows.append((geo.in_channels, geo.out_channels, geo.in_size[0], geo.out_size[0]))
    assert rows == [*TABLE_6, (160, 640, 1, 1), (640, 10, 1, 1)]


def test_networks_of_shapes_only() -> None:
    """On the meta device nothing is allocated: FC would need half a gigabyte."""
    with torch.device("meta"):
        assert PATHS["fc"]().build(relaxed_layers(paper_cnn("conv"))["0"].geometry).tested().is_meta
    for kind in ("fc", "sfc+sconv"):
        with torch.device("meta"):
            net = paper_cnn(kind)
        assert all(p.is_meta for p in net.parameters())
        assert sum(p.numel() for p in net.parameters()) == expected(kind)


# Table 7, by kind and alpha
TABLE_7 = {
    ("gconv-full", 10): 1_025_380,
    ("gconv-separable", 10): 214_550,
    ("gconv-depthwise-separable", 10): 139_735 - 10,  # see below
    ("gconv-full", 6): 371_200,
    ("gconv-separable", 13): 358_463,
    ("gconv-depthwise-separable", 16): 346_215,
    ("gconv-pointwise", 10): 338_770,
    # Table 3: 1.2 M
    ("ffc+conv+gconv", 2): 1_235_122,
}


@pytest.mark.parametrize(("kind", "alpha"), TABLE_7)
def test_parameters_of_the_networks_on_p4(kind: str, alpha: int) -> None:
    with torch.device("meta"):
        net = paper_cnn(kind, alpha)
    assert sum(p.numel() for p in net.parameters()) == TABLE_7[kind, alpha]


def test_one_number_of_table_7_does_not_fit_the_others() -> None:
    """Beside pairs, heads and biases each input channel has 15 numbers at 16, not so at 10."""
    for alpha, total, fits in ((16, 346_215, True), (10, 139_735, False)):
        pairs = 3 * alpha + 254 * alpha**2
        heads, biases = 1024 * alpha**2 + 640 * alpha, 109 * alpha + 10
        inputs = 3 + 29 * alpha
        assert ((total - pairs - heads - biases) % inputs == 0) == fits


@pytest.mark.parametrize("kind", GROUP_KINDS)
def test_networks_on_p4_are_invariant(kind: str) -> None:
    net = paper_cnn(kind, alpha=1, in_channels=1, classes=4).double().eval()
    specs = GROUP_KINDS[kind]
    assert {n: m.specs for n, m in list(relaxed_layers(net).items())[:8]} == {
        f"{2 * i}.conv": specs for i in range(8)
    }
    x, p4 = torch.randn(2, 1, 32, 32, dtype=torch.float64), named("p4")
    out = net(x)
    assert out.detach().std() > 0
    moved = net(p4.act(x, 1).roll((3, 6), (2, 3)))
    torch.testing.assert_close(moved, out, rtol=0, atol=1e-10)
    out.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_predicted_parameters_of_the_full_network() -> None:
    """FC at full width has half a gigabyte of weights: count them without building them."""
    layers = list(relaxed_layers(paper_cnn("ffc")).values())[:8]
    assert sum(PATHS["fc"]().n_params(layer.geometry) for layer in layers) == WEIGHTS["fc"]


@pytest.mark.parametrize("kind", PAPER_KINDS)
def test_every_kind_builds_and_runs(kind: str) -> None:
    net = paper_cnn(kind, alpha=1, in_channels=1, classes=4)
    assert {n: tuple(m.paths) for n, m in relaxed_layers(net).items()} == {
        **{str(2 * i): tuple(s.name for s in as_specs(PAPER_KINDS[kind])) for i in range(8)},
        "16": ("conv",),
        "18": ("conv",),
    }
    out = net(torch.randn(3, 1, 32, 32))
    assert out.shape == (3, 4)
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
    same, other = (paper_cnn(kind, 1, 1, 4, seed=s).state_dict() for s in (0, 1))
    assert all(torch.equal(p, same[name]) for name, p in net.state_dict().items())
    assert any(not torch.equal(p, other[name]) for name, p in net.state_dict().items())


def test_free_paths_start_at_zero_beside_a_convolution_and_fresh_without() -> None:
    for kind, name, contributes in [
        ("ffc+conv", "ffc", False),
        ("ffc", "ffc", True),
        ("sfc+sconv", "sfc", False),
        ("sfc+sconv", "sconv", True),
        ("sfc", "sfc", True),
    ]:
        net = paper_cnn(kind, 1, 1, 4)
        paths = [net.get_submodule(str(2 * i)).path(name) for i in range(8)]
        assert {path.contributes() for path in paths} == {contributes}, (kind, name)


@pytest.mark.parametrize(("kind", "strict"), [("ffc+conv", "conv"), ("sfc+sconv", "sconv")])
def test_a_network_with_a_choice_starts_at_the_size_of_the_strict_one(
    kind: str, strict: str
) -> None:
    def size(name: str) -> float:
        layer = paper_cnn(name, 4, 1, 4).get_submodule("10")
        return float(layer.path(strict).filters().square().mean().sqrt())

    assert size(kind) == pytest.approx(size(strict), rel=0.1)


@pytest.mark.parametrize("boundary", ["circular", Circular("polyphase")])
def test_the_papers_network_is_invariant(boundary: str | Circular) -> None:
    net = paper_cnn("conv", 1, 1, 4, boundary=boundary).double().eval()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    expected = net(x)
    assert expected.std() > 1e-6
    for by in [(1, 0), (0, 1), (3, 7), (16, 16), (31, 5), (8, 30), (2, 2)]:
        torch.testing.assert_close(net(shifted(x, by)), expected, rtol=1e-10, atol=1e-14)


def test_other_boundaries_and_sizes() -> None:
    plain = paper_cnn("ffc+conv", 1, 1, 3, 64, boundary="keep")
    assert plain(torch.randn(2, 1, 64, 64)).shape == (2, 3)
    assert [n for n, m in plain.named_modules() if isinstance(m, RelaxedLayer)][-1] == "14"
    with pytest.raises(ValueError, match="multiple of 32"):
        paper_cnn("conv", size=48)
    with pytest.raises(ValueError, match=r"unknown kind 'cnn'.*'conv', 'fc', 'fc\+conv', 'ffc'"):
        paper_cnn("cnn")


def test_small_cnn() -> None:
    net = small_cnn(5, in_channels=2, width=3)
    x = torch.randn(4, 2, 16, 16)
    widths = [m.out_channels for m in net if isinstance(m, nn.Conv2d)]
    assert (widths, net(x).shape) == ([3, 6, 12, 12], (4, 5))
    assert not any(m.bias.any() for m in net if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert torch.equal(net(x), small_cnn(5, in_channels=2, width=3)(x))
    assert not torch.equal(net(x), small_cnn(5, in_channels=2, width=3, seed=1)(x))


def test_building_networks_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    paper_cnn("ffc+conv", 1, 1, 4)
    small_cnn(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_demo_network_is_invariant_once_circular() -> None:
    from symlearn import wrap

    net = small_cnn(5).double().eval()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert_invariant(wrap(net, x, boundary="circular"), x)
