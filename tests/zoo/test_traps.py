"""wrap where a convolution is more than a line of nn.Sequential: it works, or says why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import curvature
import symlearn
from symlearn.relaxed import relaxed_layers
from tests.nets import assert_same_function, conv

pytestmark = pytest.mark.core
D = torch.float64
MODES = (None, False, True)


class Checkpointed(nn.Module):
    """A residual block under `torch.utils.checkpoint`, with a dropout in it.

    Args:
        reentrant: Mode of the checkpoint; None for none.
    """

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem = conv(1, 4)
        self.block = nn.Sequential(
            conv(4, 4), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Dropout(0.3), conv(4, 4)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        if self.reentrant is None:
            x = x + self.block(x)
        else:
            x = x + checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


def checkpointed(reentrant: bool | None) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Checkpointed(reentrant).to(D), torch.randn(5, 1, 6, 5, dtype=D)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", MODES)
def test_checkpoints_keep_function_and_gradients(reentrant: bool | None) -> None:
    net, x = checkpointed(reentrant)
    relaxed = symlearn.wrap(net, x)
    assert list(relaxed_layers(relaxed)) == ["stem", "block.0", "block.4"]
    plain, _ = checkpointed(None)
    outputs, grads = [], []
    for model in (relaxed, symlearn.wrap(plain, x), net):
        torch.manual_seed(1)
        outputs.append(model.train()(x))
        outputs[-1].square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(relaxed.eval()(x), net.eval()(x), rtol=0, atol=1e-12)
    assert grads[0]["block.4.paths.ffc.theta2.weight"].any()
    for name, g in grads[1].items():
        torch.testing.assert_close(grads[0][name], g, rtol=1e-12, atol=1e-14)


def test_curvature_inside_a_checkpoint() -> None:
    data = (checkpointed(None)[1], torch.arange(5) % 3)
    models = [checkpointed(mode)[0] for mode in (None, False)]
    plain, inside = (curvature.kronecker(symlearn.wrap(m, data[0]), data) for m in models)
    assert list(plain) == list(inside)
    for name, block in plain.items():
        torch.testing.assert_close(inside[name].eigenvalues, block.eigenvalues)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_curvature_inside_a_reentrant_checkpoint_is_refused() -> None:
    net, x = checkpointed(True)
    relaxed = symlearn.wrap(net, x)
    said = r"(?s)'block.0.paths.conv.conv.weight'.*'block.4.*use_reentrant=True"
    with pytest.raises(ValueError, match=said):
        curvature.kronecker(relaxed, (x, torch.arange(5) % 3))


class Recurrent(nn.Module):
    """One convolution, three times per forward pass, on maps of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step = conv(1, 4), conv(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.step(x).tanh()
        return self.head(x.mean((2, 3)))


def test_a_convolution_called_many_times() -> None:
    net, x = Recurrent().to(D), torch.randn(4, 1, 6, 6, dtype=D)
    relaxed = symlearn.wrap(net, x)
    assert_same_function(net, relaxed, x)
    found = curvature.kronecker(relaxed, (x, torch.arange(4) % 3))
    assert found["step.paths.ffc.theta2.weight"].eigenvalues.any()
    assert [row.layer for row in symlearn.plan(net, x).relaxed] == ["stem", "step"]


def own_forward() -> nn.Module:
    net = nn.Sequential(conv(2, 2), conv(2, 2))
    plain = net[1].forward
    net[1].forward = lambda x: 2 * plain(x)  # type: ignore[method-assign]
    return net


def parametrised() -> nn.Module:
    return nn.Sequential(conv(2, 2), nn.utils.parametrizations.spectral_norm(conv(2, 2)))


class Mirrored(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(3))


class Masked(nn.Conv2d):
    """A subclass that returns more than a map."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class First(nn.Module):
    """Passes the first of several values on."""

    def forward(self, pair: tuple[Tensor, ...]) -> Tensor:
        return pair[0]


ALONE = {
    "own forward": (own_forward, "its forward method is replaced"),
    "parametrised": (parametrised, "its weight is parametrised"),
    "subclass": (
        lambda: nn.Sequential(conv(2, 2), Mirrored(2, 2, 3)),
        "subclass Mirrored of nn.Conv2d",
    ),
    "tuple": (
        lambda: nn.Sequential(conv(2, 2), Masked(2, 2, 3), First()),
        "subclass Masked of nn.Conv2d",
    ),
    "transposed": (
        lambda: nn.Sequential(conv(2, 2), nn.ConvTranspose2d(2, 2, 2, 2)),
        "ConvTranspose2d is none of Conv1d, Conv2d, Conv3d",
    ),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.filterwarnings("ignore:of 2 convolutions, wrap leaves alone")
def test_what_computes_something_else_is_left_alone(name: str) -> None:
    build, reason = ALONE[name]
    net, x = build().to(D), torch.randn(2, 2, 8, 8, dtype=D)
    plan = symlearn.plan(net, x)
    assert [(row.layer, row.action, row.reason) for row in plan.rows] == [
        ("0", "relax", ""),
        ("1", "leave alone", reason),
    ]
    if name != "own forward":  # deepcopy keeps the function of the original in the copy
        relaxed = symlearn.wrap(net, x)
        assert list(relaxed_layers(relaxed)) == ["0"]
        assert_same_function(net, relaxed, x)


def test_a_replaced_forward_is_not_made_circular() -> None:
    with pytest.raises(ValueError, match="1 has a forward method of its own, which would be lost"):
        symlearn.wrap(own_forward(), torch.randn(1, 2, 8, 8), layers="0", boundary="circular")


def test_pruned_convolutions_are_refused() -> None:
    net = nn.Sequential(conv(2, 2), conv(2, 2))
    prune.l1_unstructured(net[1], "weight", 0.5)
    x = torch.randn(1, 2, 6, 6)
    (row,) = symlearn.plan(net, x).refused
    assert (row.layer, row.reason) == ("1", "carries hooks, which would be lost; remove them first")
    with pytest.raises(ValueError, match="cannot be copied|1 carries hooks"):
        symlearn.wrap(net, x, layers="1")


def test_lazy_layers_are_refused() -> None:
    net = nn.Sequential(conv(2, 2), nn.LazyConv2d(2, 3))
    for call in (symlearn.plan, symlearn.wrap):
        with pytest.raises(ValueError, match="lazy layers without weights; run it"):
            call(net, torch.randn(1, 2, 6, 6))
    net(torch.randn(1, 2, 6, 6))
    assert len(symlearn.plan(net, torch.randn(1, 2, 6, 6)).relaxed) == 2


class Noisy(nn.Module):
    """Draws random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.conv(x))


def test_the_random_state_is_left_alone() -> None:
    net, x = Noisy(), torch.randn(1, 1, 4, 4)
    state = torch.get_rng_state()
    symlearn.plan(net, x)
    symlearn.wrap(net, x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("paths", [("conv", "ffc"), ("ffc", "conv"), ("ffc", "fc", "conv")])
@pytest.mark.parametrize("size", [(9, 5), (16,)])
def test_dropout_masks_what_it_masked_before(paths: tuple[str, ...], size: tuple[int, ...]) -> None:
    """It draws in the order of memory, so that layouts have to agree too."""
    first = nn.Conv2d(2, 6, 3) if len(size) == 2 else nn.Conv1d(2, 6, 3)
    net, x = nn.Sequential(first, nn.Dropout()).to(D), torch.randn(3, 2, *size, dtype=D)
    outputs = []
    for model in (net, symlearn.wrap(net, x, paths=paths)):
        torch.manual_seed(0)
        outputs.append(model.train()(x))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
