"""PowerBlock: its formula, its options, and its life under fit, save and collapse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import symlearn
from symlearn.paths import Power
from symlearn.relaxed import RelaxedLayer, relaxed_layers

pytestmark = pytest.mark.core
SHIFTS = Power(("translation_y", "translation_x"), powers=1)


def layers(block: symlearn.PowerBlock) -> list[RelaxedLayer]:
    return list(relaxed_layers(block).values())


@pytest.mark.parametrize("norm", ["batch", "layer", None])
@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("channels", [(2, 2), (1, 3)])
def test_block_is_its_formula(norm: str | None, rho: float, channels: tuple[int, int]) -> None:
    block = symlearn.PowerBlock(*channels, (3, 5), SHIFTS, layers=2, rho=rho, norm=norm).double()
    x = torch.randn(6, channels[0], 3, 5, dtype=torch.float64)
    out = x
    for layer in layers(block):
        nn.init.normal_(layer.bias)  # type: ignore[arg-type]
        filters = layer.path("power").theta.weight.detach()  # type: ignore[union-attr]
        filters = filters.reshape(channels[1], -1, 3, 3).flip(2, 3)
        out = F.conv2d(F.pad(out, (1, 1, 1, 1), mode="circular"), filters, layer.bias)
        if norm == "batch":
            out = (out - out.mean((0, 2, 3), True)) / (
                out.var((0, 2, 3), False, True) + 1e-5
            ).sqrt()
        if norm == "layer":
            dims = (1, 2, 3)
            out = (out - out.mean(dims, True)) / (out.var(dims, False, True) + 1e-5).sqrt()
        out = F.leaky_relu(out, 0.2)
    if channels[0] == channels[1]:
        out = out + rho * x
    elif rho:
        weight = block.skip.weight.detach()[:, :, 0, 0]  # type: ignore[union-attr, index]
        out = out + rho * torch.einsum("dc,ncxy->ndxy", weight, x)
    torch.testing.assert_close(block(x), out, rtol=0, atol=1e-10)


def test_fresh_blocks_keep_the_scale_of_activations() -> None:
    x = torch.randn(50, 4, 7, 7)
    block = symlearn.PowerBlock(4, 16, (7, 7), rho=0, norm=None, activation=nn.ReLU(), layers=3)
    assert 0.3 < float(block(x).detach().square().mean()) < 3
    skip: Any = symlearn.PowerBlock(64, 48, (7, 7), layers=1).skip
    assert 0.8 < float(skip(torch.randn(50, 64, 7, 7)).detach().square().mean()) < 1.2


def test_options() -> None:
    block = symlearn.PowerBlock(1, 2, (9,), Power("translation_x"), layers=3, activation=nn.Tanh())
    assert [type(m).__name__ for m in block.body.children()] == [  # type: ignore[union-attr]
        *("RelaxedLayer", "BatchNorm1d", "Tanh") * 3
    ]
    assert len({id(m) for m in block.modules() if isinstance(m, nn.Tanh)}) == 3
    same, other = (symlearn.PowerBlock(1, 2, (9,), Power("translation_x"), seed=s) for s in (0, 1))
    x = torch.randn(2, 1, 9)
    again = symlearn.PowerBlock(1, 2, (9,), Power("translation_x"))
    torch.testing.assert_close(again(x), same(x), rtol=0, atol=0)
    assert not torch.allclose(other(x), same(x))
    assert "rho=0.5" in repr(symlearn.PowerBlock(1, 1, (4, 4), rho=0.5))


def test_a_network_of_blocks_is_fitted_saved_and_collapsed(tmp_path: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        symlearn.PowerBlock(1, 3, (7, 7), Power("rotation", powers=1), layers=1),
        nn.AvgPool2d(2),
        symlearn.PowerBlock(3, 3, (3, 3), SHIFTS, rho=0, norm=None),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)),
    )
    x, y = torch.randn(60, 1, 7, 7), torch.arange(60) % 3
    config = symlearn.FitConfig(epochs=2, check_images=0, progress=False)
    result = symlearn.fit(net, (x, y), config)
    names = ["0.body.power1", "2.body.power1", "2.body.power2"]
    assert [layer.name for layer in result.report] == names
    assert {f"{name}.power" for name in names} <= set(result.prior.groups)
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run").model
    assert isinstance(again, nn.Sequential)
    assert isinstance(again[0], symlearn.PowerBlock)
    torch.testing.assert_close(again(x), result.model(x), rtol=0, atol=0)
    plain = symlearn.collapse(result.model, x)
    assert not relaxed_layers(plain)
    torch.testing.assert_close(plain(x), result.model(x), rtol=0, atol=1e-5)
    symlearn.save_plain(plain, tmp_path / "plain")
    torch.testing.assert_close(symlearn.load_plain(tmp_path / "plain")(x), plain(x))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1, (4, 4)), {}, ValueError, "in_channels is 0; give a whole number"),
        ((1, 1, (4, 4)), {"layers": 0}, ValueError, "layers is 0"),
        ((1, 1, (4, 4)), {"rho": -1}, ValueError, "rho must be finite and not negative"),
        ((1, 1, (4, 4)), {"rho": math.nan}, ValueError, "rho must be finite"),
        ((1, 1, (4, 4)), {"norm": "group"}, ValueError, r"'group'; choose one of \['batch'"),
        ((1, 1, (4, 4)), {"activation": F.relu}, TypeError, "a module such as nn.ReLU"),
        ((1, 1, (4, 4), "rotation"), {}, TypeError, "must be a symlearn.paths.Power"),
        ((1, 1, (4, 4)), {"rho": "1"}, ValueError, "rho must be finite"),
        ((1, 1, ()), {}, ValueError, "one to three axes"),
        ((1, 1, 5), {}, ValueError, "size is 5"),
        ((1, 1, (5, 0)), {}, ValueError, r"size is \(5, 0\)"),
        ((1, 1, (5.5, 5)), {}, ValueError, r"size is \(5.5, 5\)"),
        ((1, 1, (2, 2)), {}, ValueError, "moves nothing on maps of size"),
        (
            (1, 1, (64, 64), Power(dense=True)),
            {"memory_limit_gib": 0.1},
            ValueError,
            "layer 1: path 'power' needs 0.25 GiB",
        ),
    ],
)
def test_bad_input(
    arguments: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        symlearn.PowerBlock(*arguments, **options)
