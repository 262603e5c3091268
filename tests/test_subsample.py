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
from symlearn.position import centroid, locate
from symlearn.subsample import Align, PhaseReference, loudest_phase, roll_each
from tests.nets import NETS, make
from tests.shifts import (
    all_shifts,
    assert_invariant,
    assert_maps_move,
    maps_of,
    shifted,
    stress_images,
)

pytestmark = pytest.mark.core
D = torch.float64
SIZES = [(8, 8), (16, 16), (9, 7), (6, 12), (24,), (15,), (4, 4, 4)]


def wrapped(name: str, phase: str = "centroid", **options: Any) -> tuple[nn.Module, Tensor]:
    net, x = make(name)
    options.setdefault("paths", ("conv", "ffc"))
    return symlearn.wrap(net, x, boundary=Circular(phase), **options), x


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_move_with_the_image(size: tuple[int, ...], channels: int) -> None:
    """Moving every image's position to the origin gives the same picture for all its shifts."""
    for name, image in stress_images(size, channels).items():
        shifts = list(all_shifts(size))
        batch = torch.cat([shifted(image, by) for by in shifts])
        for offset in (0.0, 0.5, 0.123):
            where = locate(batch, offset)
            home = shifted(image, tuple((-where[0]).tolist()))
            for y, q in zip(batch.split(1), where.tolist(), strict=True):
                error = (shifted(y, tuple(-i for i in q)) - home).abs().max()
                assert error <= 1e-12, name


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_of_noise_are_counted_in_pixels(size: tuple[int, ...]) -> None:
    image = stress_images(size)["noise"]
    start = locate(image)[0]
    for by in all_shifts(size):
        expected = (start + torch.tensor(by)) % torch.tensor(size)
        assert torch.equal(locate(shifted(image, by))[0], expected)


def test_position_is_the_centroid_of_the_energy() -> None:
    """Against the definition, by loops; and an object is where it is."""
    x = torch.randn(1, 2, 6, 5, dtype=D)
    energy = sum((x[0, c] - x[0, c].mean()) ** 2 for c in range(2))
    z = sum(
        complex(energy[i, j]) * complex(math.cos(math.tau * i / 6), math.sin(math.tau * i / 6))
        for i in range(6)
        for j in range(5)
    )
    where, defined = centroid(x)
    assert bool(defined.all())
    assert float(where[0, 0]) == pytest.approx(6 / math.tau * math.atan2(z.imag, z.real))
    image = torch.zeros(1, 1, 12, 12, dtype=D)
    image[0, 0, 4:7, 8:11] = 1
    assert locate(image).tolist() == [[5, 9]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_positions_of_lower_precision_are_as_exact(dtype: torch.dtype) -> None:
    x = torch.randn(5, 2, 8, 8).to(dtype)
    assert torch.equal(locate(x.roll(3, 2)), (locate(x) + torch.tensor([3, 0])) % 8)


def test_position_of_a_sample_does_not_depend_on_its_batch() -> None:
    x = torch.cat(list(stress_images((16, 16)).values()) + [torch.randn(40, 1, 16, 16, dtype=D)])
    alone = torch.cat([locate(v) for v in x.split(1)])
    assert torch.equal(locate(x), alone)


# ------------------------------------------------------------------- grids


def test_roll_each_rolls_every_sample_by_its_own_phase() -> None:
    x = torch.randn(12, 2, 4, 6)
    stride = (2, 3)
    phase = torch.stack([torch.arange(12) % 2, torch.arange(12) % 3], 1)
    pairs = zip(x.split(1), phase, strict=True)
    slow = torch.cat([shifted(v, tuple((-p).tolist())) for v, p in pairs])
    assert torch.equal(roll_each(x, phase, stride), slow)


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
    reference = PhaseReference((8, 8), 0.0)
    image = torch.randn(3, 1, 8, 8, dtype=D)
    reference.decide(reference, (image,), {})
    maps = torch.randn(3, 2, 4, 4, dtype=D)
    told, untold = (Align((2, 2), passed, reference) for passed in ((2, 2), ()))
    assert torch.equal(told(maps), untold(maps))
    wrong = Align((2, 2), (1, 1), reference)
    assert not torch.equal(told(maps), wrong(maps))


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("phase", ["centroid", "polyphase"])
@pytest.mark.parametrize("name", NETS)
def test_outputs_are_invariant_to_all_shifts(name: str, phase: str) -> None:
    net, x = wrapped(name, phase)
    net.eval()
    images = torch.cat([x, *stress_images(tuple(x.shape[2:])).values()])
    assert net(images).std(0).min() > 1e-5  # invariance is not blindness
    assert_invariant(net, images)


@pytest.mark.parametrize("phase", ["centroid", "polyphase"])
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


@pytest.mark.parametrize("phase", ["centroid", "polyphase"])
def test_still_invariant_after_training_steps(phase: str) -> None:
    net, x = wrapped("strided", phase, paths="conv")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    net.train()
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
    assert_invariant(net.eval(), torch.cat([x, *stress_images((8, 8)).values()]))


@pytest.mark.parametrize("phase", ["centroid", "polyphase"])
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


@pytest.mark.parametrize("phase", ["centroid", "polyphase"])
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
    net, _ = wrapped("strided", paths="conv")
    (reference,) = {m for m in net.modules() if isinstance(m, PhaseReference)}
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
    reference.dither = 0.0
    net.train()
    reference.decide(net, (batch,), {})
    assert torch.equal(reference.phase((1, 1), (8, 8)), found[False])


def test_calibration_puts_the_mean_position_mid_pixel() -> None:
    reference = PhaseReference((8, 8), 0.0)
    images = torch.zeros(6, 1, 8, 8, dtype=D)
    for n in range(6):
        images[n, 0, n, (2 * n) % 8 : (2 * n) % 8 + 2] = 1
    images = torch.cat([images, torch.ones(3, 1, 8, 8, dtype=D)])  # constant images say nothing
    assert not reference.calibrated
    reference.calibrate(images)
    assert reference.calibrated
    offset = reference.offset % 1
    torch.testing.assert_close(offset, torch.tensor([0.5, 0.0], dtype=D), rtol=0, atol=1e-9)
    reference.calibrate(torch.ones(3, 1, 8, 8, dtype=D))
    torch.testing.assert_close(reference.offset, torch.tensor([0.5, 0.5], dtype=D))


def test_offset_is_frozen_outside_of_calibration() -> None:
    net, x = wrapped("strided")
    (reference,) = {m for m in net.modules() if isinstance(m, PhaseReference)}
    reference.calibrate(x)
    before = reference.offset.clone()
    for mode in (True, False):
        net.train(mode)(x + 1)
        assert torch.equal(reference.offset, before)
    assert "0.align.reference.offset" in net.state_dict()
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
