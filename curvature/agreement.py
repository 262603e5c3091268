"""Does a network use its weights as their rules say: through the calls of their modules alone?

A rule speaks for calls. A weight may reach the outputs by another way too: a network that
differentiates inside (``torch.autograd.grad`` in its forward pass) sends it back through the
module, a parametrisation or another module may read it. Its Kronecker factors would then be those
of another function, and nothing else would show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from curvature.capture import Call, check_separable, evaluating, outputs_of, watch
from curvature.coverage import coverage
from curvature.padding import FastPadding
from curvature.passes import recorder
from curvature.sites import Site, sites_of

_TOLERANCE = 0.05  # relative; another way makes errors of order one, bfloat16 of 0.01
_SEED = 0


def check_rules(model: nn.Module, x: Tensor) -> None:
    """Check that Kronecker-factored weights act on the outputs as their modules' rules state.

    For one random vector v in output space the gradient of ``v . f`` by automatic differentiation
    must be ``sum_nr g a^T`` over all calls of the module. One forward and one backward pass; two
    samples are enough.

    Args:
        model: The network; evaluated in eval mode and left as it was.
        x: Inputs [N, ...].

    Raises:
        ValueError: If some do not; all of them are named.

    Example:
        >>> import torch, curvature
        >>> net, x = torch.nn.Linear(3, 2), torch.randn(2, 3)
        >>> curvature.check_rules(net, x)
    """
    check_separable(model)
    named = dict(model.named_parameters())
    wanted = coverage(model, fallback="fixed").names("kronecker")
    sites = sites_of(model, wanted, "expand")
    with torch.inference_mode(False), evaluating(model):
        calls, inputs = list[Call](), list[Tensor]()
        with watch(sites, recorder(calls, inputs)), FastPadding():
            outputs = outputs_of(model, x)
        if not calls or not outputs.requires_grad:
            return
        generator = torch.Generator().manual_seed(_SEED)
        v = torch.randn(outputs.shape, generator=generator, device="cpu").to(outputs)
        asked: list[Any] = [*(named[name] for name in wanted), *(call.edge for call in calls)]
        found = torch.autograd.grad(outputs, asked, v, allow_unused=True)
    said = _said(sites, calls, inputs, found[len(wanted) :])
    differ = [name for name, g in zip(wanted, found, strict=False) if _differ(g, said.get(name))]
    if differ:
        raise ValueError(
            f"the outputs depend on {differ} in another way than through the calls of their "
            "modules: the network differentiates inside its forward pass, or something else reads "
            "these weights. Kronecker factors would be those of another function; freeze these "
            "weights (requires_grad_(False)), or compute the derivative forward, as "
            "symlearn.dynamics.HamiltonianNetwork does"
        )


def _said(
    sites: dict[nn.Module, Site],
    calls: Collection[Call],
    inputs: Collection[Tensor],
    grads: Collection[Tensor | None],
) -> dict[str, Tensor]:
    """Gradients of the parameters by their rules."""
    terms: dict[str, list[Tensor]] = defaultdict(list)
    for call, x, grad in zip(calls, inputs, grads, strict=True):
        if grad is None:
            continue
        site, module = sites[call.module], call.module
        g = site.rule.grads(module, grad)
        if site.weight is not None:
            blocks = torch.einsum("nrbo,nrbi->boi", g, site.rule.inputs(module, x).to(g.dtype))
            terms[site.weight].append(site.rule.weight_layout().from_blocks(blocks))
        if site.bias is not None:
            blocks = g.sum((0, 1)).unsqueeze(-1)
            terms[site.bias].append(site.rule.bias_layout(g.shape[2]).from_blocks(blocks))
    return {name: torch.stack(parts).sum(0) for name, parts in terms.items()}


def _differ(found: Tensor | None, said: Tensor | None) -> bool:
    if found is None or said is None:
        one = found if said is None else said
        return one is not None and bool(one.any())
    error = (found - said).norm()
    # written so that a NaN differs
    return not bool(error <= _TOLERANCE * torch.maximum(found.norm(), said.norm()))
