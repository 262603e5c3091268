"""Priors beyond Gaussians: energies that paths state, in steps of the weights and in evidence."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from symlearn.relaxed import relaxed_layers


def energy(model: nn.Module) -> Tensor | None:
    """Sum of the energies of all paths that are on, in nats, []; None if there are none."""
    found = [
        value
        for layer in relaxed_layers(model).values()
        for path in layer.named_paths().values()
        if path.enabled and (value := path.energy()) is not None
    ]
    return torch.stack(found).sum() if found else None


def energy_gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> tuple[float, dict[str, Tensor]]:
    """The energy in nats and its gradients by name, where it has any.

    Args:
        model: A relaxed network.
        parameters: Parameters to differentiate in, by name.
    """
    with torch.enable_grad():
        total = energy(model)
        if total is None or not total.requires_grad:
            return 0.0 if total is None else float(total), {}
        grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    named = zip(parameters, grads, strict=True)
    return float(total.detach()), {name: g for name, g in named if g is not None}


def add_energy(model: nn.Module, n_data: float) -> None:
    """Add the energy's share to the gradients of a mean loss over ``n_data`` samples."""
    trained = {name: p for name, p in model.named_parameters() if p.grad is not None}
    for name, g in energy_gradients(model, trained)[1].items():
        gradient = trained[name].grad
        if gradient is not None:
            gradient.add_(g, alpha=1 / n_data)
