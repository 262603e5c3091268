"""From a measurement to the facts a report states, path by path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

import curvature
import priors
from symlearn.fit.evidence import Measurement
from symlearn.paths import Path
from symlearn.relaxed import relaxed_layers
from symlearn.report import PathStructure


def path_groups(prior: priors.PathPrior, layer: str, path: str) -> list[str]:
    """Prior groups of a path: one, one per part, or one per tensor."""
    stem = f"{layer}.{path}".lstrip(".")
    return [g for g in prior.groups if g == stem or g.startswith(stem + ".")]


def part_groups(prior: priors.PathPrior, key: tuple[str, str], path: Path, part: str) -> list[str]:
    """Prior groups of one part of a path; `key` names the layer and the path."""
    prefix = f"{key[0]}.paths.{key[1]}".lstrip(".")
    members = {f"{prefix}.{name}" for name in path.parts()[part]}
    return [group for group, names in prior.groups.items() if members & set(names)]


def group_structure(
    prior: priors.PathPrior,
    groups: list[str],
    found: Measurement,
    on: bool,
    output_share: float = math.nan,
) -> PathStructure:
    """Facts of one path (or other group of weights); the relative share is set by its layer."""
    members = [name for group in groups for name in prior.groups[group]]
    n_params = sum(found.params[name].numel() for name in members)
    norm = math.fsum(float(found.params[n].double().square().sum()) for n in members)
    measured = [g for g in groups if on and all(m in found.curvature for m in prior.groups[g])]
    working = [g for g in groups if any(bool(found.params[m].any()) for m in prior.groups[g])]
    gamma = math.fsum(
        priors.effective_parameters(found.curvature, prior, group) for group in measured
    )
    if on and not set(working) <= set(measured):
        gamma = math.nan  # a frozen path works, but nothing was measured of it
    gain = math.fsum(
        prior.relevance(group, found.curvature, found.params, found.gradients).gain
        for group in measured
    )
    logs = [math.log(prior.group_precision(group)) for group in measured or groups]
    return PathStructure(
        prior_precision=math.exp(math.fsum(logs) / len(logs)) if on else math.inf,
        weight_norm_sq=norm,
        n_params=n_params,
        effective_params=gamma,
        normalised_effective_params=gamma / n_params,
        relative_effective_params=0.0,
        output_share=output_share,
        evidence_gain=gain,
        on=on,
    )


def layer_structures(
    model: nn.Module,
    prior: priors.PathPrior,
    found: Measurement,
    shares: Mapping[tuple[str, str], float],
) -> dict[str, dict[str, PathStructure]]:
    """Facts of every path of every relaxed layer."""
    return {
        layer_name: {
            path_name: group_structure(
                prior,
                path_groups(prior, layer_name, path_name),
                found,
                path.enabled,
                shares.get((layer_name, path_name), math.nan),
            )
            for path_name, path in layer.named_paths().items()
        }
        for layer_name, layer in relaxed_layers(model).items()
    }


def head_structures(
    model: nn.Module, prior: priors.PathPrior, found: Measurement
) -> dict[str, PathStructure]:
    """Facts of the groups outside relaxed layers, biases left out."""
    inside = {
        group
        for layer_name, layer in relaxed_layers(model).items()
        for path_name in layer.paths
        for group in path_groups(prior, layer_name, path_name)
    }
    return {
        group: group_structure(prior, [group], found, on=True)
        for group in prior.groups
        if group not in inside and not is_bias(group)
    }


def is_bias(group: str) -> bool:
    """Whether a prior group is a bias, by the name of its parameter."""
    return group.rpartition(".")[2] == "bias"


def output_shares(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[tuple[str, str], float]:
    """Share of the summed variance of a layer's path outputs that each path carries, in [0, 1].

    The variance is over samples and sites, per channel, summed over channels.
    """
    watched: dict[nn.Module, tuple[str, str]] = {
        path: (layer_name, path_name)
        for layer_name, layer in relaxed_layers(model).items()
        for path_name, path in layer.named_paths().items()
    }
    moments: dict[tuple[str, str], Tensor] = {}

    def note(path: nn.Module, args: object, out: Tensor) -> None:
        flat = out.detach().double().flatten(2).movedim(1, 0).flatten(1)
        row = torch.stack(
            [flat.new_full((len(flat),), flat.shape[1]), flat.sum(1), (flat**2).sum(1)]
        )
        key = watched[path]
        moments[key] = moments[key] + row if key in moments else row

    handles = [path.register_forward_hook(note) for path in watched]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            for x, _ in batches:
                model(x)
    finally:
        for handle in handles:
            handle.remove()
    variance = {
        k: float((m[2] / m[0] - (m[1] / m[0]) ** 2).clamp(min=0).sum()) for k, m in moments.items()
    }
    shares: dict[tuple[str, str], float] = {}
    for layer_name, layer in relaxed_layers(model).items():
        keys = [(layer_name, path_name) for path_name in layer.paths]
        total = math.fsum(variance.get(key, 0.0) for key in keys)
        for key in keys:
            shares[key] = variance.get(key, 0.0) / total if total > 0 else 0.0
    return shares
