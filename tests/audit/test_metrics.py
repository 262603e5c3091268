"""Errors under finite transformations are exact on constructed truth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from symlearn.audit import (
    Averaged,
    NotFiniteError,
    as_transformations,
    discrete_consistency,
    element_at,
    elements_of,
    group_sample_error,
    nearby,
    relative_error,
    translation_errors,
)
from symlearn.groups import named

pytestmark = pytest.mark.core


def images(n: int = 4, size: int = 8) -> Tensor:
    return torch.randn(n, 2, size, size, dtype=torch.float64)


def circular_cnn() -> nn.Sequential:
    options = {"padding": 1, "padding_mode": "circular"}
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, **options), nn.ReLU(), nn.Conv2d(4, 3, 3, **options)
    ).double()


def test_a_circular_cnn_has_no_error_under_whole_pixels() -> None:
    net, x = circular_cnn(), images()
    for row in translation_errors(net, x, padding="circular"):
        assert row.reason is None
        assert row.unnormalised < 1e-24
    fractional = translation_errors(net, x, padding="circular", fractional=True)
    by_name = {row.module: row for row in fractional}
    assert by_name["0"].unnormalised < 1e-24  # linear
    assert by_name["1"].unnormalised > 1e-3  # a ReLU aliases
    shifts = as_transformations(("translation_x", "translation_y"), padding="circular")
    elements = [element_at(t, k / 8) for t in shifts for k in (1, 3)]
    assert group_sample_error(net, x, elements).mean < 1e-12
    assert relative_error(net, x, elements).mean < 1e-12
    assert relative_error(net, x, [element_at(shifts[0], 0.3 / 8)]).mean > 1e-3


def test_borders_do_not_count_without_circular_maps() -> None:
    pixelwise = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()).double()
    for padding in ("reflection", "zeros"):
        for row in translation_errors(pixelwise, images(), padding=padding):
            assert row.unnormalised < 1e-24
    padded = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)).double()
    rows = translation_errors(padded, images(), padding="zeros")
    assert rows[0].unnormalised > 1e-3  # the layer's own padding comes into view


def test_normalisations() -> None:
    net, x = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")).double(), images()
    kept = 3 * 8 * 8
    row = translation_errors(net, x, padding="circular", n=3)[1]
    assert row.by_root == pytest.approx(row.unnormalised / kept**0.5, rel=1e-12)
    assert row.by_size == pytest.approx(row.unnormalised / kept, rel=1e-12)
    assert row.unnormalised > 0


def test_eq_t_by_hand() -> None:
    net, x = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)).double(), images()
    row = translation_errors(net, x, padding="circular", n=1, seed=3)[1]
    errors = []
    with torch.no_grad():
        for by in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            back = net(x.roll(by, (2, 3))).roll((-by[0], -by[1]), (2, 3))
            errors.append(float((back - net(x)).square().sum((1, 2, 3)).mean()))
    assert min(abs(e - row.unnormalised) for e in errors) < 1e-9


def test_what_cannot_be_compared_says_why() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    rows = translation_errors(net.double(), images())
    assert [row.reason for row in rows] == [None, None, None, *["its input is no map"] * 2]
    assert rows[3].by_size != rows[3].by_size
    with pytest.raises(NotFiniteError, match="translation error of ''"):
        translation_errors(Nan(), images())


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


class GroupConv(nn.Module):
    """Lifts maps to features over p4: one filter in four poses."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        poses = [named("p4").act(self.weight, g) for g in range(4)]
        filters = torch.stack(poses, 1).flatten(0, 1)
        return nn.functional.conv2d(x, filters, padding=1)


@pytest.mark.parametrize("name", ["p4", "p4m", "horizontal"])
def test_an_averaged_network_has_no_error(name: str) -> None:
    net, x = circular_cnn(), images()
    assert group_sample_error(net, x, elements_of(name)).mean > 0.1
    assert group_sample_error(Averaged(net, name), x, elements_of(name)).mean < 1e-12
    assert relative_error(Averaged(net, name), x, elements_of(name)).mean < 1e-12


def test_features_over_a_group() -> None:
    net, x = GroupConv(), images()
    assert group_sample_error(net, x, elements_of("p4", lifted=True)).mean < 1e-12
    assert relative_error(net, x, elements_of("p4", lifted=True)).mean < 1e-12
    assert group_sample_error(net, x, elements_of("p4")).mean > 0.1


def test_relative_error_by_hand() -> None:
    flip = elements_of("horizontal")[1]
    net, x = nn.Conv2d(2, 3, 3).double(), images()
    a, b = net(x).flip(-1).flatten(1), net(x.flip(-1)).flatten(1)
    expected = (a - b).norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))
    found = relative_error(net, x, [flip])
    assert found.mean == pytest.approx(float(expected.detach().mean()), rel=1e-12)
    assert found.error == pytest.approx(float(expected.detach().std()) / 2, rel=1e-12)
    zero = nn.Conv2d(2, 3, 3, bias=False).double()
    nn.init.zeros_(zero.weight)
    assert relative_error(zero, x, [flip]).mean == 0


def test_group_samples_are_near_and_repeatable() -> None:
    transforms = as_transformations(("translation_x", "rotation"))
    first, again = (nearby(transforms, 0.1, 5, seed=2) for _ in range(2))
    assert [e.name for e in first] == [e.name for e in again]
    assert len({e.name for e in first}) == 10
    assert all(abs(float(e.name.split("(")[1][:-1])) <= 0.1 for e in first)
    with pytest.raises(ValueError, match="at least one"):
        group_sample_error(circular_cnn(), images(), [])


def test_batches_do_not_matter() -> None:
    net, x = circular_cnn(), images(5)
    head = nn.Sequential(net, nn.Flatten())
    for metric in (group_sample_error, relative_error):
        whole, parts = (metric(net, x, elements_of("p4"), batch=n) for n in (32, 2))
        assert (whole.mean, whole.error) == pytest.approx((parts.mean, parts.error), rel=1e-12)
    assert discrete_consistency(head, x, pixels=1) == discrete_consistency(
        head, x, pixels=1, batch=2
    )


def test_discrete_consistency() -> None:
    x = images(50)
    pooled = nn.Sequential(circular_cnn(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert discrete_consistency(pooled, x, pixels=3, padding="circular").mean == 0
    linear = nn.Sequential(nn.Flatten(), nn.Linear(128, 4)).double()
    found = discrete_consistency(linear, x, pixels=3)
    assert 0.3 < found.mean < 1
    with torch.no_grad():
        by_hand = [
            (linear(x.roll(by, axis)).argmax(1) != linear(x).argmax(1)).double()
            for axis in (2, 3)
            for by in (3, -3)
        ]
    circular = discrete_consistency(linear, x, pixels=3, padding="circular")
    assert circular.mean == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-12)
    with pytest.raises(ValueError, match="does not suit"):
        discrete_consistency(pooled, x, pixels=8)
    with pytest.raises(ValueError, match=r"\[N, classes\]"):
        discrete_consistency(circular_cnn(), x, pixels=1)


def test_nan_fails() -> None:
    for metric in (group_sample_error, relative_error):
        with pytest.raises(NotFiniteError):
            metric(Nan(), images(), elements_of("p4"))
    with pytest.raises(NotFiniteError):
        discrete_consistency(nn.Sequential(Nan(), nn.Flatten()), images(), pixels=1)
