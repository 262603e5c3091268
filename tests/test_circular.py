"""Surgery for circular boundaries: sizes, pools, and what cannot be made equivariant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from symlearn import Circular
from symlearn.circular import check_moves
from symlearn.subsample import PHASES, CircularPool
from tests.nets import conv, ending, make
from tests.shifts import assert_invariant, stress_images

pytestmark = pytest.mark.core
D = torch.float64


class Net(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = conv(1, 2), conv(2, 2, stride=stride)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.between(self.one(x).relu())).mean((2, 3))
        return out


class Padded(nn.Conv2d):
    """A convolution that does something of its own, which wrap cannot know."""


def circular(net: nn.Module, size: tuple[int, ...] = (8, 8), **options: Any) -> nn.Module:
    options.setdefault("boundary", "circular")
    return symlearn.wrap(net.double().eval(), torch.zeros(1, 1, *size, dtype=D), **options)


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        (lambda: nn.Sequential(conv(1, 2), conv(2, 2, stride=2)), (8, 6), None),
        (lambda: nn.Sequential(conv(1, 2), conv(2, 2, stride=2)), (8, 7), "1 strides .* on .8, 7"),
        (lambda: nn.Sequential(conv(1, 2), nn.MaxPool2d(3)), (8, 9), "1 strides .3, 3. on .8, 9"),
        (lambda: nn.Sequential(conv(1, 2), nn.AdaptiveAvgPool2d(3)), (8, 8), "1 pools"),
        (lambda: nn.Sequential(conv(1, 2), nn.AdaptiveMaxPool2d(16)), (8, 8), "1 pools"),
        (lambda: nn.Sequential(nn.Upsample(scale_factor=2), conv(1, 2)), (8, 8), "1 sees .16, 16"),
        (lambda: nn.Sequential(conv(1, 1), nn.Flatten(2), nn.Conv1d(1, 1, 1)), (4, 4), "2 sees"),
        (lambda: nn.Sequential(conv(1, 1), nn.MaxPool2d(2, return_indices=True)), (4, 4), "1 ret"),
        (lambda: nn.Sequential(conv(1, 1, 5), nn.Flatten(), nn.Linear(36, 2)), (8, 8), "1x64"),
    ],
    ids=["fine", "stride", "pool", "adaptive", "adaptive-up", "up", "flat", "indices", "head"],
)  # fmt: skip
def test_sizes_that_do_not_divide_are_named(
    net: Callable[[], nn.Module], size: tuple[int, int], message: str | None
) -> None:
    if message is None:
        circular(net(), size)
    else:
        with pytest.raises(ValueError, match=f"circular' does not suit this network: .*{message}"):
            circular(net(), size)


def position_code() -> Callable[[Tensor], Tensor]:
    code = torch.linspace(0, 1, 64, dtype=D).reshape(8, 8)
    return lambda x: x + code


BREAKERS: dict[str, Callable[[], nn.Module]] = {
    "functional pool": lambda: Net(lambda x: F.max_pool2d(x, 2)),
    "functional padding": lambda: Net(lambda x: F.pad(x, (1, 0))[..., :8]),
    "slice": lambda: Net(lambda x: x[..., ::2, ::2]),
    "position code": lambda: Net(position_code()),
    "subclass": lambda: Net(Padded(2, 2, 3, padding=1, dtype=D)),
    "transposed": lambda: Net(nn.ConvTranspose2d(2, 2, 3, padding=1, dtype=D)),
    "layer norm": lambda: Net(
        nn.Sequential(nn.LayerNorm([2, 8, 8], dtype=D), nn.Hardshrink(), _scrambled_norm())
    ),
}


def _scrambled_norm() -> nn.Module:
    norm = nn.LayerNorm([2, 8, 8], dtype=D)
    nn.init.normal_(norm.weight)
    return norm


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", BREAKERS)
def test_networks_that_cannot_be_equivariant_are_refused(name: str, phase: str) -> None:
    with pytest.raises(ValueError, match="the input of two does not move with the image"):
        circular(BREAKERS[name](), boundary=Circular(phase))
    symlearn.wrap(BREAKERS[name]().double(), torch.zeros(1, 1, 8, 8, dtype=D))


def test_the_equivariance_check_reports_nan() -> None:
    net = circular(Net(torch.relu))
    check_moves(net, torch.zeros(1, 1, 8, 8, dtype=D))
    nn.init.constant_(net.one.bias, float("nan"))
    with pytest.raises(ValueError, match="the output of one does not move"):
        check_moves(net, torch.zeros(1, 1, 8, 8, dtype=D))


def test_free_paths_do_not_disturb_the_check() -> None:
    net, x = make("strided")
    relaxed = symlearn.wrap(net, x, boundary="circular", init="fresh")
    assert all(path.enabled for i in (0, 3) for path in relaxed[i].named_paths().values())
    assert relaxed[0].path("ffc").contributes()


def test_unpadded_networks_grow_to_full_maps() -> None:
    net = nn.Sequential(conv(1, 2, 5, padding=0), nn.MaxPool2d(2), conv(2, 2, padding=0))
    net = nn.Sequential(net, *ending(2))
    relaxed = circular(net, (12, 12))
    assert relaxed[0][0].geometry.out_size == (12, 12)
    assert relaxed[0][2].geometry.in_size == (6, 6)
    assert_invariant(relaxed, torch.cat(list(stress_images((12, 12)).values())))


def test_windows_larger_than_the_map_wrap_around() -> None:
    net = nn.Sequential(conv(1, 2, 5, padding=2), nn.AvgPool2d(4), conv(2, 2, 7, padding=3))
    relaxed = circular(nn.Sequential(net, *ending(2)), (8, 8))
    assert_invariant(relaxed, torch.cat(list(stress_images((8, 8)).values())))


def test_interior_windows_are_those_of_the_convolution() -> None:
    """Away from the border, circular maps hold the same numbers at the same places."""
    for options in ({"padding": 1}, {"padding": 0}, {"padding": "same", "dilation": 2}):
        plain = nn.Sequential(conv(1, 2, **options)).double()
        image = torch.zeros(1, 1, 12, 12, dtype=D)
        image[..., 5:8, 5:8] = torch.randn(3, 3, dtype=D)
        inside = plain(image)
        size = inside.shape[-1]
        torch.testing.assert_close(circular(plain, (12, 12))(image)[..., :size, :size], inside)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 2, dilation=2, padding=1),
        nn.MaxPool2d((3, 2), (1, 2), (1, 0), ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, stride=4),
        nn.AdaptiveAvgPool2d((2, 4)),
        nn.AdaptiveMaxPool2d((None, 2)),
    ],
    ids=str,
)
def test_pools_keep_their_options_inside_the_map(pool: nn.Module) -> None:
    net = nn.Sequential(conv(1, 2), pool)
    relaxed = circular(net)
    assert isinstance(relaxed[1], CircularPool)
    assert_invariant(nn.Sequential(relaxed, *ending(2)).double(), stress_images((8, 8))["noise"])
    x = torch.rand(3, 2, 8, 8, dtype=D)
    relaxed[1].align.reference = None
    relaxed[1].align.stride = (1, 1)  # every sample on the first grid
    expected = pool(x)
    found = relaxed[1](x)[..., : expected.shape[2], : expected.shape[3]]
    inner = (..., slice(1, 3), slice(1, 3)) if min(expected.shape[2:]) > 2 else (...,)
    torch.testing.assert_close(found[inner], expected[inner])


def test_a_pool_over_everything_stays_as_it_is() -> None:
    net, _ = make("strided")
    assert type(circular(net)[5]) is nn.AdaptiveMaxPool2d


def test_a_pool_used_on_several_sizes() -> None:
    net, x = make("shared")
    relaxed = symlearn.wrap(net, x, boundary="circular")
    assert relaxed.pool.align.passed == ()
    assert_invariant(relaxed, torch.cat(list(stress_images((8, 8)).values())))

    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = conv(1, 1), nn.AdaptiveAvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.conv(x)) + self.pool(x[..., ::2, ::2])

    with pytest.raises(ValueError, match="adaptive pool pool runs on several sizes"):
        circular(Adaptive())


def test_the_network_may_be_called_by_keyword() -> None:
    net = circular(Net(torch.relu, stride=2))
    x = torch.randn(2, 1, 8, 8, dtype=D)
    assert torch.equal(net(x=x), net(x))


def test_convolutions_called_by_keyword() -> None:
    class Keyword(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.two(input=self.one(input=x)).mean((2, 3))

    with pytest.raises(ValueError, match="does not run on the example"):
        circular(Keyword(torch.relu))


def test_exactness_holds_in_each_place_of_a_batch() -> None:
    net, x = make("max-pooled")
    relaxed = symlearn.wrap(net, x, boundary="circular")
    torch.testing.assert_close(relaxed(x.flip(0)).flip(0), relaxed(x), rtol=0, atol=1e-12)
