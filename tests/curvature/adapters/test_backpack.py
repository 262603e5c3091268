"""BackPACK on registered rules, against the native engine; and where stock BackPACK is wrong."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import Block
from tests.conftest import need
from tests.curvature.adapters.nets import CLASSES, NETS, Data, make
from tests.oracles import assert_near, per_parameter

backpack = need("backpack")
extensions = need("backpack.extensions")
branching = need("backpack.custom_module.branching")
scaling = need("backpack.custom_module.scale_module")
adapter = importlib.import_module("curvature.adapters.backpack")

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")


def blocks(
    model: nn.Module, data: Data, *, whole: bool = False, kind: str = "KFLR", **options: Any
) -> dict[str, Block]:
    """Curvature from one backward pass under the adapter's extension."""
    x, y = data
    ready = adapter.extend(model, whole=whole)
    loss = nn.CrossEntropyLoss(reduction="sum") if y.ndim == 1 else nn.MSELoss(reduction="sum")
    extension = getattr(adapter, kind)(ready, **options)
    with backpack.backpack(extension):
        adapter.extend(loss)(ready(x), y).backward()
    return extension.collect()


def stock(model: nn.Module, data: Data) -> list[list[Tensor]]:
    """Factors of BackPACK's own KFLR."""
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    output = backpack.extend(model)(data[0])
    with backpack.backpack(extensions.KFLR()):
        loss(output, data[1]).backward()
    return [p.kflr for p in model.parameters()]


def trace(factors: list[Tensor]) -> float:
    return float(torch.stack([f.trace() for f in factors]).prod())


def assert_equal(got: Mapping[str, Block], want: Mapping[str, Block], tol: float = 1e-10) -> None:
    assert list(got) == list(want)
    for name, block in want.items():
        assert_near(got[name].to_dense(), block.to_dense(), tol)


@pytest.mark.parametrize("name", NETS)
def test_factors_are_the_native_engines(name: str) -> None:
    model, data = make(name)
    want = curvature.kronecker(model, data)
    assert_equal(blocks(model, data, whole=name == "relaxed circular"), want)


@pytest.mark.parametrize("name", ["convolutions", "relaxed ffc"])
def test_as_one_operation(name: str) -> None:
    model, data = make(name)
    assert_equal(blocks(model, data, whole=True), curvature.kronecker(model, data))


def test_squared_error_counts_twice() -> None:
    model, data = make("relaxed ffc", "gaussian")
    want = curvature.kronecker(model, data, "gaussian").scaled(2)
    got = blocks(model, data)
    for name, block in want.items():
        # both factors of the value object are weighed there, one of them here
        assert_near(got[name].to_dense(), block.to_dense(), 1e-10)


def test_batches_add_up() -> None:
    model, (x, y) = make("relaxed ffc")
    parts = [blocks(model, (x[s], y[s])) for s in (slice(0, 5), slice(5, None))]
    total = {name: block + parts[1][name] for name, block in parts[0].items()}
    assert_equal(total, curvature.kronecker(model, (x, y)))


def test_sampled_labels_have_the_right_mean() -> None:
    model, data = make("relaxed ffc")
    want = curvature.kronecker(model, data)
    got = blocks(model, data, kind="KFAC", mc_samples=3000)
    assert list(got) == list(want)
    for name, block in want.items():
        assert_near(got[name].to_dense(), block.to_dense(), 0.2)


def test_branches_add_up_here_and_fail_there() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        half = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), scaling.ScaleModule(0.5))
        return nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.ReLU(),
            branching.Parallel(half, nn.Conv2d(2, 2, 1)),
            nn.Flatten(),
            nn.Linear(72, CLASSES),
        ).double()

    _, data = make("linear")
    want = curvature.kronecker(net(), data)
    assert_equal(blocks(net(), data), want)
    with pytest.raises(NotImplementedError, match="No accumulation rule"):
        stock(net(), data)


def test_circular_padding_is_right_here_and_wrong_there() -> None:
    """One sample and one site: the factors are exact, so whoever differs is wrong."""

    def net() -> nn.Module:
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 4, 3, stride=3, padding=1, padding_mode="circular")
        return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(4, CLASSES)).double()

    data = torch.randn(1, 2, 3, 3, dtype=torch.float64), torch.tensor([1])
    exact = per_parameter(net(), curvature.dense_ggn(net(), data))
    got = blocks(net(), data)
    for name, matrix in exact.items():
        assert_near(got[name].to_dense(), matrix, 1e-10)
    wrong = trace(stock(net(), data)[0])
    assert abs(wrong / float(exact["0.weight"].trace()) - 1) > 0.05


def test_input_factor_of_convolutions_has_the_right_size_here_and_not_there() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        conv = nn.Conv2d(1, 3, 3, padding=1)
        return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(108, CLASSES)).double()

    _, data = make("linear")
    sites = 36
    block = blocks(net(), data)["0.weight"]
    assert isinstance(block, curvature.KroneckerBlocks)
    theirs = stock(net(), data)[0]
    assert_near(theirs[1], sites * block.inputs.matrix[0] / block.count, 1e-10)
    exact = float(per_parameter(net(), curvature.dense_ggn(net(), data))["0.weight"].trace())
    assert 0.5 < float(block.eigenvalues.sum()) / exact < 2
    assert trace(theirs) / exact > sites / 2


def test_results_are_never_read_twice() -> None:
    """Once BackPACK's hooks are gone, its own results stay; the adapter's say that they lack."""
    model, (x, y) = make("linear")
    loss = adapter.extend(nn.CrossEntropyLoss(reduction="sum"))
    kflr = adapter.KFLR(adapter.extend(model))
    with backpack.backpack(kflr):
        loss(model(x), y).backward()
    assert set(kflr.collect()) == {name for name, _ in model.named_parameters()}
    with pytest.raises(ValueError, match=r"no curvature at \['1\.weight'"):
        kflr.collect()
    backpack.context.CTX.remove_hooks()  # as a predictive of laplace-torch does
    with backpack.backpack(kflr):
        nn.CrossEntropyLoss(reduction="sum")(model(2 * x), y).backward()
    with pytest.raises(ValueError, match="hooks may be gone"):
        kflr.collect()


def test_uncovered_parameters_are_named() -> None:
    class Unknown(nn.Linear):
        pass

    model = adapter.extend(nn.Sequential(nn.Linear(2, 2), Unknown(2, 2)))
    with pytest.raises(curvature.UncoveredParameterError, match=r"1\.weight"):
        adapter.KFLR(model)


def test_frozen_parameters_are_left_out() -> None:
    model, data = make("relaxed ffc")
    frozen = next(name for name, _ in model.named_parameters() if name.endswith("theta1.weight"))
    model.get_parameter(frozen).requires_grad_(False)
    want = curvature.kronecker(model, data)
    assert frozen not in want
    assert_equal(blocks(model, data), want)


def test_operations_that_are_no_functions_of_their_input() -> None:
    model, data = make("relaxed circular")
    with pytest.raises(ValueError, match=r"called on its own.*whole=True"):
        blocks(model, data)
    dropout = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), Noisy())
    with pytest.raises(ValueError, match="another output when it was called again"):
        blocks(dropout.double(), data)


class Noisy(nn.Module):
    """Noise, different at every call."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_loss_that_is_not_extended() -> None:
    model, (x, y) = make("residual")
    ready = adapter.extend(model)
    with (
        backpack.backpack(adapter.KFLR(ready)),
        pytest.raises(ValueError, match="nothing was sent back to a Residual"),
    ):
        nn.CrossEntropyLoss()(ready(x), y).backward()
