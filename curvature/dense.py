"""The slow oracle: the whole generalised Gauss-Newton matrix by automatic differentiation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev, vmap

from curvature.capture import check_separable, evaluating, outputs_of
from curvature.data import Data, batches
from curvature.likelihoods import Likelihood, as_likelihood

MAX_PARAMETERS = 20_000


def dense_ggn(
    model: nn.Module,
    data: Data,
    likelihood: str | Likelihood = "categorical",
    *,
    batch_size: int = 64,
) -> Tensor:
    """Exact GGN ``sum_n J_n^T Lambda_n J_n`` over the trainable parameters, [P, P].

    Independent of the rules and of the likelihoods' square roots: Jacobians come from
    ``torch.func.jacrev`` and ``Lambda`` from ``torch.func.hessian`` of ``-log p``. Parameters are
    in the order of ``model.named_parameters()``, each flattened in row-major order.

    Args:
        model: The network; evaluated in eval mode.
        data: As for `curvature.kronecker`.
        likelihood: As for `curvature.kronecker`.
        batch_size: Samples per batch; memory is ``batch_size * K * P``.

    Raises:
        ValueError: If the model has more than `MAX_PARAMETERS` trainable parameters or none, or for
            bad data.
    """
    check_separable(model)
    likelihood = as_likelihood(likelihood)
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    size = sum(p.numel() for p in params.values())
    if not 0 < size <= MAX_PARAMETERS:
        raise ValueError(
            f"the model has {size} trainable parameters; the dense matrix is for 1 to "
            f"{MAX_PARAMETERS}: freeze some, or use curvature.kronecker"
        )

    def nll(f: Tensor, y: Tensor) -> Tensor:
        return -likelihood.log_prob(f.unsqueeze(0), y.unsqueeze(0))

    with torch.inference_mode(False), evaluating(model):
        total = next(iter(params.values())).new_zeros(size, size)
        for x, y in batches(data, model, batch_size):
            with torch.no_grad():
                f = outputs_of(model, x)
            y = likelihood.check(f, y)
            rows = jacobians(model, params, x).values()
            jac = torch.cat([j.reshape(*f.shape, -1) for j in rows], dim=2)
            curved = vmap(hessian(nll))(f, y)
            total += torch.einsum("nkp,nkl,nlq->pq", jac, curved, jac)
    return total


def jacobians(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Jacobian of each sample's outputs in some parameters, name to [N, K, *shape].

    Args:
        model: The network, in eval mode.
        params: Parameters by name, detached.
        x: Inputs [N, ...].
    """

    def outputs_of(p: dict[str, Tensor], one: Tensor) -> Tensor:
        out: Tensor = functional_call(model, p, (one.unsqueeze(0),))
        return out.reshape(-1)

    found: dict[str, Tensor] = vmap(jacrev(outputs_of), in_dims=(None, 0))(params, x)
    return found
