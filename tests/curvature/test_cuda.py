"""The same numbers on a GPU, where there is one."""

from __future__ import annotations

import pytest
import torch

import curvature
import priors
from tests.cases import CASES, Case
from tests.oracles import assert_near

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.mark.parametrize("which", CASES, ids=str)
@pytest.mark.parametrize("estimator", curvature.ESTIMATORS)
@pytest.mark.parametrize("ekfac", [False, True])
def test_a_gpu_gives_the_cpus_numbers(which: Case, estimator: str, ekfac: bool) -> None:
    model, data = which.make()
    options = {"estimator": estimator, "ekfac": ekfac, "seed": 3}
    want = curvature.kronecker(model, data, which.likelihood, **options)
    got = curvature.kronecker(model.cuda(), data, which.likelihood, **options)
    params = dict(model.named_parameters())
    assert_near(got.log_likelihood, want.log_likelihood)
    for name, block in got.items():
        assert block.eigenvalues.is_cuda
        assert_near(block.to_dense().cpu(), want[name].to_dense())
        draw = block.sample(1.0, torch.Generator().manual_seed(0))
        assert draw.is_cuda
        assert draw.shape == params[name].shape
        assert block.sample(1.0, torch.Generator("cuda").manual_seed(0)).is_cuda
    found = []
    for each, weights in ((got, params), (want, {n: p.cpu() for n, p in params.items()})):
        prior = priors.PathPrior({name: [name] for name in each})
        prior.update(each, weights)
        assert not prior.log_precision.is_cuda
        found.append(
            torch.tensor(
                [
                    *prior.precision.tolist(),
                    priors.log_evidence(each.log_likelihood, each, weights, prior),
                    float(prior.log_prob(weights)),
                ],
                dtype=torch.float64,
            )
        )
    assert_near(found[0], found[1], 1e-8)


def test_fallbacks_and_dense_matrix_on_a_gpu() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.PReLU(4), torch.nn.Linear(4, 3))
    model, data = model.double(), (torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]))
    want = curvature.kronecker(model, data, fallback="dense")["1.weight"].to_dense()
    dense = curvature.dense_ggn(model, data)
    model.cuda()
    assert_near(curvature.dense_ggn(model, data).cpu(), dense)
    got = curvature.kronecker(model, data, fallback="dense")["1.weight"].to_dense()
    assert_near(got.cpu(), want)
