"""Exact equivariance to circular shifts: positions, grids, and whole networks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import Circular
from symlearn.subsample import PHASES, Align, PhaseReference, loudest_phase
from tests.nets import NETS, make
from tests.shifts import (
    all_shifts,
    assert_invariant,
    assert_maps_move,
    maps_of,
    pose_of,
    shifted,
    stress_images,
)

pytestmark = pytest.mark.core
D = torch.float64


def wrapped(name: str, phase: str = "template", **options: Any) -> tuple[nn.Module, Tensor]:
    net, x = make(name)
    options.setdefault("paths", ("conv", "ffc"))
    return symlearn.wrap(net, x, boundary=Circular(phase), **options), x


def reference_of(net: nn.Module) -> PhaseReference:
    (reference,) = {m for m in net.modules() if isinstance(m, PhaseReference)}
    return reference


# ------------------------------------------------------------------- grids


@pytest.mark.parametrize(("size", "stride"), [((8, 6), (2, 3)), ((9,), (3,)), ((4, 4), (2, 1))])
def test_loudest_phase_is_the_component_of_largest_norm(size: Any, stride: Any) -> None:
    y = torch.randn(7, 3, *size, dtype=D)
    for v, phase in zip(y, loudest_phase(y, stride), strict=True):
        norms = {
            p: v[(slice(None), *(slice(i, None, s) for i, s in zip(p, stride, strict=True)))]
            .abs()
            .max()
            for p in all_shifts(stride)
        }
        assert tuple(phase.tolist()) == max(norms, key=lambda p: float(norms[p]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loudest_phase_breaks_ties_by_position(dtype: torch.dtype) -> None:
    """Norms equal up to rounding: the first in memory would not move with the map."""
    square = torch.zeros(1, 1, 8, 8, dtype=dtype)
    square[0, 0, 1:6, 2:5] = 1
    home = None
    for by in all_shifts((8, 8)):
        y = shifted(square, by)
        noise = 1 + 8 * torch.finfo(dtype).eps * torch.rand_like(y)
        (phase,) = loudest_phase(y * noise, (2, 2)).tolist()
        part = y[:, :, phase[0] :: 2, phase[1] :: 2]
        home = part if home is None else home
        assert any(torch.equal(shifted(part, s), home) for s in all_shifts((4, 4)))


def test_align_reads_the_passed_stride_off_the_input_if_not_told() -> None:
    reference = PhaseReference((8, 8), 1, Circular("centroid", dither=0))
    image = torch.randn(3, 1, 8, 8, dtype=D)
    reference.decide(reference, (image,), {})
    maps = torch.randn(3, 2, 4, 4, dtype=D)
    told, untold = (Align((2, 2), passed, reference) for passed in ((2, 2), ()))
    assert torch.equal(told(maps), untold(maps))
    wrong = Align((2, 2), (1, 1), reference)
    assert not torch.equal(told(maps), wrong(maps))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", NETS)
def test_outputs_are_invariant_to_all_shifts(name: str, phase: str) -> None:
    net, x = wrapped(name, phase)
    net.eval()
    images = torch.cat([x, *stress_images(tuple(x.shape[2:])).values()])
    assert net(images).std(0).min() > 1e-5  # invariance is not blindness
    assert_invariant(net, images)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["strided", "residual", "max-pooled", "shared", "signal"])
def test_maps_of_shifted_images_are_shifted_maps(name: str, phase: str) -> None:
    net, x = wrapped(name, phase)
    images = stress_images(tuple(x.shape[2:]))
    if phase == "polyphase":  # repeating images have several right answers
        images = {"noise": images["noise"], "thing": images["thing"]}
    assert_maps_move(net.eval(), torch.cat([x, *images.values()]))


def test_deep_strided_network_on_even_and_odd_maps() -> None:
    """A total stride as large as the image, down to one site."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [nn.Conv2d(1 if i == 0 else 3, 3, 3, stride=2, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3, 2)).double().eval()
    circular = symlearn.wrap(net, torch.zeros(1, 1, 8, 8, dtype=D), boundary="circular")
    assert_invariant(circular, torch.cat(list(stress_images((8, 8)).values())))
    odd = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    circular = symlearn.wrap(odd.double(), torch.zeros(1, 1, 7, 5, dtype=D), boundary="circular")
    assert_invariant(circular, torch.cat(list(stress_images((7, 5)).values())))


@pytest.mark.parametrize("phase", PHASES)
def test_still_invariant_after_training_steps(phase: str) -> None:
    net, x = wrapped("strided", phase, paths="conv")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    net.train()
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
    assert_invariant(net.eval(), torch.cat([x, *stress_images((8, 8)).values()]))


@pytest.mark.parametrize("phase", PHASES)
def test_samples_do_not_depend_on_their_batch(phase: str) -> None:
    net, x = wrapped("max-pooled", phase)
    images = torch.cat([x, *stress_images((8, 8)).values()])
    together = net(images)
    alone = torch.cat([net(v) for v in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_float32_is_invariant_too() -> None:
    net, x = wrapped("residual")
    net, x = net.float(), x.float()
    assert_invariant(net, x, 1e-5)


@pytest.mark.parametrize("phase", PHASES)
def test_all_strict_paths_of_a_layer_share_one_grid(phase: str) -> None:
    """Two convolutions beside each other compute what one with the summed filters computes."""
    net, x = wrapped("strided", phase, paths="conv")
    double = copy.deepcopy(net)
    for name in ("0", "3"):
        layer = double.get_submodule(name)
        layer.paths["twin"] = copy.deepcopy(layer.path("conv"))
        for path in layer.named_paths().values():
            path.conv.weight.data.mul_(0.5)
    torch.testing.assert_close(double(x), net(x), rtol=0, atol=1e-12)


def test_the_grid_follows_a_strict_path_that_is_on() -> None:
    net, x = wrapped("strided", "polyphase", paths="conv")
    expected = net(x)
    for name in ("0", "3"):
        layer = net.get_submodule(name)
        layer.paths["twin"] = copy.deepcopy(layer.path("conv"))
        layer.path("conv").switch_off()
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    assert_invariant(net, torch.cat([x, *stress_images((8, 8)).values()]))


def test_free_paths_read_their_input_as_it_is() -> None:
    net, x = wrapped("strided")
    layer = net.get_submodule("0")
    path = layer.path("ffc")
    path.reset_parameters(torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    path.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    net(x)
    assert torch.equal(seen[0], x)
    with pytest.raises(AssertionError, match="shift"):
        assert_invariant(net, x)


def test_convolutions_that_are_not_selected_are_circular_too() -> None:
    net, x = wrapped("residual", layers="1.conv1")
    assert {n: list(m.paths) for n, m in net.named_modules() if hasattr(m, "paths")} == {
        **dict.fromkeys(
            ("0", "1.conv2", "1.shortcut", "2.conv1", "2.conv2", "2.shortcut"), ["conv"]
        ),
        "1.conv1": ["conv", "ffc"],
    }
    assert_invariant(net, x)


# ------------------------------------------------------ reference and options


def test_dither_moves_the_grid_in_training_only() -> None:
    net, _ = wrapped("strided", "centroid", paths="conv")
    reference = reference_of(net)
    edge = torch.zeros(1, 1, 8, 8, dtype=D)
    edge[0, 0, 3, 3:5] = 1  # its centroid is on the edge of a pixel on one axis only
    batch = edge.expand(64, -1, -1, -1)
    found = {}
    for mode in (True, False):
        net.train(mode)
        reference.decide(net, (batch,), {})
        found[mode] = reference.phase((1, 1), (8, 8))
    assert len(found[False].unique(dim=0)) == 1
    assert {tuple(p) for p in found[True].tolist()} == {(3, 3), (3, 4)}
    reference.rule.dither = 0.0
    net.train()
    reference.decide(net, (batch,), {})
    assert torch.equal(reference.phase((1, 1), (8, 8)), found[False])


def test_calibration_puts_the_mean_position_mid_pixel() -> None:
    reference = PhaseReference((8, 8), 1, Circular("centroid", dither=0))
    images = torch.zeros(6, 1, 8, 8, dtype=D)
    for n in range(6):
        images[n, 0, n, (2 * n) % 8 : (2 * n) % 8 + 2] = 1
    images = torch.cat([images, torch.ones(3, 1, 8, 8, dtype=D)])  # constant images say nothing
    assert not reference.calibrated
    reference.calibrate(images)
    assert reference.calibrated
    offset = reference.rule.offset % 1
    torch.testing.assert_close(offset, torch.tensor([0.5, 0.0], dtype=D), rtol=0, atol=1e-9)
    reference.calibrate(torch.ones(3, 1, 8, 8, dtype=D))
    torch.testing.assert_close(reference.rule.offset, torch.tensor([0.5, 0.5], dtype=D))


def test_dither_moves_templates_by_a_pixel_as_often_as_told() -> None:
    net, x = wrapped("strided", paths="conv")
    reference = reference_of(net)
    batch = x[:1].expand(4000, -1, -1, -1)
    home = pose_of(reference.eval(), batch).shift
    assert len(home.unique(dim=0)) == 1
    torch.manual_seed(0)
    step = (pose_of(reference.train(), batch).shift - home + 1) % 8 - 1
    assert set(step.unique().tolist()) == {-1, 0, 1}
    for direction in (-1, 1):
        share = (step == direction).double().mean(0)
        assert bool(((share - 0.125).abs() < 0.025).all())  # 0.25 in all, five standard errors
    reference.rule.dither = 0.0
    assert torch.equal(pose_of(reference, batch).shift, home)


@pytest.mark.parametrize("phase", ["template", "centroid"])
def test_rules_are_frozen_outside_of_calibration(phase: str) -> None:
    net, x = wrapped("strided", phase)
    reference = reference_of(net)
    reference.calibrate(x)
    before = copy.deepcopy(reference.state_dict())
    for mode in (True, False):
        net.train(mode)(x + 1)
        assert all(torch.equal(v, before[k]) for k, v in reference.state_dict().items())
    stored = net.state_dict()
    assert {f"0.align.reference.{key}" for key in before} <= set(stored)
    assert_invariant(net.eval(), x)


@pytest.mark.parametrize(
    ("phase", "dither"),
    [("centre", 0.1), ("centroid", -0.1), ("centroid", 0.6), ("centroid", math.nan),
     ("centroid", "0.1"), ("polyphase", None), ("centroid", True)],
)  # fmt: skip
def test_options_are_validated(phase: str, dither: Any) -> None:
    with pytest.raises(ValueError, match="phase rule" if phase == "centre" else "dither"):
        Circular(phase, dither)


def test_parts_of_the_network_cannot_be_called_alone() -> None:
    net, x = wrapped("strided")
    with pytest.raises(RuntimeError, match="call the wrapped network"):
        net[0](x)
    net(x)
    with pytest.raises(RuntimeError, match="call the wrapped network"):
        net[0](x)
    with pytest.raises(ValueError, match=r"images of size \[8, 8\], got \[8, 6\]"):
        net(x[..., :6])
    with pytest.raises(RuntimeError, match="call the wrapped network"):
        net[0](x)  # a failed pass leaves no position behind


# --------------------------------------------------- the checks can fail


def test_invariance_check_can_fail() -> None:
    net, x = make("strided")
    with pytest.raises(AssertionError, match="shift"):
        assert_invariant(net, x)
    with pytest.raises(AssertionError, match="shift"):
        assert_invariant(nn.Sequential(nn.AdaptiveAvgPool2d(1), _Nan()), x)


def test_map_check_can_fail() -> None:
    net, x = wrapped("strided")
    assert set(maps_of(net, x)) == {"0", "3"}
    for phase in ("centroid", "polyphase"):
        net, x = wrapped("strided", phase)
        net[3].align = None  # a fixed grid
        with pytest.raises(AssertionError, match="3 of images"):
            assert_maps_move(net, x)
    net, x = wrapped("strided")
    nn.init.constant_(net[0].bias, math.nan)
    with pytest.raises(AssertionError, match="0 of images"):
        assert_maps_move(net, x)


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * math.nan
