"""The network that the prior is centred on, before it has seen the training data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from curvature.checking import seeded
from symlearn.groupconv import GroupConv2d
from symlearn.groups.features import GroupBias
from symlearn.paths.base import he_std, normal_
from symlearn.relaxed import RelaxedLayer, relaxed_layers

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_FILTERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, GroupConv2d)


def redraw(model: nn.Module, seed: int) -> None:
    """Draw all weights of a network anew, in place, from a seed alone (He et al. 2015).

    Biases are zero, and normalisation layers as torch makes them, their statistics included.

    Raises:
        ValueError: If the network has values for which no way to draw them is known.
    """
    for tensor in _to_draw(model).values():  # what nobody draws will stay NaN
        tensor.fill_(torch.nan)
    _redraw(model, seeded(seed))
    unknown = [name for name, tensor in _to_draw(model).items() if bool(tensor.isnan().any())]
    if unknown:
        raise ValueError(
            f"it is not known how to draw fresh values of {', '.join(unknown)}; give the modules a "
            "reset_parameters(), or take prior='weights' with weights that the training data have "
            "not influenced"
        )


def _to_draw(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network, and the statistics that its layers have measured."""
    measured = {
        name: buffer
        for name, buffer in model.named_buffers()
        if _is_statistic(name) and buffer.is_floating_point()
    }
    return {name: p.detach() for name, p in model.named_parameters()} | measured


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in _STATISTICS


def _redraw(module: nn.Module, generator: torch.Generator) -> None:
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, RelaxedLayer):
        for spec in module.specs:  # anew: a path may have learned more than its weights
            built = spec.build(module.geometry)
            module.paths[spec.name] = built.to(next(module.parameters(), torch.empty(0)))
        module.reset_parameters(generator)
        return
    if isinstance(module, _FILTERS) and "weight" in own:
        normal_(own["weight"], he_std(own["weight"][0].numel()), generator)
        if "bias" in own:
            nn.init.zeros_(own["bias"])
    elif isinstance(module, GroupBias):
        for parameter in own.values():
            nn.init.zeros_(parameter)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        with torch.random.fork_rng(devices=()):  # torch draws with its global generator
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            reset()
    for child in module.children():
        _redraw(child, generator)


def path_names(model: nn.Module) -> tuple[str, ...]:
    """All paths of a network's relaxed layers, as "layer.path"."""
    return tuple(
        f"{layer_name}.{name}".lstrip(".")
        for layer_name, layer in relaxed_layers(model).items()
        for name in layer.named_paths()
    )


def all_on(description: Any) -> Any:
    """A description of a network whose paths are all on."""
    if isinstance(description, dict):
        return {key: [] if key == "off" else all_on(value) for key, value in description.items()}
    return (
        [all_on(value) for value in description] if isinstance(description, list) else description
    )


def kept_names(model: nn.Module, prior: str) -> set[str]:
    """Names of the values of a network that are not drawn from the seed.

    All of them, or, for fresh weights, buffers other than the statistics of normalisation layers.
    """
    names = set(model.state_dict())
    if prior != "fresh":
        return names
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name for name in names - parameters if not _is_statistic(name)}


def kept_tensors(model: nn.Module, prior: str) -> dict[str, Tensor]:
    """The values of a network that are not drawn from the seed, copied to the CPU."""
    kept = kept_names(model, prior)
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
        if name in kept
    }
