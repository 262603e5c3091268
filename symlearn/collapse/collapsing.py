"""The steps of a collapse: drop paths, tune, convert layer by layer, prune channels, measure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from curvature import Data, Likelihood
from curvature.checking import check_weights
from symlearn.collapse.channels import Pruning, prune_channels
from symlearn.collapse.convert import plain_layer
from symlearn.collapse.cost import latency, multiply_adds, weights
from symlearn.collapse.modules import MapSum
from symlearn.collapse.report import ATTRIBUTE, CollapseReport, Cost, LayerCollapse
from symlearn.collapse.verify import Difference, difference
from symlearn.relaxed import RelaxedLayer, relaxed_layers, replace_module
from symlearn.scoring import score

Tune: TypeAlias = Callable[[nn.Module], object]
Vanished: TypeAlias = Callable[[nn.Module], Mapping[str, Tensor]]

_TIMED = 32
_BATCH = 256
_PROBES = 2


@dataclass(frozen=True)
class Steps:
    """What a collapse does beyond converting the layers.

    Attributes:
        drop: Paths to switch off, as "layer.path".
        tune: Trains the relaxed network without these paths, in place; or None.
        prune: Whether to remove channels.
        vanished: Given that network, for layers by name which output channels have vanished, bool
            [C']; None for only those whose weights are zero.
    """

    drop: Collection[str] = ()
    tune: Tune | None = None
    prune: bool = False
    vanished: Vanished | None = None


def collapse(
    model: nn.Module,
    data: Data | Tensor | np.ndarray[Any, Any] | None = None,
    *,
    drop: Collection[str] = (),
    prune_channels: bool = False,
    likelihood: str | Likelihood = "categorical",
) -> nn.Module:
    """Replace relaxed layers by plain modules that compute the same; the model is left alone.

    Each layer becomes the smallest plain module that computes its paths that are on: one
    convolution, two batched matrix products, one matrix, or a sum of these. Biases are folded in,
    and the modules keep the names of the layers: a convolution's weight is still
    "features.0.weight". Every module is compared with its layer on random inputs, and the network
    on the data. `symlearn.collapse_report` tells what was done.

    Args:
        model: A relaxed network.
        data: What outputs, scores and time are measured on: inputs [N, C, *size], ``(X, y)``, a
            Dataset, or a DataLoader; None for no such measurement.
        drop: Paths to drop beside those that are off, as "layer.path".
        prune_channels: Also remove output channels whose weights are zero, with the inputs that
            they feed (see `symlearn.collapse.channels`); `FitResult.collapse` also removes those
            without effective parameters.
        likelihood: Likelihood of the scores.

    Returns:
        A plain network. It pickles, and `torch.export` and ONNX take it; where all layers are
        convolutions or matrices, it holds modules of torch only.

    Raises:
        ValueError: If the model has no relaxed layer, a path to drop does not exist, or channels
            are to be pruned in a network whose structure cannot be traced.
        CollapseError: If outputs differ by more than rounding explains.

    Example:
        >>> import torch, symlearn
        >>> x = torch.randn(2, 1, 8, 8)
        >>> cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> plain = symlearn.collapse(symlearn.wrap(cnn, x), x, drop=["0.ffc"])
        >>> print(plain[0])
        Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        >>> symlearn.collapse_report(plain).layers[0].dropped
        ('ffc',)
    """
    return run(model, data, Steps(drop=drop, prune=prune_channels), likelihood)


def run(model: nn.Module, data: object, steps: Steps, likelihood: str | Likelihood) -> nn.Module:
    """Collapse a network; see `collapse`."""
    layers = relaxed_layers(model)
    if not layers:
        raise ValueError("the model has no relaxed layer to collapse")
    check_weights(model)
    batches = None if data is None else _batches(data, model)
    reduced = copy.deepcopy(model)
    _switch_off(reduced, steps.drop)
    scores = {"relaxed": model, "dropped": reduced}
    if steps.tune is not None:
        scores["dropped"] = copy.deepcopy(reduced)
        steps.tune(reduced)
        scores["tuned"] = reduced
    plain = convert(reduced)
    found = Difference(float("nan"), float("nan"))
    if batches is not None:
        found = difference(reduced, plain, (x for x, _ in batches))
        found.check("the collapsed network")
    pruning = Pruning({}, {})
    if steps.prune:
        vanished = {} if steps.vanished is None else steps.vanished(reduced)
        pruning = prune_channels(plain, vanished, [x for x, _ in batches or ()])
        scores["pruned"] = plain
    report = CollapseReport(
        tuple(_layer_facts(name, layers[name], reduced, plain) for name in layers),
        *_costs(model, plain, batches),
        batch=0 if batches is None else min(_TIMED, len(batches[0][0])),
        error=found.error,
        tolerance=found.tolerance,
        n_data=sum(len(x) for x, _ in batches or ()),
        scores=_scores(scores, batches, likelihood),
        channels=pruning.removed,
        kept_channels=pruning.kept,
    )
    vars(plain)[ATTRIBUTE] = report.to_dict()
    return plain


def convert(reduced: nn.Module) -> nn.Module:
    """A copy of a relaxed network whose layers are plain, each compared on random inputs.

    Raises:
        CollapseError: If a layer's outputs differ by more than rounding explains.
    """
    plain = copy.deepcopy(reduced)
    originals = relaxed_layers(reduced)
    for name, layer in relaxed_layers(plain).items():
        replacement = plain_layer(layer)
        if layer.align is None or layer.align.idle:
            difference(originals[name], replacement, [_probe(layer)]).check(f"layer {name!r}")
        if layer is plain:
            return replacement
        replace_module(plain, layer, replacement)
    vars(plain).pop("symlearn_wrap", None)
    return plain


def _probe(layer: RelaxedLayer) -> Tensor:
    """Random inputs of a layer, [2, C, *in]."""
    geometry = layer.geometry
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_PROBES, geometry.in_channels, *geometry.in_size, generator=generator)
    return x.to(next(layer.parameters(), x))


def _switch_off(model: nn.Module, drop: Collection[str]) -> None:
    """Switch off the named paths.

    Raises:
        ValueError: If a path does not exist; all such names and the paths there are are listed.
        TypeError: For a single string.
    """
    if isinstance(drop, str):
        raise TypeError(f"drop takes a list of paths such as ['{drop}'], got one string")
    paths = {
        f"{layer_name}.{name}".lstrip("."): path
        for layer_name, layer in relaxed_layers(model).items()
        for name, path in layer.named_paths().items()
    }
    unknown = sorted(set(drop) - set(paths))
    if unknown:
        raise ValueError(f"no paths are named {unknown}; the paths are {list(paths)}")
    for name in drop:
        paths[name].switch_off()


def _batches(data: Any, model: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    """Batches of inputs and targets, None for inputs alone."""
    if isinstance(data, (Tensor, np.ndarray)):
        if data.ndim == 0:
            raise ValueError("the data are a single number; give inputs [N, C, *size]")
        pair = (data, torch.zeros(len(data)))
        return [(x, None) for x, _ in curvature.batches(pair, model, _BATCH)]
    return list(curvature.batches(data, model, _BATCH))


def _scores(
    stages: Mapping[str, nn.Module],
    batches: list[tuple[Tensor, Tensor | None]] | None,
    likelihood: str | Likelihood,
) -> dict[str, dict[str, float]]:
    if batches is None or batches[0][1] is None:
        return {}
    return {stage: score(model, batches, likelihood) for stage, model in stages.items()}


def _layer_facts(
    name: str, layer: RelaxedLayer, reduced: nn.Module, plain: nn.Module
) -> LayerCollapse:
    on = {key: path for key, path in layer.named_paths().items() if path.enabled}
    left = relaxed_layers(reduced)[name].named_paths()
    kept = tuple(key for key in on if left[key].enabled)
    module = plain.get_submodule(name)
    return LayerCollapse(
        name,
        kept,
        tuple(key for key in on if key not in kept),
        _described(module),
        sum(map(weights, on.values())) + (0 if layer.bias is None else layer.bias.numel()),
        weights(module),
    )


def _described(module: nn.Module) -> str:
    """Class names of what computes, joined by "+" in a sum."""
    if isinstance(module, MapSum):
        return "+".join(_described(part) for part in module.values())
    linear = isinstance(module, nn.Sequential)
    return "Linear" if linear else type(module).__name__


def _costs(
    model: nn.Module, plain: nn.Module, batches: list[tuple[Tensor, Tensor | None]] | None
) -> tuple[Cost, Cost]:
    off = (
        path
        for layer in relaxed_layers(model).values()
        for path in layer.named_paths().values()
        if not path.enabled
    )
    params = weights(model) - sum(map(weights, off)), weights(plain)
    if batches is None:
        return Cost(params[0]), Cost(params[1])
    x = batches[0][0][:_TIMED]
    seconds = latency((model, plain), x)
    before, after = (
        Cost(n, multiply_adds(net, x), time)
        for n, net, time in zip(params, (model, plain), seconds, strict=True)
    )
    return before, after
