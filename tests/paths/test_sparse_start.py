"""The start of sparse paths: fits to the start of dense ones, so that signals keep their size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import symlearn
from symlearn.basis import Basis, BasisOptions
from symlearn.paths import SFC, SConv
from symlearn.relaxed import relaxed_layers
from tests.paths.layers import geometry

pytestmark = pytest.mark.core
DRAWS = 400


def assert_fits_white_noise(basis: Basis, root: torch.Tensor, rtol: float = 1e-6) -> None:
    """Assert that anchor values ``root`` [M, M], made of an identity, fit white noise on all sites.

    The functions of the fit then have the projector on their span as covariance.
    """
    phi = basis.matrix().double()
    maps = root.double() @ phi.T
    torch.testing.assert_close(
        maps.T @ maps, phi @ torch.linalg.pinv(phi, rtol=1e-3), rtol=rtol, atol=rtol
    )


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((3, 3), {}),
        ((6, 5), {"anchors": 0.4}),
        ((7,), {"anchors": 7}),
        ((4, 4), {"omega": 0.0}),  # all functions are the same
        ((3, 3, 2), {"omega": 3.0, "anchors": 5}),
    ],
)
def test_white_noise_is_fitted(size: tuple[int, ...], options: dict[str, Any]) -> None:
    basis = Basis(size, BasisOptions(**options))
    root = torch.eye(len(basis.anchors))
    basis.fit_white_(root)
    assert_fits_white_noise(basis, root, 1e-4)
    for wrong in (2 * root, torch.full_like(root, torch.nan)):
        with pytest.raises(AssertionError):
            assert_fits_white_noise(basis, wrong, 1e-4)


@pytest.mark.parametrize("spec", [SConv(), SConv(9), SFC(), SFC(anchors=3), SFC(omega=0.0)])
@pytest.mark.parametrize("mean", [0.0, 1.0], ids=["noise", "mean"])
def test_no_map_is_amplified_beyond_he(spec: Any, mean: float) -> None:
    path = spec.build(geometry(3, 4, (6, 6)))
    generator = torch.Generator().manual_seed(0)
    x = mean + (1 - mean) * torch.randn(1, 3, 6, 6, generator=generator)
    total = 0.0
    for _ in range(DRAWS):
        path.reset_parameters(generator)
        with torch.no_grad():
            total += float(path(x).square().mean()) / DRAWS
    # He's rule doubles the mean square of what is not at the border, for ReLU to halve it again
    assert total <= 2 * float(x.square().mean()) * 1.15
    if mean:  # few functions miss most of a noise
        assert total >= 0.02


@pytest.mark.parametrize("name", ["sconv", "sfc"])
def test_ten_layers_keep_the_size_of_the_signal(name: str) -> None:
    layers: list[nn.Module] = []
    for c_in in (1, *[8] * 9):
        layers += [nn.Conv2d(c_in, 8, 3, padding=1), nn.ReLU()]
    x = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    net = symlearn.wrap(nn.Sequential(*layers), x, paths=(name,), init="fresh", seed=0)
    assert len(relaxed_layers(net)) == 10
    with torch.no_grad():
        size = float(net(x).square().mean().sqrt())
    assert 1e-3 < size < 3.0


def test_layers_without_values_are_left_alone() -> None:
    with torch.device("meta"):
        path = SFC().build(geometry(2, 2, (4, 4)))
    path.to("meta").reset_parameters(torch.Generator().manual_seed(0))
    assert path.theta1.weight.is_meta
