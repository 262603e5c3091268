"""What a fit returns: the model, its prior, the history and the structure report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
import priors
from curvature import Data, KroneckerCurvature, Likelihood
from symlearn import architecture
from symlearn.calibration import N_BINS
from symlearn.fit import saving
from symlearn.fit.check import check_report
from symlearn.fit.collapsed import collapse_result
from symlearn.fit.config import FitConfig
from symlearn.fit.evidence import Measurement, effective_of, evidence_of
from symlearn.fit.facts import head_structures, layer_structures, output_shares
from symlearn.fit.history import EpochRecord
from symlearn.fit.posterior import calibration_of, posterior_of
from symlearn.predictive import GaussianPredictive, Posterior, Predictive, as_inputs
from symlearn.relaxed import enabled_paths
from symlearn.report import Calibration, LayerStructure, StructureReport
from symlearn.scoring import score

if TYPE_CHECKING:
    from curvature.adapters.laplace_torch import BlockLaplace


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
        curvature: Curvature of the log likelihood at the fitted weights, for all training data;
            None in a result from disk, which does not keep it.
    """

    model: nn.Module
    prior: priors.PathPrior
    report: StructureReport
    config: FitConfig
    history: tuple[EpochRecord, ...]
    likelihood: Likelihood
    curvature: KroneckerCurvature | None = field(default=None, repr=False, compare=False)

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
            ValueError: For inputs that are empty, not finite, or not what the network takes.
        """
        x = as_inputs(x)
        rows = [
            self.likelihood.predict(curvature.outputs_of(self.model, part))
            for part, _ in curvature.batches((x, torch.zeros(len(x))), self.model, batch_size)
        ]
        return torch.cat(rows)

    def posterior(self, train: Data | None = None) -> Posterior:
        """Laplace posterior of the weights, for predictions with uncertainty.

        Args:
            train: Training data, or a random part of them, from which the curvature is computed
                anew and scaled to their number. Needed for a result from disk only.

        Raises:
            ValueError: If the result has no curvature and no data are given.
        """
        return posterior_of(self, train)

    def predictive(
        self,
        x: Tensor | np.ndarray[Any, Any],
        *,
        link: str = "mc",
        samples: int = 256,
        seed: int = 0,
        train: Data | None = None,
    ) -> Predictive | GaussianPredictive:
        """Predictions with the uncertainty of the weights, by the linearised network.

        Args:
            x: Inputs [N, C, *size].
            link: "mc" or "probit"; see `Posterior.predictive`.
            samples: Draws of the logits.
            seed: Seed of the draws.
            train: As for `posterior`, which saves doing it again for each call.

        Raises:
            ValueError: As `posterior` and `Posterior.predictive`.
        """
        return self.posterior(train).predictive(x, link=link, samples=samples, seed=seed)

    def calibration(
        self,
        x: Tensor | np.ndarray[Any, Any],
        y: Tensor | np.ndarray[Any, Any],
        *,
        link: str = "mc",
        n_bins: int = N_BINS,
        train: Data | None = None,
    ) -> Calibration:
        """Calibration on a test set; `StructureReport.with_calibration` puts it into the report.

        Args:
            x: Inputs [N, C, *size].
            y: Class indices [N].
            link: "map" for `predict_proba`, or one of the links of `predictive`.
            n_bins: Bins of the calibration errors.
            train: As for `posterior`.

        Raises:
            ValueError: For another likelihood than the categorical one, an unknown link, or bad
                data.
        """
        return calibration_of(self, x, y, link, n_bins, train)

    def check(
        self, data: Data | Tensor | np.ndarray[Any, Any], *, images: int = 64, seed: int = 0
    ) -> StructureReport:
        """The report, its verdicts checked on other images by measurements without the evidence.

        The trained operators and the network's response to translations are compared with the
        evidence, layer by layer (`symlearn.report.SymmetryCheck`). An evidence fit does so on
        training images.

        Args:
            data: Images [N, C, *size], ``(X, y)``, a Dataset or a DataLoader.
            images: Most images taken.
            seed: Seed of probes and shifts.

        Raises:
            ValueError: For fewer than two images, or malformed ones.
            TypeError: If the data are of an unknown kind.
        """
        return check_report(self.report, self.model, data, images=images, seed=seed)

    def collapse(
        self,
        data: Data | Tensor | np.ndarray[Any, Any] | None = None,
        *,
        threshold: float = 0.0,
        fine_tune: int = 0,
        prune_channels: bool = False,
        train: Data | None = None,
    ) -> nn.Module:
        """The fitted network as a plain module, without the paths that are off.

        `symlearn.collapse` says what becomes of a layer; `symlearn.collapse_report` of the returned
        network tells what was done, what it costs before and after, and, given data, by how much
        outputs, accuracy and loss changed.

        Args:
            data: What outputs, scores and time are measured on, best not the training data: inputs
                [N, C, *size], ``(X, y)``, a Dataset or a DataLoader.
            threshold: Drop paths with a smaller share of their layer's effective parameters
                (``relative_effective_params`` of the report), in [0, 1). The path with the largest
                share stays. At 0 the network computes what the fitted one does.
            fine_tune: Epochs of MAP training without these paths, under the learned prior.
            prune_channels: Remove output channels that have (almost) no effective parameters.
            train: Training data; needed for ``fine_tune``, and for ``prune_channels`` after it or
                of a result from disk.

        Raises:
            ValueError: For options out of range, missing or malformed data, or a network whose
                structure cannot be traced, where channels are to be pruned.
            CollapseError: If outputs differ from those of the relaxed network without the dropped
                paths by more than rounding explains.
        """
        return collapse_result(self, data, threshold, fine_tune, prune_channels, train)

    def to_laplace(self, train: Data, **options: Any) -> BlockLaplace:
        """The fitted network as a laplace-torch object with the learned prior precisions.

        Fitted to all the data with the exact curvature, at the result's weights, noise and
        likelihood weight. Each parameter has the precision of its path. The object holds a copy of
        the network, in which parameters without a prior (normalisation scales) are frozen.

        Args:
            train: The training data, in any form that `symlearn.fit` takes.
            options: Options of `curvature.kronecker` for the pass, such as ``estimator="sketch"``.

        Raises:
            ModuleNotFoundError: If laplace-torch is not installed.
            ValueError: If laplace-torch does not know the likelihood, or for bad data.
        """
        from symlearn.fit.laplace import to_laplace  # needs the extra "laplace"

        return to_laplace(self, train, **options)

    def save(self, folder: str | Path) -> None:
        """Write the result as safetensors and JSON; `symlearn.load` reads it.

        Raises:
            FileExistsError: If the folder exists and holds something other than a result.
            NotADirectoryError: If the folder is a file.
            TypeError: If the folder is no path.
        """
        facts = {
            "config": self.config.to_dict(),
            "noise": self.noise,
            "prior_groups": {name: list(names) for name, names in self.prior.groups.items()},
            "enabled": enabled_paths(self.model),
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


def build_report(
    model: nn.Module,
    prior: priors.PathPrior,
    found: Measurement,
    batches: Iterable[tuple[Tensor, Tensor]],
    agreement_of: Callable[[str, str], float],
    objective: str,
    n_data: int,
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
        n_data: Training samples.
        meta: Facts about the run.
    """
    facts = layer_structures(model, prior, found, output_shares(model, batches))
    layers = []
    for name, paths in facts.items():
        verdict = LayerStructure.of(name, paths).by_shares
        layers.append(LayerStructure.of(name, paths, agreement_of(name, verdict)))
    return StructureReport(
        layers=tuple(layers),
        heads=head_structures(model, prior, found),
        log_evidence=evidence_of(prior, found),
        n_data=n_data,
        n_params=sum(p.numel() for p in model.parameters()),
        effective_params=math.fsum(effective_of(prior, found).values()),
        objective=objective,
        meta={"log_likelihood": found.log_likelihood, **meta},
    )
