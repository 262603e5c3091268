"""In-place operations around a watched module, none of which may change a curvature."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import curvature
from curvature import Call, watch
from symlearn.blocklinear import BlockLinear
from tests.cases import MeanOver
from tests.oracles import assert_near, per_parameter

pytestmark = pytest.mark.core


def convolutions(inplace: bool) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(6, 6, 2),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class OnView(nn.Module):
    """In-place ReLU on the output of a layer that returns a view."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.relu = BlockLinear((4, 3, 5), order=(1, 0, 2)), nn.ReLU(inplace=inplace)
        self.mean, self.head = MeanOver(1), nn.Linear(4, 3)
        nn.init.normal_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mean(self.relu(self.layer(x))))
        return out


class OnSharedLinear(nn.Module):
    """In-place ReLU after a Linear of three axes, which is a view in some versions of torch."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.relu = nn.Linear(5, 4), nn.ReLU(inplace=inplace)
        self.mean, self.head = MeanOver(1), nn.Linear(4, 3)

    forward = OnView.forward


class OnInput(nn.Module):
    """The input of a padded convolution is overwritten after the call, which autograd allows."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inplace = inplace
        self.first = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        branch = self.second(hidden)
        hidden = hidden.relu_() if self.inplace else hidden.relu()
        out: Tensor = self.head((hidden + branch.tanh()).mean((2, 3)))
        return out


INPLACE = {
    "after a convolution": (convolutions, (1, 4, 4)),
    "after a view": (OnView, (3, 5)),
    "after a shared linear": (OnSharedLinear, (6, 5)),
    "on a module's input": (OnInput, (1, 4, 4)),
}


@pytest.mark.parametrize("where", INPLACE)
@pytest.mark.parametrize("ekfac", [False, True])
def test_in_place_operations_change_nothing(where: str, ekfac: bool) -> None:
    build, shape = INPLACE[where]
    data = torch.randn(4, *shape, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    got, want = (
        curvature.kronecker(build(flag).double(), data, ekfac=ekfac) for flag in (True, False)
    )
    model = build(True).double()
    exact = per_parameter(model, curvature.dense_ggn(model, data))
    for name, block in got.items():
        assert_near(block.to_dense(), want[name].to_dense(), 1e-12)
        assert float(block.eigenvalues.sum()) > 0
        if ekfac:
            assert_near(block.eigenvalues.sum(), exact[name].trace())


def test_overwritten_input_is_noticed_when_it_is_read_later() -> None:
    model = OnInput(True).double()
    calls: list[Call] = []
    with watch([model.second], calls.append):
        model(torch.randn(2, 1, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="input of a Conv2d was overwritten in place"):
        _ = calls[0].inputs
