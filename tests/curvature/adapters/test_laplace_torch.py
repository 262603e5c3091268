"""laplace-torch on this package's curvature, against the native engine and dense algebra."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
import priors
from tests.conftest import need
from tests.curvature.adapters.nets import CLASSES, NETS, Data, Tail, make, relaxed
from tests.oracles import assert_near

laplace = need("laplace")
backends = need("laplace.curvature")
adapter = importlib.import_module("curvature.adapters.laplace_torch")

pytestmark = [
    # asdl hooks backward passes in a way that torch is about to give up
    pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning"),
    pytest.mark.filterwarnings("ignore:By default `link_approx` is `probit`:UserWarning"),
]

NOISE = 0.7
NAMES = {"categorical": "classification", "gaussian": "regression"}


def loader(data: Data, batch_size: int = 5) -> Any:
    return DataLoader(TensorDataset(*data), batch_size=batch_size)


def fitted(
    model: nn.Module,
    data: Data,
    likelihood: str = "categorical",
    structure: str = "blocks",
    backend: Any = None,
    **options: Any,
) -> Any:
    noise = {"sigma_noise": NOISE} if likelihood == "gaussian" else {}
    backend = adapter.SymlearnGGN if backend is None else backend
    found = laplace.Laplace(
        model, NAMES[likelihood], "all", structure, backend=backend, **noise, **options
    )
    found.fit(loader(data))
    return found


def native(model: nn.Module, data: Data, likelihood: str = "categorical") -> Any:
    own = curvature.Gaussian(NOISE) if likelihood == "gaussian" else likelihood
    return curvature.kronecker(model, data, own)


def evidence(model: nn.Module, found: Any, precision: Tensor) -> float:
    prior = priors.PathPrior({name: [name] for name in found}, precision)
    return priors.log_evidence(found.log_likelihood, found, dict(model.named_parameters()), prior)


def precisions(model: nn.Module) -> Tensor:
    tensors = sum(p.requires_grad for p in model.parameters())
    return torch.linspace(0.5, 4, tensors, dtype=torch.float64)


def posterior(found: Any, precision: Tensor) -> Tensor:
    """The posterior precision, assembled from dense blocks, [P, P]."""
    parts = []
    for block, delta in zip(found.values(), precision, strict=True):
        dense = block.to_dense()
        parts.append(dense + delta * torch.eye(len(dense), dtype=dense.dtype))
    return torch.block_diag(*parts)


@pytest.mark.parametrize("likelihood", NAMES)
@pytest.mark.parametrize("name", NETS)
def test_evidence_is_the_native_engines(name: str, likelihood: str) -> None:
    model, data = make(name, likelihood)
    found = native(model, data, likelihood)
    per_tensor = precisions(model)
    # parameters of five axes are more than laplace-torch's own class can start from
    five = any(p.ndim > 4 for p in model.parameters())
    for structure in ("blocks",) if five else ("kron", "blocks"):
        theirs = fitted(model, data, likelihood, structure)
        for precision in (torch.tensor(2.5, dtype=torch.float64), per_tensor):
            want = evidence(model, found, precision)
            assert_near(theirs.log_marginal_likelihood(prior_precision=precision), want, 1e-11)
    other = evidence(model, found, per_tensor + 0.1)
    assert abs(other / want - 1) > 1e-6  # so the agreement says something


@pytest.mark.parametrize("name", ["residual", "five axes", "relaxed ffc", "relaxed circular"])
def test_determinant_inverse_and_root_against_dense_algebra(name: str) -> None:
    model, data = make(name)
    theirs = fitted(model, data)
    theirs.prior_precision = precisions(model)
    dense = posterior(native(model, data), precisions(model))
    p = theirs.posterior_precision
    assert_near(p.logdet(), torch.linalg.slogdet(dense).logabsdet, 1e-11)
    assert_near(p.to_matrix(), dense, 1e-12)
    assert_near(p.diag(exponent=-1), torch.linalg.inv(dense).diagonal(), 1e-9)
    w = torch.randn(4, 2, len(dense), dtype=torch.float64)
    assert_near(p.inv_square_form(w), w @ torch.linalg.solve(dense, w.mT), 1e-9)
    root = p.to_matrix(exponent=-0.5)
    assert_near(root @ dense @ root, torch.eye(len(dense), dtype=torch.float64), 1e-9)


def test_matrix_before_the_prior() -> None:
    model, data = make("relaxed ffc")
    h = fitted(model, data).H_facs
    dense = torch.block_diag(*(block.to_dense() for block in native(model, data).values()))
    w = torch.randn(3, len(dense), dtype=torch.float64)
    assert_near(h.to_matrix(), dense, 1e-12)
    assert_near(h.diag(), dense.diagonal(), 1e-12)
    assert_near(h.bmm(w), w @ dense, 1e-11)
    assert_near((2.5 * h).to_matrix(), 2.5 * dense, 1e-12)
    assert_near((h + h).to_matrix(), 2 * dense, 1e-12)
    assert len(h) == len(list(model.parameters())) - 2  # the normalisation's two are frozen
    assert not torch.isfinite(h.logdet())  # more weights than output gradients
    with pytest.raises(TypeError, match="decompose"):
        h * torch.ones((), requires_grad=True)


def test_plain_factors_are_those_of_laplace_torch() -> None:
    model, data = make("convolutions")
    model[2] = nn.Conv2d(4, 4, 3, stride=2, padding=1).double()  # it cannot hold groups
    ours, theirs = fitted(model, data), fitted(model, data, backend=backends.CurvlinopsGGN)
    pairs = zip(ours.H_facs.kfacs, theirs.H_facs.kfacs, strict=True)
    for mine, other in pairs:
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            assert a.shape == b.shape
        assert_near(dense_of(mine), dense_of(other), 1e-11)


def dense_of(factors: list[Tensor]) -> Tensor:
    return factors[0] if len(factors) == 1 else torch.kron(*factors)


@pytest.mark.parametrize("name", ["linear", "relaxed ffc"])
def test_linearised_predictive(name: str) -> None:
    model, (x, y) = make(name, "gaussian")
    theirs = fitted(model, (x, y), "gaussian")
    theirs.prior_precision = precisions(model)
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for output in model(x[:1])[0]:
        grads = torch.autograd.grad(output, params, retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    jacobian = torch.stack(rows)
    dense = posterior(native(model, (x, y), "gaussian"), precisions(model))
    mean, variance = theirs(x[:1])
    assert_near(mean, model(x[:1]))
    assert_near(variance[0], jacobian @ torch.linalg.solve(dense, jacobian.T), 1e-9)


def test_sampled_predictive_leaves_the_weights_and_has_the_posteriors_spread() -> None:
    model, (x, y) = make("relaxed ffc", "gaussian")
    theirs = fitted(model, (x, y), "gaussian")
    theirs.prior_precision = 1e4 * torch.ones(1)  # so narrow that the network is linear
    before = [p.clone() for p in model.parameters()]
    mean, variance = theirs(x, pred_type="nn", link_approx="mc", n_samples=400)
    linear, covariance = theirs(x)
    for old, new in zip(before, model.parameters(), strict=True):
        assert_near(new, old, 1e-15)
    spread = covariance.diagonal(dim1=1, dim2=2)
    assert float(((mean - linear).square() / spread).mean()) < 0.1
    assert float((variance / spread).log().abs().max()) < 0.5


@pytest.mark.parametrize("name", ["relaxed ffc", "relaxed circular", "residual"])
def test_classification_predictives_are_probabilities(name: str) -> None:
    model, (x, y) = make(name)
    theirs = fitted(model, (x, y), structure="kron")
    plain = model(x).softmax(1)
    for options in ({}, {"link_approx": "mc"}, {"pred_type": "nn", "link_approx": "mc"}):
        p = theirs(x, **options)
        assert_near(p.sum(1), torch.ones(len(x), dtype=torch.float64))
        assert not torch.allclose(p, plain)


@pytest.mark.parametrize("structure", ["scalar", "layerwise"])
def test_optimised_precisions_raise_the_evidence(structure: str) -> None:
    model, data = make("relaxed ffc")
    theirs = fitted(model, data)
    before = float(theirs.log_marginal_likelihood())
    theirs.optimize_prior_precision(n_steps=40, prior_structure=structure)
    assert len(theirs.prior_precision) == (1 if structure == "scalar" else len(theirs.H_facs))
    after = float(theirs.log_marginal_likelihood())
    assert after > before + 1
    assert_near(after, evidence(model, native(model, data), theirs.prior_precision), 1e-10)


def noise_slope(found: Any, sigma: float) -> tuple[float, float]:
    """Derivative of the evidence in the noise by autograd and by a finite difference."""
    noise = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(found.log_marginal_likelihood(sigma_noise=noise), noise)
    step = 1e-5
    pair = [
        float(found.log_marginal_likelihood(sigma_noise=torch.tensor(s, dtype=torch.float64)))
        for s in (sigma + step, sigma - step)
    ]
    return float(slope), (pair[0] - pair[1]) / (2 * step)


def test_gradient_in_the_noise_is_right_here_and_wrong_there() -> None:
    model, data = make("linear", "gaussian")
    for structure in ("kron", "blocks"):
        slope, want = noise_slope(fitted(model, data, "gaussian", structure), 0.8)
        assert slope == pytest.approx(want, rel=1e-6)
    stock = fitted(model, data, "gaussian", "kron", backends.CurvlinopsGGN)
    slope, same = noise_slope(stock, 0.8)
    assert same == pytest.approx(want, rel=1e-6)
    assert abs(slope / want - 1) > 0.01


def test_training_by_marginal_likelihood_follows_the_stock_backend() -> None:
    losses = []
    for backend in (adapter.SymlearnGGN, backends.AsdlGGN):
        model, data = make("linear")
        _, _, margliks, _ = laplace.marglik_training(
            model, loader(data), backend=backend, n_epochs=4, n_hypersteps=3
        )
        losses.append(torch.tensor(margliks, dtype=torch.float64))
    assert len(losses[0]) == 12
    assert_near(losses[0], losses[1], 1e-9)


@pytest.mark.parametrize("structure", ["kron", "blocks"])
def test_training_by_marginal_likelihood_of_a_relaxed_network(structure: str) -> None:
    model, data = make("relaxed ffc")
    found, _, margliks, _ = laplace.marglik_training(
        model,
        loader(data),
        hessian_structure=structure,
        backend=adapter.SymlearnGGN,
        n_epochs=5,
        n_hypersteps=3,
    )
    assert margliks[-1] < margliks[0] - 1
    assert len(found.prior_precision) == len(found.H_facs)


def test_silent_skips_of_the_stock_backend_are_no_skips_here() -> None:
    """A module that asdl does not know, at the end: its factors are missing without a word."""
    _, data = make("linear")
    last = Tail(4, CLASSES)
    known = nn.Linear(4, CLASSES, bias=False)
    known.weight = nn.Parameter(last.weight.detach().T.contiguous())
    front = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh()).double()
    want = fitted(nn.Sequential(front, known), data, "categorical", "kron", backends.AsdlGGN)
    want = float(want.log_marginal_likelihood())
    model = nn.Sequential(front, last)
    ours = float(fitted(model, data).log_marginal_likelihood())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not even a warning
        warnings.filterwarnings("ignore", "Using a non-full backward hook")
        stock = fitted(model, data, "categorical", "kron", backends.AsdlGGN)
    assert ours == pytest.approx(want, rel=1e-10)
    assert abs(float(stock.log_marginal_likelihood()) / want - 1) > 0.01


def test_a_frozen_bias() -> None:
    """asdl hands over the factors of a frozen bias as well: every later one is misplaced."""
    _, data = make("linear")
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[1].bias.requires_grad_(False)
    found = native(model, data)
    assert list(found) == ["1.weight", "3.weight", "3.bias"]
    want = evidence(model, found, torch.ones(3))
    for structure in ("kron", "blocks"):
        ours = fitted(model, data, structure=structure)
        assert float(ours.log_marginal_likelihood()) == pytest.approx(want, rel=1e-11)
    stock = fitted(model, data, structure="kron", backend=backends.AsdlGGN)
    assert abs(float(stock.log_marginal_likelihood()) / want - 1) > 1e-3


def test_trainable_normalisation_is_refused_by_name() -> None:
    model = relaxed("ffc").double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(True)
    _, data = make("linear")
    with pytest.raises(ValueError, match=r"\['1\.bias', '1\.weight'\].*Freeze them"):
        fitted(model, data)


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_fallback(kind: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(CLASSES) + 0.3 * torch.randn(CLASSES))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x

    model, data = make("linear")
    model = nn.Sequential(model, Scaled().double())
    ours = fitted(model, data, backend_kwargs={"fallback": kind})
    found = curvature.kronecker(model, data, fallback=kind)
    want = evidence(model, found, precisions(model))
    assert_near(ours.log_marginal_likelihood(precisions(model)), want, 1e-11)
    assert "1.scale" in found
    with pytest.raises(curvature.UncoveredParameterError, match=r"1\.scale"):
        fitted(model, data)
    with pytest.raises(ValueError, match="no curvature"):
        fitted(model, data, backend_kwargs={"fallback": "fixed"})


@pytest.mark.parametrize("name", ["relaxed ffc", "transposed"])
@pytest.mark.parametrize("structure", ["kron", "blocks"])
def test_saved_state_keeps_the_posterior(name: str, structure: str) -> None:
    model, data = make(name)
    old = fitted(model, data, structure=structure, prior_precision=precisions(model))
    new = laplace.Laplace(model, "classification", "all", structure, backend=adapter.SymlearnGGN)
    new.load_state_dict(old.state_dict())
    assert_near(new.log_marginal_likelihood(), old.log_marginal_likelihood(), 1e-11)
    x = data[0][:2]
    assert_near(new(x), old(x), 1e-10)
    with pytest.raises(TypeError, match="cannot be added to"):
        new.fit(loader(data), override=False)


@pytest.mark.parametrize("structure", ["kron", "blocks"])
def test_more_data_are_added(structure: str) -> None:
    model, (x, y) = make("relaxed ffc")
    theirs = fitted(model, (x[:7], y[:7]), structure=structure)
    theirs.fit(loader((x[7:], y[7:])), override=False)
    dense = [block.to_dense() for block in native(model, (x, y)).values()]
    assert_near(theirs.H_facs.to_matrix(), torch.block_diag(*dense), 1e-12)


def test_blocks_and_a_stock_backend() -> None:
    model, data = make("linear")
    want = fitted(model, data, structure="kron", backend=backends.CurvlinopsGGN)
    got = fitted(model, data, structure="blocks", backend=backends.CurvlinopsGGN)
    assert_near(got.log_marginal_likelihood(), want.log_marginal_likelihood(), 1e-12)


def test_the_factory_makes_the_class_that_was_asked_for() -> None:
    model, _ = make("linear")
    for structure, kind in (("kron", laplace.KronLaplace), ("blocks", adapter.BlockLaplace)):
        found = laplace.Laplace(model, "classification", "all", structure)
        assert type(found) is kind


def test_last_layer() -> None:
    model, data = make("residual")
    model.scale = nn.Parameter(torch.ones(1).double())  # not of the last layer: needs no rule
    theirs = laplace.Laplace(
        model, "classification", "last_layer", "kron", backend=adapter.SymlearnGGN
    )
    theirs.fit(loader(data))
    found = curvature.kronecker(model, data, only=["head.weight", "head.bias"])
    want = evidence(model, found, torch.tensor(1.0, dtype=torch.float64))
    assert_near(theirs.log_marginal_likelihood(), want, 1e-11)


def test_full_structure_is_the_dense_oracle() -> None:
    model, data = make("relaxed ffc")
    theirs = fitted(model, data, structure="full")
    assert_near(theirs.H, curvature.dense_ggn(model, data), 1e-10)


def test_sampled_labels_differ_from_batch_to_batch_and_repeat_with_the_seed() -> None:
    model, data = make("linear")
    options = {"backend_kwargs": {"estimator": "mc", "draws": 2}}
    torch.manual_seed(3)
    first = fitted(model, data, **options).H_facs.to_matrix()
    torch.manual_seed(3)
    again = fitted(model, data, **options).H_facs.to_matrix()
    third = fitted(model, data, **options).H_facs.to_matrix()
    assert_near(first, again, 1e-15)
    assert not torch.allclose(first, third)


def test_single_precision() -> None:
    model, (x, y) = make("relaxed ffc")
    want = evidence(model, native(model, (x, y)), torch.tensor(0.1))
    ours = fitted(model.float(), (x.float(), y), prior_precision=0.1)
    found = ours.log_marginal_likelihood()
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(want, rel=1e-4)


def test_bad_use() -> None:
    model, data = make("linear")
    with pytest.raises(ValueError, match="damping=True is not supported"):
        fitted(model, data, damping=True)
    with pytest.raises(TypeError, match=r"unknown options \['ekfac'\]"):
        fitted(model, data, backend_kwargs={"ekfac": True})
    with pytest.raises(ValueError, match="choose one of"):
        adapter.SymlearnGGN(model, "poisson")
    with pytest.raises(TypeError, match="takes tensors only"):
        adapter.SymlearnGGN(model, "classification").kron({"x": data[0]}, data[1], 12)
