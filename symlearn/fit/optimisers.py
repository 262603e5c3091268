"""Steps of the weights towards the MAP of a mean negative log likelihood and Gaussian priors.

With ``g`` the gradient of the mean negative log likelihood of N samples and ``delta`` a parameter's
prior precision, every optimiser here has its fixed points where ``g + delta p / N = 0``.
`ProximalAdam` reaches that in Adam's metric, stable for any delta:

    v <- adaptive scale of the gradient g
    p <- p - lr m / (sqrt v + eps)                       data term
    p <- p / (1 + lr delta / (N (sqrt v + eps)))         prior term, exactly, in the same metric

Decoupled decay (AdamW) divides by ``1 + lr delta / N`` instead, and has another fixed point.
`Adam` and `SGD` add the prior's gradient to the data's, as it is usually done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

RESTART_SCALE = 1e-3
"""Root mean square gradient that a restarted parameter is taken to have had."""

# options of a parameter that change in a fit
_OPTIONS = ("lr", "n_data", "precision")


class MapOptimiser(torch.optim.Optimizer, ABC):
    """What the optimisers share: parameters by name, each with the precision of its prior.

    Args:
        named: Parameters by name.
        n_data: Number of samples N that the mean loss averages over (times the likelihood weight).
        lr: Step size.
        defaults: Further options of the update.
    """

    def __init__(
        self, named: Mapping[str, nn.Parameter], n_data: float, lr: float, **defaults: Any
    ) -> None:
        groups = [{"params": [p], "name": n, "precision": 0.0} for n, p in named.items()]
        super().__init__(groups, {"lr": lr, "n_data": float(n_data), **defaults})

    def set_precisions(self, precisions: Mapping[str, float]) -> None:
        """Set the prior precision of each named parameter; others have none."""
        for group in self.param_groups:
            group["precision"] = precisions.get(group["name"], 0.0)

    def set_lr(self, lr: float) -> None:
        """Set the step size of all parameters."""
        for group in self.param_groups:
            group["lr"] = lr

    @property
    def n_data(self) -> float:
        """Number of samples that the mean loss averages over (times the likelihood weight)."""
        return float(self.param_groups[0]["n_data"])

    def set_n_data(self, n_data: float) -> None:
        """Set the number of samples that the mean loss averages over."""
        for group in self.param_groups:
            group["n_data"] = n_data

    def named_state(self) -> dict[str, Any]:
        """What the next step depends on, by name of the parameter: options and moments."""
        return {
            group["name"]: {
                **{key: group[key] for key in _OPTIONS},
                "moments": dict(self.state.get(group["params"][0], {})),
            }
            for group in self.param_groups
        }

    def load_named_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `named_state` returned, in the memory layout of the parameters."""
        for group in self.param_groups:
            parameter, saved = group["params"][0], state[group["name"]]
            group.update({key: saved[key] for key in _OPTIONS})
            moments = {key: _like(value, parameter) for key, value in saved["moments"].items()}
            self.state[parameter] = moments

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on all parameters that have a gradient of the mean data loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.requires_grad:
                    self._update(p, p.grad, group)
        return loss

    @abstractmethod
    def restart(self, parameter: nn.Parameter) -> None:
        """Forget what is known of a parameter: no momentum."""

    @abstractmethod
    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        """Move one parameter, given its gradient of the mean data loss."""


class _Moments(MapOptimiser):
    """An optimiser with Adam's two moments."""

    def restart(self, parameter: nn.Parameter) -> None:
        """Forget a parameter's moments: small known scale, no momentum."""
        self.state[parameter] = {
            "step": 10_000,
            "m": torch.zeros_like(parameter),
            "v": torch.full_like(parameter, RESTART_SCALE**2),
        }

    def _moved(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Take a gradient in: first moment and scale, both corrected for their start."""
        state = self.state[p]
        if not state:
            state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        state["step"] += 1
        b1, b2 = group["betas"]
        m, v = state["m"].lerp_(g, 1 - b1), state["v"].lerp_(g.square(), 1 - b2)
        scale = (v / (1 - b2 ** state["step"])).sqrt_().add_(group["eps"])
        return m / (1 - b1 ** state["step"]), scale


class ProximalAdam(_Moments):
    """Adam on the data term, with an exact proximal step for each parameter's Gaussian prior.

    Args:
        named: Parameters by name.
        n_data: Number of samples N that the mean loss averages over (times the likelihood weight).
        lr: Step size.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        n_data: float,
        lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-4,
    ) -> None:
        super().__init__(named, n_data, lr, betas=betas, eps=eps)

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        m, scale = self._moved(p, g, group)
        p.addcdiv_(m, scale, value=-group["lr"])
        if group["precision"]:
            p.div_(1 + (group["lr"] * group["precision"] / group["n_data"]) / scale)


class Adam(_Moments):
    """Adam (Kingma and Ba 2015) on data and prior terms together.

    Args:
        named: As in `ProximalAdam`.
        n_data: As in `ProximalAdam`.
        lr: Step size.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        n_data: float,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(named, n_data, lr, betas=betas, eps=eps)

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        m, scale = self._moved(p, _with_prior(p, g, group), group)
        p.addcdiv_(m, scale, value=-group["lr"])


class SGD(MapOptimiser):
    """Gradient descent with momentum on data and prior terms together.

    Args:
        named: As in `ProximalAdam`.
        n_data: As in `ProximalAdam`.
        lr: Step size.
        momentum: Weight of the past steps.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        n_data: float,
        lr: float = 1e-2,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(named, n_data, lr, momentum=momentum)

    def restart(self, parameter: nn.Parameter) -> None:
        """Forget a parameter's momentum."""
        self.state[parameter] = {"m": torch.zeros_like(parameter)}

    def _update(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        if not self.state[p]:
            self.restart(p)  # type: ignore[arg-type]
        m = self.state[p]["m"].mul_(group["momentum"]).add_(_with_prior(p, g, group))
        p.sub_(m, alpha=group["lr"])


def _like(value: Any, parameter: Tensor) -> Any:
    """A moment where and as the parameter is; a count as it is."""
    return torch.empty_like(parameter).copy_(value) if isinstance(value, Tensor) else value


def _with_prior(p: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
    """Gradient of the mean negative log posterior."""
    return g.add(p, alpha=group["precision"] / group["n_data"])


OPTIMISERS: dict[str, Callable[[Mapping[str, nn.Parameter], float, float], MapOptimiser]] = {
    "proximal": ProximalAdam,
    "adam": Adam,
    "sgd": SGD,
}
"""Optimisers of the weights, by the name `FitConfig.optimiser` gives them."""
