"""Data whose symmetry is known by construction, and networks that may keep or break it.

Each function makes a maker of problems, one for each seed; `benchmarks.support.truth` says what is
true of them and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import symlearn
from symlearn import FitConfig, datasets
from symlearn.audit import Element, elements_of, relative_error, split_operator
from symlearn.datasets import ImageSet, VectorTask
from symlearn.groups import Rep
from symlearn.models import small_cnn
from symlearn.paths import EmlpPath
from symlearn.relaxed import RelaxedLayer, relaxed_layers

IMAGES = FitConfig(epochs=40, progress=False)
VECTORS = FitConfig(
    epochs=300,
    likelihood="gaussian",
    noise=0.3,
    batch_size=50,
    learning_rate=0.01,
    burn_in=0.2,
    anneal=0.3,
    patience=60,
    check_images=0,
    progress=False,
)


@dataclass(frozen=True)
class Problem:
    """One draw of a task.

    Attributes:
        net: The relaxed network.
        data: Inputs and targets.
        config: Options of the fit.
        measure: Of a fitted network, how far each layer's operator and the network's outputs are
            from the group; None where the report's check says it.
    """

    net: nn.Module
    data: tuple[Tensor, Tensor]
    config: FitConfig
    measure: Callable[[nn.Module], tuple[dict[str, float], float]] | None = None


# --- Images ---


def _source(name: str, seed: int) -> ImageSet:
    """400 digits 0 to 4."""
    if name == "digits":
        images = datasets.digits()
    else:  # the other half is what defaults were chosen on
        images = datasets.shrink(datasets.mnist5k(), 20, 8).split(2500, 2500, seed=7)[1]
    few = images.subset(images.y < 5)
    return replace(few, classes=5).split(400, seed=seed)[0]


def placed(source: str, task: str) -> Callable[[int], Problem]:
    """Digits in quadrants; the network of `symlearn demo`."""

    def make(seed: int) -> Problem:
        place = {"digit": datasets.digit_task, "quadrant": datasets.quadrant_task}[task]
        train = place(_source(source, seed), seed).standardised()
        plain = small_cnn(train.classes, seed=seed)
        net = symlearn.wrap(plain, train.x[:2], boundary="circular", seed=seed)
        return Problem(net, train.pair, replace(IMAGES, seed=seed))

    return make


def turned_digits(seed: int, asks_turn: bool) -> ImageSet:
    """Digits 2 to 5 turned by random quarter turns, labelled by the digit, or by both."""
    images = datasets.digits()
    images = images.subset((images.y >= 2) & (images.y <= 5)).split(400, seed=seed)[0]
    turns = torch.randint(4, (len(images),), generator=_draw(seed))
    x = torch.stack([x.rot90(int(k), (1, 2)) for x, k in zip(images.x, turns, strict=True)])
    y = images.y - 2 + 4 * turns if asks_turn else images.y - 2
    return ImageSet(x, y, 16 if asks_turn else 4, "turned").standardised()


def turned(asks_turn: bool) -> Callable[[int], Problem]:
    """Turned digits; a network lifted to the quarter turns."""

    def make(seed: int) -> Problem:
        train = turned_digits(seed, asks_turn)
        plain = _cnn(nn.Conv2d, (1, 8, 8), train.classes, seed)
        lifted = symlearn.lift(plain, "p4", width=0.5, seed=seed)
        net = symlearn.wrap(
            lifted,
            train.x[:2],
            paths=("conv", "gconv"),
            boundary="circular",
            init="fresh",
            seed=seed,
        )
        config = replace(IMAGES, epochs=48, check_images=0, seed=seed)
        return Problem(net, train.pair, config, lambda fitted: _turn_errors(fitted, train.x[:64]))

    return make


def _turn_errors(model: nn.Module, x: Tensor) -> tuple[dict[str, float], float]:
    """Share of each operator's squared norm that ``conv`` breaks; mean error of the outputs."""
    found = {}
    for i, (name, layer) in enumerate(relaxed_layers(model).items()):
        shape = (layer.geometry.in_channels, *layer.geometry.in_size)
        on = [path for path in layer.paths.values() if path.enabled]
        if not on:
            found[name] = 0.0
            continue
        sides = (i > 0, True)
        whole = split_operator(_Sum(on), shape, "p4", lifted=sides)
        free = split_operator(layer.path("conv"), shape, "p4", lifted=sides)
        found[name] = free.rest / whole.norm_square if layer.path("conv").enabled else 0.0
    error = relative_error(model, x, elements_of("p4")[1:], link="softmax")
    return found, error.mean


class _Sum(nn.Module):
    """The sum of paths."""

    def __init__(self, paths: list[nn.Module]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([path(x) for path in self.paths]).sum(0)


# --- Signals ---


def rolled_signals(seed: int, asks_half: bool) -> tuple[Tensor, Tensor]:
    """MNIST-1D on a circle: digits anywhere, or aligned in one half and labelled by it as well.

    Whole signals are rolled. The data set's own translations are no symmetry: each signal is
    sheared behind them, so that its level tells where it is.
    """
    train = datasets.mnist1d(600, seed, max_translation=1).standardised()
    sites = train.x.shape[-1]
    draw = _draw(seed)
    half = torch.randint(2, (len(train),), generator=draw)
    shift = half * (sites // 2) if asks_half else torch.randint(sites, half.shape, generator=draw)
    x = torch.stack([x.roll(int(k), -1) for x, k in zip(train.x.squeeze(2), shift, strict=True)])
    return x, train.y + 10 * half if asks_half else train.y


def signals(asks_half: bool) -> Callable[[int], Problem]:
    """Rolled signals; a CNN with a pooled head."""

    def make(seed: int) -> Problem:
        x, y = rolled_signals(seed, asks_half)
        plain = _cnn(nn.Conv1d, (1, 8, 16, 32), 20 if asks_half else 10, seed, stride=2)
        net = symlearn.wrap(plain, x[:2], boundary="circular", seed=seed)
        return Problem(net, (x, y), replace(IMAGES, seed=seed))

    return make


# --- Scrambled maps ---


def filtered(scrambled: bool) -> Callable[[int], Problem]:
    """Noise on a torus through a filter of 3x3, with the pixels in order or in a random one."""

    def make(seed: int) -> Problem:
        draw = _draw(seed)
        x = torch.randn(500, 1, 6, 6, generator=draw)
        taps = torch.randn(1, 1, 3, 3, generator=draw)
        units = F.pad(torch.eye(36).reshape(36, 1, 6, 6), (1, 1, 1, 1), mode="circular")
        matrix = F.conv2d(units, taps).reshape(36, 36)  # [in, out]
        if scrambled:
            order = torch.randperm(36, generator=draw)
            matrix = _without_filters(matrix[order][:, order])
        y = x.flatten(1) @ matrix
        y = y / y.std() + 0.3 * torch.randn(y.shape, generator=draw)
        torch.manual_seed(seed)
        plain = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten())
        net = symlearn.wrap(plain, x[:2], paths=("conv", "fc"), seed=seed)
        return Problem(net, (x, y), replace(VECTORS, epochs=100, check_images=64, seed=seed))

    return make


def _without_filters(matrix: Tensor) -> Tensor:
    """A matrix [36, 36] between maps of 6x6, less its part that commutes with all shifts."""
    tensor = matrix.reshape(6, 6, 6, 6)
    shifts = [(i, j) for i in range(6) for j in range(6)]
    mean = sum(tensor.roll((i, j, i, j), (0, 1, 2, 3)) for i, j in shifts) / len(shifts)
    return (tensor - mean).reshape(36, 36)


def noise_labels(local: bool) -> Callable[[int], Problem]:
    """Noise with a bar in it, or noise alone; the label is how it runs, or a dense functional."""

    def make(seed: int) -> Problem:
        draw = _draw(seed)
        x = torch.randn(400, 1, 6, 6, generator=draw)
        if local:
            x = 0.3 * x
            y = torch.randint(2, (len(x),), generator=draw)
            at = torch.randint(6, (len(x),), generator=draw)
            for image, kind, place in zip(x, y, at, strict=True):
                image[0].select(int(kind), int(place)).add_(1)
        else:
            weights = torch.randn(36, generator=draw)
            y = (x.flatten(1) @ (weights - weights.mean()) > 0).long()
        plain = _cnn(nn.Conv2d, (1, 6, 8), 2, seed, pool=nn.AdaptiveAvgPool2d(1))
        net = symlearn.wrap(plain, x[:2], boundary="circular", seed=seed)
        return Problem(net, (x, y), replace(IMAGES, seed=seed))

    return make


# --- Vectors ---


def vectors(
    make_task: Callable[[int], VectorTask], depth: int = 0, **changes: Any
) -> Callable[[int], Problem]:
    """Regression by a relaxed perceptron."""

    def make(seed: int) -> Problem:
        train = make_task(seed).scaled()
        net = symlearn.relaxed_mlp(
            train.rep_in, train.rep_out, train.group, width=16, depth=depth, seed=seed
        )
        config = replace(VECTORS, seed=seed, **changes)
        return Problem(net, train.pair, config, lambda fitted: _group_errors(fitted, train))

    return make


def _group_errors(model: nn.Module, task: VectorTask) -> tuple[dict[str, float], float]:
    """Share of each matrix's squared norm outside of the group's maps; mean error of outputs."""
    draw = _draw(0)
    rep_in, rep_out = task.rep_in(task.group), task.rep_out(task.group)
    elements = []
    for _ in range(8):
        g = torch.as_tensor(task.group.sample(draw))
        acts = (
            _acting(rep_in, g),
            _acting(rep_out, g),
            _acting(rep_out, torch.linalg.inv(g)),
        )
        elements.append(Element("sample", *acts))
    error = relative_error(model, task.pair[0][:64], elements)
    found = {name: _outside(layer) for name, layer in relaxed_layers(model).items()}
    return found, error.mean


def _acting(rep: Rep, g: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: (rep.rho(g) @ v.double().T).T.to(v)


def _outside(layer: RelaxedLayer) -> float:
    """Share of a layer's squared norm that no map of its equivariant path has."""
    path = layer.path("emlp")
    if not isinstance(path, EmlpPath):
        raise TypeError(f"the strict path is {type(path).__name__}, not an equivariant one")
    q = path.linear.columns()
    n = layer.geometry.in_channels
    with torch.no_grad():
        columns = layer(torch.eye(n).unsqueeze(-1)) - layer(torch.zeros(n, n, 1))
    w = columns.squeeze(-1).T.reshape(-1).double()
    return float((w - q @ (q.T @ w)).square().sum() / w.square().sum())


def approximate_o5(seed: int) -> VectorTask:
    """The invariant function plus one coordinate of the first vector."""
    task = datasets.o5(300, seed)
    return replace(task, y=task.y + 2 * task.x[:, :1], symmetry="approximate", target=None)


# --- Shared ---


def _cnn(
    conv: Callable[..., nn.Module],
    widths: tuple[int, ...],
    classes: int,
    seed: int,
    stride: int = 1,
    pool: nn.Module | None = None,
) -> nn.Sequential:
    """Convolutions of window 3 with circular padding, a pool over all positions, a linear head."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, behind in zip(widths, widths[1:], strict=False):
        layers += [
            conv(before, behind, 3, stride=stride, padding=1, padding_mode="circular"),
            nn.ReLU(),
        ]
    if pool is None:
        pool = nn.AdaptiveMaxPool1d(1) if conv is nn.Conv1d else nn.AdaptiveMaxPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(widths[-1], classes))


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
