"""Contributions of modules: Eq. 4.6 by hand, additivity, standard errors, nothing left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.audit import (
    NotFiniteError,
    Probing,
    Transformation,
    as_transformations,
    attribute,
    lie_derivative,
    measure,
)
from symlearn.audit.attribution import Attribution
from symlearn.audit.layouts import Layouts, output_layout
from tests.conftest import need

pytestmark = pytest.mark.core


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).double()


def images(n: int = 3, size: int = 8) -> Tensor:
    return torch.randn(n, 2, size, size, dtype=torch.float64)


def by_hand(net: nn.Sequential, x: Tensor, transform: Transformation) -> list[Tensor]:
    """``df_{N:i+1} L f_i`` of each layer, by forward-mode derivatives of the layers."""
    contributions = []
    for i, layer in enumerate(net):
        v = net[:i](x.clone())
        layout = output_layout(v, "auto")
        y, moved = torch.func.jvp(layer, (v.clone(),), (layout.derive(v, transform.generator),))
        lie = moved - output_layout(y, "auto").derive(y, transform.generator)
        rest = net[i + 1 :]
        contributions.append(torch.func.jvp(rest, (y,), (lie,))[1] if len(rest) else lie)
    return contributions


@pytest.mark.parametrize("name", ["translation_x", "rotation", "shear"])
def test_contributions_are_those_of_eq_4_6(name: str) -> None:
    net, x = chain(), images()
    (transform,) = as_transformations(name)
    with torch.no_grad():
        expected = by_hand(net, x, transform)
    (table,) = attribute(net, x, [transform])
    assert table.exact
    for i, c in enumerate(expected):
        row = table[str(i)]
        assert row.mean_square == pytest.approx(float(c.square().sum(1).mean()) / 5, abs=1e-12)
        assert row.norm == pytest.approx(float(c.norm(dim=1).mean()), abs=1e-9)
    total = lie_derivative(net, x, transform)
    torch.testing.assert_close(sum(expected), total, rtol=0, atol=1e-10)
    share = float((expected[0] * total).sum() / total.square().sum())
    assert table["0"].share == pytest.approx(share, abs=1e-9)
    assert table[""].mean_square == pytest.approx(0, abs=1e-20)  # a chain does nothing of its own


def check_adds_up(net: nn.Module, x: Tensor, table: Attribution, transform: Transformation) -> None:
    found = measure(net, x, transform)
    spread = 5 * table.probe_error + 1e-4 * found.mean_square
    assert abs(table.mean_square - found.mean_square) <= spread
    assert sum(row.share for row in table.measured) == pytest.approx(1, abs=1e-4)


def test_a_network_with_many_outputs_takes_probes() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    net, x = net.double(), images(6)
    transforms = as_transformations(("translation_x", "rotation"))
    with torch.no_grad():
        expected = [by_hand(net, x, t) for t in transforms]
    tables = attribute(net, x, transforms, probing=Probing(tolerance=0.1, seed=1))
    for table, transform, contributions in zip(tables, transforms, expected, strict=True):
        assert not table.exact
        assert 8 <= table.n_probes < 100
        check_adds_up(net, x, table, transform)
        for i, c in enumerate(contributions):
            row, true = table[str(i)], float(c.flatten(1).square().mean())
            assert row.probe_error <= 0.1 * row.mean_square
            assert abs(row.mean_square - true) <= 5 * row.probe_error
            assert row.standard_error > 0


def test_the_standard_error_is_that_of_repeated_probes() -> None:
    net, x = nn.Conv2d(2, 6, 3, padding=1).double(), images(2)
    transforms = as_transformations("rotation")
    runs = [
        attribute(net, x, transforms, probing=Probing(tolerance=0.2, seed=100 * s))[0][""]
        for s in range(40)
    ]
    spread = torch.tensor([r.mean_square for r in runs]).std()
    stated = torch.tensor([r.probe_error for r in runs]).square().mean().sqrt()
    assert float(spread / stated) == pytest.approx(1, abs=0.4)


def test_batches_do_not_matter() -> None:
    net, x = chain(), images(5)
    transforms = as_transformations("rotation")
    (whole,), (parts,) = (attribute(net, x, transforms, memory_gb=gb) for gb in (1, 1e-6))
    for a, b in zip(whole.rows, parts.rows, strict=True):
        assert (a.mean_square, a.share) == pytest.approx((b.mean_square, b.share), abs=1e-12)


def test_probes_of_all_batches_count() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()).double()
    x, transforms = images(20), as_transformations("rotation")
    probing = Probing(tolerance=0.2)
    (parts,) = attribute(net, x, transforms, probing=probing, memory_gb=1e-9)
    assert parts.n_probes < 60  # one image by itself would need the most there may be
    assert parts.probe_error < 0.3 * parts.mean_square


class Busy(nn.Module):
    """Residual, shared, unused, constant and functional parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.unused = nn.Linear(3, 3)
        self.constant = nn.Conv2d(2, 2, 1)
        self.counter = Counter()
        self.dead = nn.Conv2d(2, 2, 1)
        self.late = nn.Linear(2, 3)
        self.register_buffer("code", torch.randn(1, 2, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        y = x + self.constant(self.code.expand(len(x), 2, 8, 8))
        y = self.act(y + self.conv(y))
        y = self.act(self.conv(y) - 0.1)
        self.counter({"map": y})
        out: Tensor = self.late(y.amax((2, 3)))
        return out


class Counter(nn.Module):
    def forward(self, maps: dict[str, Tensor]) -> int:
        return len(maps)


def test_every_module_has_a_row() -> None:
    net, x = Busy().double(), images()
    transforms = as_transformations(("translation_x", "rotation", "brightness"))
    tables = attribute(net, x, transforms)
    for table, transform in zip(tables, transforms, strict=True):
        check_adds_up(net, x, table, transform)
        assert [row.module for row in table.rows] == [name for name, _ in net.named_modules()]
        assert table["conv"].calls == table["act"].calls == 2
        assert table[""].part == "own operations"
        reasons = {row.module: row.reason for row in table.rows if row.reason is not None}
        assert set(reasons) == {"unused", "constant", "counter", "dead"}
        assert "not called" in reasons["unused"]
        assert "no gradient passes" in reasons["constant"]
        assert "no floating-point tensor" in reasons["counter"]
        assert "no gradient passes" in reasons["dead"]
    with pytest.raises(KeyError, match="no module 'convolution'"):
        tables[0]["convolution"]
    # adding a map that does not move with the image is the network's own doing
    assert tables[0][""].mean_square > 1e-3
    # values of the image change at its first use, here an addition
    assert tables[2][""].share == pytest.approx(1, abs=1e-9)


def test_residual_additions_contribute_nothing() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x + self.conv(x)).flatten(1)

    net, x = Residual().double(), images()
    (table,) = attribute(net, x, as_transformations("scaling"))
    assert table[""].mean_square < 1e-25
    assert table["conv"].mean_square > 1e-3


def test_relaxed_layers_report_their_paths() -> None:
    net = symlearn.models.paper_cnn("ffc+conv", alpha=1, in_channels=1, classes=3, size=32).double()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    (transform,) = as_transformations("translation_x", padding="circular")
    (table,) = attribute(net, x, [transform])
    check_adds_up(net, x, table, transform)
    assert table["0.paths.ffc"].reason is None
    assert "part of a path" in str(table["0.paths.conv.conv"].reason)


def test_softmax_outputs() -> None:
    net, x = chain(), images()
    (transform,) = as_transformations("rotation")
    (table,) = attribute(net, x, [transform], link="softmax")
    expected = lie_derivative(nn.Sequential(net, nn.Softmax(1)), x, transform)
    assert table.mean_square == pytest.approx(float(expected.square().mean()), rel=1e-9)


def test_bad_networks_are_errors() -> None:
    transforms = as_transformations("rotation")

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.detach()).abs().sqrt().sum((2, 3))

    with pytest.raises(NotFiniteError, match="contribution"):
        attribute(Broken(), images(), transforms)
    with pytest.raises(ValueError, match="no gradient"):
        attribute(nn.Sequential(Detached()), images(), transforms)
    with pytest.raises(ValueError, match="overwriting"):
        attribute(Overwriting(), images(), transforms)
    with pytest.raises(ValueError, match="positive tolerance"):
        Probing(tolerance=0)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().mean((2, 3))


class Overwriting(nn.Module):
    """Uses what a module left in its input."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * x
        self.act(y)
        return y.sum((2, 3))


def zoo(name: str) -> tuple[nn.Module, Tensor]:
    """A small network of a zoo with random weights, and images."""
    torchvision, timm = need("torchvision"), need("timm")
    x = torch.randn(2, 3, 64, 64)
    if name == "resnet":
        return torchvision.models.resnet18(num_classes=4), x
    if name == "vit (torchvision)":
        net = torchvision.models.VisionTransformer(64, 16, 1, 3, 48, 96, num_classes=4)
        nn.init.normal_(net.heads.head.weight)
        return net, x
    if name == "vit":
        make = timm.models.vision_transformer.VisionTransformer
        return make(64, 16, depth=1, num_heads=3, embed_dim=48, num_classes=4), x
    if name == "mixer":
        make = timm.models.mlp_mixer.MlpMixer
        net = make(img_size=64, patch_size=16, num_blocks=1, embed_dim=48, num_classes=4)
        nn.init.normal_(net.head.weight)
        return net, x
    options = {"img_size": 64, "depths": (2, 1), "num_heads": (2, 2), "embed_dim": 16}
    make = timm.models.swin_transformer.SwinTransformer
    return make(window_size=4, num_classes=4, **options), x


@pytest.mark.parametrize("name", ["resnet", "vit", "vit (torchvision)", "mixer", "swin"])
def test_zoo(name: str) -> None:
    net, x = zoo(name)
    transforms = as_transformations(("translation_x", "rotation"))
    for table, transform in zip(attribute(net, x, transforms), transforms, strict=True):
        check_adds_up(net, x, table, transform)
        assert len(table.rows) == len(list(net.modules()))
        measured = {row.module: row for row in table.measured}
        kinds = {row.kind for row in table.measured if row.mean_square > 0}
        if name == "resnet":
            assert {"Conv2d", "ReLU", "MaxPool2d"} <= kinds
            assert all(row.reason is None for row in table.rows)
        elif name.startswith("vit"):
            block = "blocks.0" if name == "vit" else "encoder.layers.encoder_layer_0"
            attention = "attn" if name == "vit" else "self_attention"
            assert "4x4 tokens + 1" in measured[f"{block}.{attention}"].layouts
            assert {"Conv2d", "LayerNorm"} <= kinds
            assert measured[f"{block}.{attention}"].mean_square > 0
        elif name == "mixer":
            assert measured["blocks.0.mlp_tokens"].mean_square > 0
            assert "mlp_tokens'" in str(table["blocks.0.mlp_tokens.fc1"].reason)
        else:
            assert measured["layers.1.blocks.0"].layouts == "8x8 map -> 8x8 map"
            assert "layers.0.blocks.0'" in str(table["layers.0.blocks.0.attn.qkv"].reason)


def test_class_tokens_do_not_move() -> None:
    """Tokens of a vision transformer act as a map and one vector."""

    layouts = Layouts(
        torch.Size((2, 3, 64, 64)),
        [torch.Size((2, 5, 4, 4))],
        [torch.Size((2, 17, 5)), torch.Size((2, 16, 5))],
    )
    layout = layouts(torch.Size((2, 17, 5)))
    assert layout is not None
    (transform,) = as_transformations("rotation")
    v = torch.randn(2, 17, 5, dtype=torch.float64)
    found = layout.derive(v, transform.generator)
    assert not found[:, 0].any()
    maps = v[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    expected = transform.generator(maps).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[:, 1:], expected)
    weights = layouts(torch.Size((2, 3, 17, 17)))
    assert weights is not None
    assert [g.axes for g in weights.grids] == [(2,), (3,)]
    queries = layouts(torch.Size((2, 3, 17, 16)))  # 16 is a number of features here
    assert queries is not None
    assert [g.axes for g in queries.grids] == [(2,)]
    assert layouts(torch.Size((2, 3, 99))) is None
