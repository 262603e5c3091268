"""The pass over data: factors against loops, sums over data, weights, sharing and precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import curvature
from curvature import KroneckerCurvature
from tests.cases import CASES, Case, MeanOver, case
from tests.oracles import assert_near, negative_log_prob, per_parameter, slow_patches

pytestmark = pytest.mark.core

ALL = pytest.mark.parametrize("which", CASES, ids=str)


def assert_same(got: KroneckerCurvature, want: KroneckerCurvature, tol: float = 1e-10) -> None:
    """Fail unless both have the same blocks, data and log likelihood."""
    assert list(got) == list(want)
    assert got.n_data == want.n_data
    assert_near(got.log_likelihood, want.log_likelihood, tol)
    for name, block in got.items():
        assert_near(block.to_dense(), want[name].to_dense(), tol)


def test_assert_same_fails() -> None:
    model, data = case("mlp").make()
    found = curvature.kronecker(model, data)
    others = [
        found.scaled(1.001),
        KroneckerCurvature(found, found.coverage, found.n_data + 1, found.log_likelihood, 1, 0),
        KroneckerCurvature(found, found.coverage, found.n_data, math.nan, 1, 0),
        KroneckerCurvature({}, found.coverage, found.n_data, found.log_likelihood, 1, 0),
    ]
    for other in others:
        with pytest.raises(AssertionError):
            assert_same(other, found)


def test_factors_of_a_convolution_are_the_loops() -> None:
    """``A = sum a a^T``, ``G = sum g g^T``, ``H = G (x) A / count``, by the definitions."""
    which = case("cnn-circular")
    model, (x, y) = which.make()
    conv, rest = model[0], model[1:]
    a = slow_patches(conv, x)
    grams = torch.zeros(4, 4, dtype=torch.float64)
    for sample in x:
        hidden = conv(sample.unsqueeze(0)).detach().requires_grad_(True)
        f = rest(hidden)[0]
        curved = torch.autograd.functional.hessian(
            lambda out: negative_log_prob("categorical", out, y[0]), f.detach()
        )
        values, vectors = torch.linalg.eigh(curved)
        for value, vector in zip(values.clamp(min=0), vectors.T, strict=True):
            (g,) = torch.autograd.grad(f @ vector, hidden, retain_graph=True)
            for site in g[0].flatten(1).T:
                grams += value * torch.outer(site, site)
    found = curvature.kronecker(model, (x, y))
    block = found["0.weight"]
    assert block.count == len(x) * 16
    assert_near(block.inputs.matrix[0], torch.einsum("nri,nrj->ij", a, a))
    assert_near(block.outputs.matrix[0], grams, 1e-8)
    assert_near(block.to_dense(), torch.kron(grams, block.inputs.matrix[0]) / block.count, 1e-8)
    assert_near(found["0.bias"].to_dense(), grams, 1e-8)


@ALL
@pytest.mark.parametrize("estimator", ["exact", "empirical"])
def test_batch_size_does_not_matter(which: Case, estimator: str) -> None:
    model, data = which.make(n=7)
    want = curvature.kronecker(model, data, which.likelihood, estimator)
    for batch_size in (1, 3):
        got = curvature.kronecker(
            model, data, which.likelihood, estimator, batch_size=batch_size, ekfac=False
        )
        assert_same(got, want)


@ALL
def test_adding_is_pooling_the_data(which: Case) -> None:
    model, (x, y) = which.make(n=7)
    parts = [
        curvature.kronecker(model, (x[part], y[part]), which.likelihood)
        for part in (slice(0, 3), slice(3, 7))
    ]
    assert_same(parts[0] + parts[1], curvature.kronecker(model, (x, y), which.likelihood))


@ALL
def test_duplicates_at_half_the_weight_change_nothing(which: Case) -> None:
    model, (x, y) = which.make()
    once = curvature.kronecker(model, (x, y), which.likelihood)
    pairs = [((once + once).scaled(0.5), 0.0), ((once.scaled(0.5) + once.scaled(0.5)), 0.0)]
    data = torch.cat([x, x]), torch.cat([y, y])
    pairs.append((curvature.kronecker(model, data, which.likelihood).scaled(0.5), 1e-12))
    for half, tol in pairs:
        assert_near(half.log_likelihood, once.log_likelihood, tol)
        for name, block in once.items():
            assert_near(half[name].to_dense(), block.to_dense(), tol)


def test_weights_count_as_repetitions_of_the_data() -> None:
    model, (x, y) = case("cnn").make(n=6)
    first, second = ((x[:2], y[:2]), (x[2:], y[2:]))
    a, b = curvature.kronecker(model, first), curvature.kronecker(model, second)
    repeated = torch.cat([x[:2], x[:2], x]), torch.cat([y[:2], y[:2], y])
    got, want = a.scaled(3) + b, curvature.kronecker(model, repeated)
    for name, block in got.items():
        assert_near(block.to_dense(), want[name].to_dense())
    assert_near(got.log_likelihood, want.log_likelihood)
    # data of no weight have no influence
    nearly = (a + b.scaled(1e-12))["0.weight"].to_dense()
    assert_near(nearly, a["0.weight"].to_dense(), 1e-9)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_weights_are_positive(factor: float) -> None:
    model, data = case("mlp").make()
    with pytest.raises(ValueError, match="must be positive and finite"):
        curvature.kronecker(model, data).scaled(factor)


def test_curvatures_of_different_parameters_cannot_be_added() -> None:
    model, data = case("mlp").make()
    whole, part = (curvature.kronecker(model, data, only=names) for names in (None, ["0.bias"]))
    with pytest.raises(ValueError, match=r"different parameters: \['0.weight', '2.bias'"):
        whole + part
    with pytest.raises(TypeError, match="eigenvalue-corrected"):
        whole + curvature.kronecker(model, data, ekfac=True)


@ALL
def test_log_likelihood_is_the_sum(which: Case) -> None:
    model, (x, y) = which.make()
    found = curvature.kronecker(model, (x, y), which.likelihood, batch_size=2)
    outputs = model(x).detach()
    terms = [negative_log_prob(which.likelihood, f, t) for f, t in zip(outputs, y, strict=True)]
    assert_near(found.log_likelihood, -sum(terms), 1e-12)
    assert found.n_data == len(x)


@ALL
def test_single_precision_is_close(which: Case) -> None:
    model, data = which.make(n=16)
    narrow, narrow_data = which.make(n=16, dtype=torch.float32)
    want = curvature.kronecker(model, data, which.likelihood)
    got = curvature.kronecker(narrow, narrow_data, which.likelihood)
    assert_near(got.log_likelihood, want.log_likelihood, 1e-4)
    for name, block in got.items():
        assert block.eigenvalues.dtype == torch.float32
        assert_near(block.to_dense(), want[name].to_dense(), 1e-3)
        assert_near(block.logdet(1.0), want[name].logdet(1.0), 1e-3)
        assert_near(block.effective_dim(1.0), want[name].effective_dim(1.0), 1e-3)


def test_half_precision_accumulates_in_single() -> None:
    which = case("mlp")
    model, data = which.make(dtype=torch.bfloat16)
    want = curvature.kronecker(*which.make())
    for name, block in curvature.kronecker(model, data).items():
        assert block.to_dense().dtype == torch.float32
        assert_near(block.to_dense(), want[name].to_dense(), 0.05)


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


FORMS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tensors": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "dataset": Pairs,
    "tensor dataset": TensorDataset,
    "loader": lambda x, y: DataLoader(Pairs(x, y), batch_size=3),
    "two batches": lambda x, y: [(x[:4], y[:4]), (x[4:], y[4:])],
    "generator": lambda x, y: ((x[i : i + 2], y[i : i + 2]) for i in range(0, len(x), 2)),
    "single precision": lambda x, y: (x.float(), y),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ekfac", [False, True])
def test_forms_of_data(form: str, ekfac: bool) -> None:
    model, (x, y) = case("mlp").make(n=7)
    x = x.float().double()
    want = curvature.kronecker(model, (x, y), ekfac=ekfac)
    assert_same(curvature.kronecker(model, FORMS[form](x, y), ekfac=ekfac), want)


def test_reduce_is_exact_for_a_linear_layer_before_a_mean() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False), MeanOver(1)).double()
    data = torch.randn(5, 4, 3, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)
    exact = curvature.dense_ggn(model, data, "gaussian")
    reduced, expanded = (
        curvature.kronecker(model, data, "gaussian", sharing=s)["0.weight"].to_dense()
        for s in ("reduce", "expand")
    )
    assert_near(reduced, exact)
    assert float((expanded - exact).norm() / exact.norm()) > 0.1


@pytest.mark.parametrize("which", [case("mlp"), case("factored")], ids=str)
def test_sharings_agree_on_one_position(which: Case) -> None:
    model, data = which.make()
    found = [
        curvature.kronecker(model, data, which.likelihood, sharing=s) for s in ("expand", "reduce")
    ]
    assert_same(*found)


class Flattened(nn.Module):
    """Applies a linear layer to [N * T, 3]: the samples are not its first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(0, 1)).reshape(len(x), -1, 2).tanh().mean(1)


def test_samples_on_another_axis() -> None:
    model = Flattened().double()
    plain = nn.Sequential(model.inner, nn.Tanh(), MeanOver(1))
    data = torch.randn(5, 4, 3, dtype=torch.float64), torch.zeros(5).long()
    # a sum over samples and positions does not care
    got, want = curvature.kronecker(model, data), curvature.kronecker(plain, data)
    for kind in ("weight", "bias"):
        assert_near(got[f"inner.{kind}"].to_dense(), want[f"0.{kind}"].to_dense())
    for options in ({"sharing": "reduce"}, {"ekfac": True}):
        with pytest.raises(ValueError, match="called on 20 rows in a batch of 5 samples"):
            curvature.kronecker(model, data, **options)


def test_unknown_names_are_listed() -> None:
    model, data = case("mlp").make()
    with pytest.raises(ValueError, match=r"unknown sharing 'sum'; choose one of \['expand'"):
        curvature.kronecker(model, data, sharing="sum")
    with pytest.raises(ValueError, match="unknown likelihood 'softmax'"):
        curvature.kronecker(model, data, "softmax")
    with pytest.raises(ValueError, match="batch_size is 0"):
        curvature.kronecker(model, data, batch_size=0)


def test_it_is_a_mapping() -> None:
    model, data = case("mlp").make()
    found = curvature.kronecker(model, data)
    assert list(found) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(found) == 4
    assert "0.weight" in found
    assert "nothing" not in found
    assert dict(found.items())["2.bias"] is found["2.bias"]
    assert "5 samples" in repr(found)
    assert "2.bias" in repr(found)
    for name, p in model.named_parameters():
        assert found[name].shape == p.shape


def test_only_gives_the_same_blocks() -> None:
    model, data = case("cnn").make()
    want = curvature.kronecker(model, data)
    got = curvature.kronecker(model, data, only=["0.weight"])
    assert list(got) == ["0.weight"]
    assert_near(got["0.weight"].to_dense(), want["0.weight"].to_dense())


@pytest.mark.parametrize("which", [case("cnn"), case("shared-linear"), case("factored")], ids=str)
def test_head_of_one_sample_is_exact(which: Case) -> None:
    model, data = which.make(n=1)
    exact = per_parameter(model, curvature.dense_ggn(model, data, which.likelihood))
    found = curvature.kronecker(model, data, which.likelihood)
    for name in list(found)[-2:]:  # whatever comes before it, the head sees one position
        assert_near(found[name].to_dense(), exact[name])


def test_large_batches_are_split() -> None:
    model, (x, y) = case("cnn-circular").make()
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = curvature.kronecker(model, [(x, y)], batch_size=2)
    hook.remove()
    assert max(seen) == 2
    assert_same(found, curvature.kronecker(model, (x, y)), 1e-12)


def test_branches_and_calls_without_influence() -> None:
    """Gradients arrive whichever way they take, and the graph's dead ends count as zero."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.side = nn.Linear(3, 4), nn.Linear(3, 4)
            self.last, self.dead = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x).tanh()
            self.dead(hidden)
            out: Tensor = self.last(hidden + self.side(x)) + self.last(hidden)
            return out

    model = Branches().double()
    data = torch.randn(1, 3, dtype=torch.float64), torch.tensor([1])
    found = curvature.kronecker(model, data)
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for name in ("first.weight", "side.weight", "first.bias", "side.bias"):
        assert_near(found[name].to_dense(), exact[name])
    assert not bool(found["dead.weight"].to_dense().any())
