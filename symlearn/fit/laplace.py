"""A fitted network as a laplace-torch object; needs the extra ``laplace``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curvature import Data
from curvature.adapters.laplace_torch import BlockLaplace, SymlearnGGN
from symlearn.fit.data import TrainData

if TYPE_CHECKING:
    from symlearn.fit.result import FitResult

_LIKELIHOODS = {"categorical": "classification", "gaussian": "regression"}
_PASS_SIZE = 250


class _Loader:
    """What laplace-torch asks of a loader: batches, and a data set that has a length."""

    def __init__(self, data: TrainData) -> None:
        self.data, self.dataset = data, range(data.n)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.data.everything():
            # laplace-torch wants one axis for the outputs of a regression
            yield x, y.unsqueeze(1) if y.ndim == 1 and y.is_floating_point() else y


def to_laplace(result: FitResult, train: Data, **options: Any) -> BlockLaplace:
    """See `FitResult.to_laplace`."""
    name, config = result.likelihood.name, result.config
    if name not in _LIKELIHOODS:
        raise ValueError(
            f"the fit has the {name} likelihood; laplace-torch knows only those for classes and "
            "regression ('categorical', 'gaussian')"
        )
    model = copy.deepcopy(result.model)
    precision = _freeze_rest(model, result.prior.precisions_by_parameter())
    found = BlockLaplace(
        model,
        _LIKELIHOODS[name],
        sigma_noise=result.noise,
        prior_precision=precision,
        temperature=1 / config.likelihood_weight,
        backend=SymlearnGGN,
        backend_kwargs={"sharing": config.sharing, "fallback": config.fallback, **options},
    )
    loader: Any = _Loader(TrainData(train, model, _PASS_SIZE))
    found.fit(loader)
    return found


def _freeze_rest(model: nn.Module, precisions: dict[str, float]) -> Tensor:
    """Freeze parameters without a prior; the precision of every tensor that is still trainable."""
    kept = []
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and name in precisions)
        if p.requires_grad:
            kept.append(precisions[name])
    anchor = next(model.parameters())
    return torch.tensor(kept, dtype=anchor.dtype, device=anchor.device)
