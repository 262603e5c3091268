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
        ValueError: If the network has parameters for which no way to draw them is known.
    """
    generator = seeded(seed)
    unknown: list[str] = []
    _redraw(model, "", generator, unknown)
    if unknown:
        raise ValueError(
            f"it is not known how to draw fresh values of {', '.join(unknown)}; give the modules a "
            "reset_parameters(), or take prior='weights' with weights that the training data have "
            "not influenced"
        )


def _redraw(module: nn.Module, name: str, generator: torch.Generator, unknown: list[str]) -> None:
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, RelaxedLayer):
        for spec in module.specs:  # anew: a path may have learned more than its weights
            built = spec.build(module.geometry)
            module.paths[spec.name] = built.to(next(module.parameters(), torch.empty(0)))
        module.reset_parameters(generator)
        return
    if isinstance(module, _FILTERS):
        weight = module.get_parameter("weight")
        normal_(weight, he_std(weight[0].numel()), generator)
        if "bias" in own:
            nn.init.zeros_(own["bias"])
    elif isinstance(module, GroupBias):
        for parameter in own.values():
            nn.init.zeros_(parameter)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        with torch.random.fork_rng(devices=()):  # torch draws with its global generator
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            reset()
    else:
        unknown += [f"{name}.{key}".lstrip(".") for key in own]
    for key, child in module.named_children():
        _redraw(child, f"{name}.{key}".lstrip("."), generator, unknown)


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


def kept_tensors(model: nn.Module, prior: str) -> dict[str, Tensor]:
    """The values of a network that are not drawn from the seed, copied to the CPU.

    All of them, or, for fresh weights, buffers other than the statistics of normalisation layers.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
        if prior != "fresh" or not (name in parameters or name.rpartition(".")[2] in _STATISTICS)
    }
