"""Likelihoods against torch.distributions and automatic differentiation."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from curvature import LIKELIHOODS, Bernoulli, Categorical, Gaussian, Likelihood, as_likelihood
from tests.oracles import assert_near, negative_log_prob

pytestmark = pytest.mark.core

MODELS = {
    "categorical": Categorical(),
    "gaussian": Gaussian(),
    "gaussian-0.3": Gaussian(0.3),
    "bernoulli": Bernoulli(),
}


def outputs(n: int = 6, k: int = 4, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, k, generator=generator, dtype=torch.float64)


def targets(name: str, f: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if name == "categorical":
        return torch.randint(f.shape[1], f.shape[:1], generator=generator)
    y = torch.randn(f.shape, generator=generator, dtype=torch.float64)
    return (y > 0).double() if name == "bernoulli" else y


def oracle(name: str, likelihood: Likelihood) -> partial[Tensor]:
    """``-log p`` of one sample, by torch.distributions."""
    noise = likelihood.noise if isinstance(likelihood, Gaussian) else 1.0
    return partial(negative_log_prob, name.partition("-")[0], noise=noise)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_log_prob_sums_over_samples(name: str) -> None:
    likelihood, f = MODELS[name], outputs()
    y = targets(name, f)
    want = -sum(oracle(name, likelihood)(a, b) for a, b in zip(f, y, strict=True))
    assert_near(likelihood.log_prob(f, y), want, 1e-12)


def test_square_root_of_the_hessian(name: str) -> None:
    likelihood, f = MODELS[name], outputs()
    y = targets(name, f)
    columns = likelihood.sqrt_hessian(f).dense()
    assert columns.shape[1:] == f.shape

    def nll(a: Tensor, b: Tensor) -> Tensor:
        return -likelihood.log_prob(a.unsqueeze(0), b.unsqueeze(0))

    want = vmap(hessian(nll))(f, y)
    assert_near(torch.einsum("cnk,cnl->nkl", columns, columns), want, 1e-12)
    # and by the definition of the distribution, not by our own log_prob
    independent = torch.stack(
        [
            torch.autograd.functional.hessian(lambda a, b=b: oracle(name, likelihood)(a, b), a)
            for a, b in zip(f, y, strict=True)
        ]
    )
    assert_near(want, independent, 1e-12)


def test_residual_is_the_gradient(name: str) -> None:
    likelihood, f = MODELS[name], outputs()
    y = targets(name, f)
    want = grad(lambda a: -likelihood.log_prob(a, y))(f)
    assert_near(likelihood.residual(f, y), want, 1e-12)


def test_samples_have_the_right_moments(name: str) -> None:
    likelihood, n = MODELS[name], 20_000
    f = outputs(1, 4).expand(n, 4)
    y = likelihood.sample(f, torch.Generator().manual_seed(2))
    assert torch.equal(likelihood.check(f, y), y)
    values = torch.nn.functional.one_hot(y, 4).double() if y.ndim == 1 else y
    mean = likelihood.predict(f)[0]
    spread = {"gaussian": 1.0, "gaussian-0.3": 0.09}.get(name)
    variance = mean * (1 - mean) if spread is None else torch.full_like(mean, spread)
    error = (values.mean(0) - mean).abs()
    assert bool((error <= 4.5 * (variance / n).sqrt()).all())
    assert_near(values.var(0), variance, 0.1)


def test_gradients_at_samples_have_the_hessian_as_covariance(name: str) -> None:
    likelihood, n = MODELS[name], 40_000
    f = outputs(1, 3).expand(n, 3)
    g = likelihood.residual(f, likelihood.sample(f, torch.Generator().manual_seed(3)))
    columns = likelihood.sqrt_hessian(f[:1]).dense()[:, 0]
    want = columns.T @ columns
    products = torch.einsum("nk,nl->nkl", g, g)
    assert bool(((products.mean(0) - want).abs() <= 5 * products.std(0) / n**0.5).all())


def test_samples_repeat_with_their_generator(name: str) -> None:
    likelihood, f = MODELS[name], outputs(50)
    draws = [likelihood.sample(f, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_classes_of_no_probability_are_never_drawn() -> None:
    f = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(1000, 3)
    assert bool((Categorical().sample(f, torch.Generator()) == 1).all())


def test_saturated_bernoulli_keeps_its_curvature() -> None:
    f = torch.tensor([[20.0, -20.0]])  # in float32, 1 - sigmoid(20) is zero
    columns = Bernoulli().sqrt_hessian(f).dense()
    assert_near(columns.square().sum((0, 1)), torch.full((2,), math.exp(-20)), 1e-5)


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        (Categorical(), torch.zeros(3), "give integer class indices in 0..1"),
        (Categorical(), torch.zeros(3).bool(), "give integer class indices in 0..1"),
        (Categorical(), torch.zeros(3, 2).long(), "one class index per sample"),
        (Categorical(), torch.tensor([0, 1, 2]), "run from 0 to 2, but the network has 2 outputs"),
        (Categorical(), torch.tensor([0, -1, 1]), "run from -1 to 1"),
        (Gaussian(), torch.zeros(3), r"one value per network output, \[3, 2\]"),
        (Gaussian(), torch.full((3, 2), math.nan), "gaussian likelihood contain NaN"),
        (Gaussian(), torch.full((3, 2), math.inf), "gaussian likelihood contain NaN"),
        (Bernoulli(), torch.full((3, 2), 0.5), "must be 0 or 1"),
        (Bernoulli(), torch.full((3, 2), math.nan), "bernoulli likelihood contain NaN"),
        (Bernoulli(), torch.zeros(2, 2), r"one value per network output, \[3, 2\]"),
    ],
)
def test_wrong_targets(likelihood: Likelihood, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood.check(torch.zeros(3, 2), y)


def test_targets_take_the_form_the_maths_needs() -> None:
    f = torch.zeros(3, 1, dtype=torch.float64)
    assert Categorical().check(f, torch.zeros(3, dtype=torch.uint8)).dtype == torch.int64
    assert Gaussian().check(f, torch.tensor([1, 2, 3])).shape == (3, 1)
    assert Bernoulli().check(f, torch.tensor([True, False, True])).dtype == torch.float64


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, math.inf])
def test_noise_must_be_positive(noise: float) -> None:
    with pytest.raises(ValueError, match="positive, finite standard deviation"):
        Gaussian(noise)


def test_likelihoods_by_name() -> None:
    for key, kind in LIKELIHOODS.items():
        assert type(as_likelihood(key)) is kind
    own = Gaussian(2.0)
    assert as_likelihood(own) is own
    with pytest.raises(ValueError, match=r"unknown likelihood 'poisson'.*'bernoulli'.*'gaussian'"):
        as_likelihood("poisson")
