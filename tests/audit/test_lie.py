"""The Lie derivative equals known ones, and the aliasing theorem."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symlearn.audit import (
    Affine,
    Averaged,
    NoDerivativeError,
    NotFiniteError,
    as_transformations,
    lie_derivative,
    measure,
)
from symlearn.audit.aliasing import aliasing_error
from symlearn.audit.lie import DOUBLE, FORWARD
from tests.nets import Map

pytestmark = pytest.mark.core


def images(n: int = 2, channels: int = 2, size: int = 6) -> Tensor:
    return torch.randn(n, channels, size, size, dtype=torch.float64)


def as_matrix(transform: Affine, size: int) -> Tensor:
    """The generator on flattened maps, A [H W, H W], with A e in column e."""
    basis = torch.eye(size * size, dtype=torch.float64).reshape(-1, size, size)
    return transform.generator(basis).flatten(1).T


@pytest.mark.parametrize("padding", ["reflection", "circular", "zeros"])
@pytest.mark.parametrize("name", ["rotation", "hyperbolic", "translation_x"])
def test_a_linear_map_has_the_known_derivative(name: str, padding: str) -> None:
    (transform,) = as_transformations(name, padding=padding)
    assert isinstance(transform, Affine)
    x = images(channels=1)
    a = as_matrix(transform, 6)
    w = torch.randn(36, 36, dtype=torch.float64)
    to_map = Map(lambda v: (v.flatten(1) @ w.T).reshape(v.shape))
    flat = x.flatten(1)
    expected = flat @ (w @ a - a @ w).T  # the commutator
    found = lie_derivative(to_map, x, transform).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    as_vector = lie_derivative(to_map, x, transform, output="vector").flatten(1)
    torch.testing.assert_close(as_vector, flat @ (w @ a).T, rtol=0, atol=1e-10)


def test_it_is_the_limit_of_finite_transformations() -> None:
    (transform,) = as_transformations("rotation", "bicubic")
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh()).double()
    x, t = images(), 1e-5

    def conjugated(t: float) -> Tensor:
        return transform.act(net(transform.act(x, t)), -t)

    slope = (conjugated(t) - conjugated(-t)) / (2 * t)
    torch.testing.assert_close(lie_derivative(net, x, transform), slope, rtol=0, atol=1e-4)


def test_both_norms() -> None:
    (transform,) = as_transformations("shear")
    net, x = nn.Conv2d(2, 3, 3).double(), images(5)
    lie = lie_derivative(net, x, transform).flatten(1)
    found = measure(net, x, transform, batch=2)
    each = lie.abs().mean(1), lie.square().mean(1)
    assert found.mean_abs == pytest.approx(float(each[0].mean()), rel=1e-12)
    assert found.mean_square == pytest.approx(float(each[1].mean()), rel=1e-12)
    assert found.mean_square_error == pytest.approx(float(each[1].std()) / 5**0.5, rel=1e-12)
    assert (found.n_images, found.output_dim, found.method) == (5, 48, FORWARD)
    assert found.output_square == pytest.approx(float(net(x).detach().square().mean()), rel=1e-12)


@pytest.mark.parametrize("resampling", ["bilinear", "fourier"])
def test_a_circular_convolution_does_not_depend_on_translation(resampling: str) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular").double()
    for transform in as_transformations(("translation_x", "translation_y"), resampling, "circular"):
        assert float(lie_derivative(conv, images(), transform).abs().max()) < 1e-12


def test_an_invariant_of_values() -> None:
    (brightness,) = as_transformations("brightness")
    centred = Map(lambda v: v - v.mean((-2, -1), keepdim=True))
    assert float(lie_derivative(centred, images(), brightness).abs().max()) < 1e-12
    shifted = lie_derivative(nn.Identity(), images(), brightness, output="image")
    assert float(shifted.abs().max()) < 1e-12  # f(x + t) - t does not depend on t
    assert float((lie_derivative(nn.Identity(), images(), brightness) - 1).abs().max()) < 1e-12


def test_attention_has_a_forward_derivative() -> None:
    def attend(v: Tensor) -> Tensor:
        rows = v.flatten(2)
        return nn.functional.scaled_dot_product_attention(rows, rows, rows)

    (transform,) = as_transformations("rotation")
    found = measure(Map(attend), images(), transform)
    assert found.method == FORWARD
    assert found.mean_square > 0


class _Twice(torch.autograd.Function):
    """x^2 with a backward pass that can be differentiated, and no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * g[0]


class _Once(_Twice):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * g[0]


def test_operations_without_forward_mode() -> None:
    (transform,) = as_transformations("rotation")
    x = images()
    expected = lie_derivative(Map(lambda v: v * v), x, transform)
    torch.testing.assert_close(lie_derivative(Map(_Twice.apply), x, transform), expected)
    assert measure(Map(_Twice.apply), x, transform).method == DOUBLE
    with pytest.raises(NoDerivativeError, match=r"forward mode.*double backward"):
        lie_derivative(Map(_Once.apply), x, transform)
    with pytest.raises(NoDerivativeError, match="differentiated again"):
        lie_derivative(Map(lambda v: v + _Once.apply(v)), x, transform)
    with pytest.raises(NoDerivativeError, match="cut off"):
        lie_derivative(Map(lambda v: _Once.apply(v).detach()), x, transform)


def test_nan_fails() -> None:
    (transform,) = as_transformations("rotation")
    with pytest.raises(NotFiniteError, match="output"):
        lie_derivative(Map(lambda v: v * float("nan")), images(), transform)
    # finite outputs, infinite slope
    with pytest.raises(NotFiniteError, match="Lie derivative along rotation"):
        lie_derivative(Map(lambda v: (v - v.detach()).abs().sqrt()), images(), transform)


@pytest.mark.parametrize(
    ("f", "error"),
    [
        (lambda v: (v, v), "tuple"),
        (lambda v: v.argmax(1), "int64"),
        (lambda v: v.sum(), "one row per image"),
    ],
)
def test_other_outputs_are_errors(f: Any, error: str) -> None:
    (transform,) = as_transformations("rotation")
    with pytest.raises((TypeError, ValueError), match=error):
        lie_derivative(Map(f), images(), transform)


def test_a_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout()).double()
    (transform,) = as_transformations("rotation")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    lie_derivative(net, images(), transform)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def band_limited(rows: int, columns: int, without: int | None = None, size: int = 8) -> Tensor:
    """Random maps with frequencies up to the given ones, and none of the one given last."""
    n = torch.fft.fftfreq(size, 1 / size).abs()
    keep = (n[:, None] <= rows) & (n <= columns)
    if without is not None:
        keep &= n != without
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(x) * keep).real


def measured_aliasing(x: Tensor, step: int, velocity: tuple[float, float]) -> Tensor:
    transform = Affine("v", shift=velocity, resampling="fourier", padding="circular")
    down = Map(lambda v: v[..., ::step, ::step])
    return lie_derivative(down, x, transform).square().sum((-2, -1))


@pytest.mark.parametrize("velocity", [(1.0, 0.0), (0.0, 1.0), (0.6, -0.8)])
@pytest.mark.parametrize("step", [2, 4])
def test_aliasing_in_closed_form(step: int, velocity: tuple[float, float]) -> None:
    x = band_limited(3, 3)
    expected = aliasing_error(x, step, velocity)
    found = measured_aliasing(x, step, velocity)
    assert float(expected.min()) > 1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def printed(x: Tensor, velocity: tuple[float, float]) -> Tensor:
    """Theorem 4.1 for step 2, mode by mode; norms are sums over the coarse sites."""
    size = x.shape[-1]
    series = torch.fft.fft2(x)[:, 0] / size**2
    total = torch.zeros(len(x), dtype=torch.float64)
    half = size // 2

    def alias(n: int) -> int:
        return n % half if n % half < half / 2 else n % half - half

    for m in range(1 - half, half):
        for n in range(1 - half, half):
            wrong = (velocity[0] * (alias(n) - n)) ** 2 + (velocity[1] * (alias(m) - m)) ** 2
            total += series[:, m, n].abs().square() * wrong * half**2
    return ((2 * torch.pi) ** 2 * total).unsqueeze(1)


def test_theorem_4_1() -> None:
    # the coarse grid shows |m| < 2 exactly; its waves n = 2 and n = -2 are the same
    x = band_limited(1, 3, without=2)
    expected = printed(x, (1.0, 0.0))
    found = measured_aliasing(x, 2, (1.0, 0.0))
    assert float(expected.min()) > 1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    # as printed it leaves out what modes that fall on the same mode do to each other
    both = band_limited(3, 3)
    true = aliasing_error(both, 2, (0.6, 0.8))
    assert float((printed(both, (0.6, 0.8)) / true - 1).abs().max()) > 0.01
    fine = band_limited(1, 1)
    assert float(aliasing_error(fine, 2, (1.0, 1.0)).max()) < 1e-20
    with pytest.raises(ValueError, match="does not divide"):
        aliasing_error(fine, 3, (1.0, 0.0))


def test_an_averaged_network_has_no_error_under_the_group() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()).double()
    x = images()
    averaged = Averaged(net, "p4").requires_grad_(False)
    turned = averaged(x.rot90(1, (-2, -1)))
    torch.testing.assert_close(turned, averaged(x).rot90(1, (-2, -1)), rtol=0, atol=1e-12)
    assert float((net(x.rot90(1, (-2, -1))) - net(x).rot90(1, (-2, -1))).abs().max()) > 0.1
