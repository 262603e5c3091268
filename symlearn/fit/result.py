"""What a fit returns: the model, its prior, the history and the structure report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
import priors
from curvature import Data, Likelihood
from symlearn import architecture
from symlearn.collapse import collapse
from symlearn.fit import saving
from symlearn.fit.config import FitConfig
from symlearn.fit.evidence import Measurement, effective_of, evidence_of
from symlearn.fit.facts import head_structures, layer_structures, output_shares
from symlearn.fit.history import EpochRecord
from symlearn.relaxed import relaxed_layers
from symlearn.report import LayerStructure, StructureReport


@dataclass(frozen=True)
class FitResult:
    """Outcome of `symlearn.fit`.

    Attributes:
        model: The fitted relaxed network, in eval mode.
        prior: Learned prior precisions.
        report: Which path survived in which layer.
        config: Options of the fit.
        history: One record per epoch.
        likelihood: The likelihood, with the learned noise.
    """

    model: nn.Module
    prior: priors.PathPrior
    report: StructureReport
    config: FitConfig
    history: tuple[EpochRecord, ...]
    likelihood: Likelihood

    @property
    def log_evidence(self) -> float:
        """Laplace estimate of the log marginal likelihood of the training data, in nats."""
        return self.report.log_evidence

    @property
    def noise(self) -> float:
        """Standard deviation of gaussian observation noise (1 for other likelihoods)."""
        return float(getattr(self.likelihood, "noise", 1.0))

    @torch.no_grad()
    def predict_proba(self, x: Tensor | np.ndarray[Any, Any], batch_size: int = 512) -> Tensor:
        """Predictions at the fitted weights, [N, K]: class probabilities, or regression means.

        Args:
            x: Inputs [N, C, *size].
            batch_size: Samples per forward pass.

        Raises:
            ValueError: For empty or non-finite inputs.
        """
        x = torch.as_tensor(x)
        rows = [
            self.likelihood.predict(curvature.check_outputs(self.model(part), len(part)))
            for part, _ in curvature.batches((x, torch.zeros(len(x))), self.model, batch_size)
        ]
        return torch.cat(rows)

    def collapse(self) -> nn.Module:
        """The fitted network as a plain module without the paths that are off."""
        return collapse(self.model)

    def save(self, folder: str | Path) -> None:
        """Write the result as safetensors and JSON; `symlearn.load` reads it.

        Raises:
            FileExistsError: If the folder exists and holds something other than a result.
        """
        enabled = {
            name: [key for key, path in layer.named_paths().items() if path.enabled]
            for name, layer in relaxed_layers(self.model).items()
        }
        facts = {
            "config": self.config.to_dict(),
            "noise": self.noise,
            "prior_groups": {name: list(names) for name, names in self.prior.groups.items()},
            "enabled": enabled,
            "architecture": architecture.describe(self.model),
            "history": [record.to_dict() for record in self.history],
        }
        tensors = {
            f"model.{k}": v.detach().cpu().clone() for k, v in self.model.state_dict().items()
        }
        tensors.update({f"prior.{k}": v.clone() for k, v in self.prior.state_dict().items()})
        saving.write(folder, facts, self.report.to_json(), tensors)

    @torch.no_grad()
    def score(self, data: Data) -> dict[str, float]:
        """Mean negative log likelihood in nats ("nll"), and for classes the "accuracy"."""
        return score(self.model, data, self.likelihood)


@torch.no_grad()
def score(model: nn.Module, data: Data, likelihood: str | Likelihood) -> dict[str, float]:
    """Mean negative log likelihood in nats ("nll") and, for a categorical likelihood, "accuracy".

    Args:
        model: A network with outputs [N, K].
        data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        likelihood: Name or object.
    """
    likelihood = curvature.as_likelihood(likelihood)
    total, right, n = 0.0, 0, 0
    with curvature.evaluating(model):
        for x, y in curvature.batches(data, model, 512):
            outputs = curvature.check_outputs(model(x), len(x))
            y = likelihood.check(outputs, y)
            total -= float(likelihood.log_prob(outputs.double(), y))
            if likelihood.name == "categorical":
                right += int((outputs.argmax(1) == y).sum())
            n += len(x)
    scores = {"nll": total / n}
    if likelihood.name == "categorical":
        scores["accuracy"] = right / n
    return scores


def build_report(
    model: nn.Module,
    prior: priors.PathPrior,
    found: Measurement,
    batches: list[tuple[Tensor, Tensor]],
    agreement_of: Callable[[str, str], float],
    objective: str,
    meta: dict[str, str | float | int | None],
) -> StructureReport:
    """Assemble the report of a fitted model.

    Args:
        model: The fitted model.
        prior: Its prior.
        found: Measurement at its weights.
        batches: Data for the shares of output variance.
        agreement_of: Share of the last evidence steps in which a layer had a verdict.
        objective: "evidence" or "map".
        meta: Facts about the run.
    """
    facts = layer_structures(model, prior, found, output_shares(model, batches))
    layers = []
    for name, paths in facts.items():
        verdict = LayerStructure.of(name, paths).verdict
        layers.append(LayerStructure.of(name, paths, agreement_of(name, verdict)))
    return StructureReport(
        layers=tuple(layers),
        heads=head_structures(model, prior, found),
        log_evidence=evidence_of(prior, found),
        n_data=int(meta["n_data"] or 0),
        n_params=sum(p.numel() for p in model.parameters()),
        effective_params=math.fsum(effective_of(prior, found).values()),
        objective=objective,
        meta=meta,
    )
