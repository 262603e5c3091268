"""asdl's Fisher loops on registered rules, against the native engine; and stock asdl."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvature
from tests.conftest import need
from tests.curvature.adapters.nets import CLASSES, NETS, Data, Tail, make
from tests.oracles import assert_near, per_parameter

fisher = need("asdl.fisher")
adapter = importlib.import_module("curvature.adapters.asdl")

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")


def config(kind: str = "fisher_exact", likelihood: str = "categorical", **options: Any) -> Any:
    loss = "cross_entropy" if likelihood == "categorical" else "mse"
    options.setdefault("data_size", 1)
    return fisher.FisherConfig(kind, ["kron"], loss, **options)


def run(model: nn.Module, data: Data, settings: Any) -> Any:
    maker = adapter.fisher_maker(model, settings)
    output = maker.setup_model_call(model, data[0])
    maker.setup_loss_call(nn.CrossEntropyLoss(reduction="sum"), output, data[1])
    maker.forward_and_backward()
    return maker


def run_stock(model: nn.Module, data: Data) -> None:
    maker = fisher.get_fisher_maker(model, config())
    maker.setup_model_call(model, data[0])
    maker.forward_and_backward()


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("name", NETS)
def test_factors_are_the_native_engines(name: str, likelihood: str) -> None:
    model, data = make(name, likelihood)
    want = curvature.kronecker(model, data, likelihood)
    got = run(model, data, config(likelihood=likelihood)).blocks
    assert set(got) == set(want)
    for key, block in want.items():
        assert_near(got[key].to_dense(), block.to_dense(), 1e-10)
    assert all(p.grad is None for p in model.parameters())


def test_empirical_fisher() -> None:
    model, data = make("relaxed ffc")
    want = curvature.kronecker(model, data, estimator="empirical")
    for key, block in run(model, data, config("fisher_emp")).blocks.items():
        assert_near(block.to_dense(), want[key].to_dense(), 1e-10)


def test_sampled_labels_have_the_right_mean() -> None:
    model, data = make("relaxed ffc")
    want = curvature.kronecker(model, data)
    total: dict[str, Any] = {}
    for _ in range(400):
        for key, block in run(model, data, config("fisher_mc")).blocks.items():
            total[key] = total.get(key, 0) + block.to_dense() / 400
    for key, block in want.items():
        assert_near(total[key], block.to_dense(), 0.25)


def test_the_losss_gradient_comes_on_top() -> None:
    model, data = make("relaxed ffc")
    maker = adapter.fisher_maker(model, config())
    output = maker.setup_model_call(model, data[0])
    maker.setup_loss_call(nn.CrossEntropyLoss(reduction="sum"), output, data[1])
    maker.forward_and_backward(calc_loss_grad=True)
    for key, block in curvature.kronecker(model, data).items():
        assert_near(maker.blocks[key].to_dense(), block.to_dense(), 1e-10)
    params = [p for p in model.parameters() if p.requires_grad]
    loss = nn.functional.cross_entropy(model(data[0]), data[1], reduction="sum")
    for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
        assert_near(p.grad, g, 1e-10)


def test_batch_statistics_play_no_part() -> None:
    model, data = make("relaxed ffc")
    want, before = curvature.kronecker(model, data), model[1].running_mean.clone()
    got = run(model.train(), data, config()).blocks
    for key, block in want.items():
        assert_near(got[key].to_dense(), block.to_dense(), 1e-10)
    assert torch.equal(model[1].running_mean, before)
    assert model[1].training


def test_batches_add_up() -> None:
    model, (x, y) = make("relaxed ffc")
    parts = [run(model, (x[s], y[s]), config()).blocks for s in (slice(0, 5), slice(5, None))]
    for key, block in curvature.kronecker(model, (x, y)).items():
        assert_near((parts[0][key] + parts[1][key]).to_dense(), block.to_dense(), 1e-10)


def test_fisher_of_plain_modules_is_asdls() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(108, CLASSES)
        ).double()

    _, data = make("linear")
    mine, theirs = net(), net()
    run(mine, data, config(data_size=3, scale=2.0))
    maker = fisher.get_fisher_maker(theirs, config(data_size=3, scale=2.0))
    maker.setup_model_call(theirs, data[0])
    maker.forward_and_backward()
    for at in (0, 3):
        assert_near(mine[at].fisher.kron.A, theirs[at].fisher.kron.A, 1e-11)
        assert_near(mine[at].fisher.kron.B, theirs[at].fisher.kron.B, 1e-11)


def test_dilation_works_here_and_not_there() -> None:
    _, data = make("linear")
    model = nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Flatten(), nn.Linear(8, CLASSES))
    model = model.double()
    got = run(model, data, config()).blocks
    for key, block in curvature.kronecker(model, data).items():
        assert_near(got[key].to_dense(), block.to_dense(), 1e-10)
    with pytest.raises(ValueError, match="dilation"):
        run_stock(model, data)


def test_circular_padding_is_right_here_and_wrong_there() -> None:
    """One sample and one site: the factors are exact, so whoever differs is wrong."""
    conv = nn.Conv2d(2, 4, 3, stride=3, padding=1, padding_mode="circular")
    model = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(4, CLASSES)).double()
    data = torch.randn(1, 2, 3, 3, dtype=torch.float64), torch.tensor([1])
    exact = per_parameter(model, curvature.dense_ggn(model, data))["0.weight"]
    assert_near(run(model, data, config()).blocks["0.weight"].to_dense(), exact, 1e-10)
    run_stock(model, data)
    wrong = model[0].fisher.kron
    assert abs(float(wrong.A.trace() * wrong.B.trace() / exact.trace()) - 1) > 0.05


def test_unknown_modules_have_factors_here_and_are_skipped_there() -> None:
    _, data = make("linear")
    model = nn.Sequential(nn.Flatten(), Tail(36, CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_stock(model, data)
    assert not hasattr(model[1], "fisher")
    got = run(model, data, config()).blocks["1.weight"]
    assert_near(got.to_dense(), curvature.kronecker(model, data)["1.weight"].to_dense(), 1e-10)
    assert model[1].fisher.kron.A.shape == (36, 36)


def test_several_blocks_are_stacks() -> None:
    model, data = make("five axes")
    run(model, data, config())
    assert model[3].fisher.kron.A.shape == (3, 3, 3)
    assert model[3].fisher.kron.B.shape == (3, 2, 2)


def test_frozen_parameters_are_left_out_and_stay_frozen() -> None:
    model, data = make("relaxed ffc")
    frozen = next(name for name, _ in model.named_parameters() if name.endswith("theta1.weight"))
    model.get_parameter(frozen).requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    got = run(model, data, config()).blocks
    assert set(got) == set(curvature.kronecker(model, data))
    assert frozen not in got
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def test_an_exception_leaves_nothing_behind() -> None:
    model, (x, _) = make("residual")

    def loss(reduction: str) -> Tensor:
        return Explosive.apply(maker.model_output).sum()

    maker = adapter.fisher_maker(model, config("fisher_emp"))
    maker.setup_model_call(model, x)
    maker.setup_loss_call(loss)
    model.train()
    with pytest.raises(ZeroDivisionError):
        maker.forward_and_backward()
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())


class Explosive(torch.autograd.Function):
    """Raises on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        raise ZeroDivisionError


def test_bad_use() -> None:
    class Unknown(nn.Linear):
        pass

    model, (x, _) = make("linear")
    with pytest.raises(curvature.UncoveredParameterError, match="weight"):
        adapter.fisher_maker(Unknown(2, 2), config())
    with pytest.raises(ValueError, match="fisher_shapes is"):
        adapter.fisher_maker(model, fisher.FisherConfig("fisher_exact", ["diag"], "mse"))
    maker = adapter.fisher_maker(model, config())
    maker.setup_model_call(model, x)
    with pytest.raises(ValueError, match=r"\['accumulate'\] are not supported"):
        maker.forward_and_backward(accumulate=True)
    model.add_module("idle", nn.Linear(2, 2))
    model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)
    with pytest.raises(ValueError, match=r"never called[\s\S]*idle\.weight"):
        run(model, make("linear")[1], config())
