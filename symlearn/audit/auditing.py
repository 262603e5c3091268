"""The audit of a network: every measurement in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvature import Data
from curvature.checking import check_module, seeded
from symlearn.audit import images, resample
from symlearn.audit.attribution import Attribution, Probing, attribute
from symlearn.audit.lie import LieDerivative, measure
from symlearn.audit.metrics import (
    Measured,
    discrete_consistency,
    group_sample_error,
    nearby,
    relative_error,
)
from symlearn.audit.report import Audit
from symlearn.audit.transforms import Transformation, as_transformations
from symlearn.audit.translation import TranslationError, translation_errors
from symlearn.progress import Progress

DEFAULT = ("translation_x", "translation_y", "rotation", "scaling", "shear")
_LARGEST_SHIFT = 5.0  # pixels of the group sample error (Gruver et al. 2023, A.3.3.3)
_CONSISTENCY_SHIFT = 10
_FINITE = {"group sample error": group_sample_error, "EquivErr": relative_error}


@dataclass(frozen=True)
class AuditConfig:
    """Options of an audit.

    Attributes:
        images: Most images taken from the data.
        layers: Whether to attribute the Lie derivatives to modules.
        metrics: Whether to measure errors under finite translations: discrete consistency, the
            group sample error and EquivErr.
        eq_t: Whether to measure EQ-T and EQ-T_frac of all modules.
        link: What is measured of the outputs: "identity" (as they are) or "softmax".
        output: How transformations act on outputs: "auto" moves images [N, C, H, W] and leaves all
            else; "image" or "vector".
        resampling: "bilinear", "bicubic" or "fourier" (exact; circular padding only).
        padding: "reflection", "circular" or "zeros".
        tolerance: Relative standard error of the contributions that is aimed for.
        most_probes: Most backward passes per batch of images.
        memory_gb: Memory for activations, in units of 10^9 bytes.
        seed: Of probes and of sampled transformations.
        progress: Whether to show progress; None on terminals only.

    Raises:
        ValueError: For an unknown resampling or padding, numbers that are not positive, or a seed
            that is no whole number.
    """

    images: int = 20
    layers: bool = True
    metrics: bool = True
    eq_t: bool = False
    link: str = "identity"
    output: str = "auto"
    resampling: str = "bilinear"
    padding: str = "reflection"
    tolerance: float = 0.1
    most_probes: int = 100
    memory_gb: float = 2.0
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self) -> None:
        resample.check(self.resampling, self.padding)
        seeded(self.seed)
        Probing(self.tolerance, self.most_probes, self.seed)


def audit(
    model: nn.Module,
    X: Tensor | np.ndarray[Any, Any] | Data,  # noqa: N803
    transforms: str | Transformation | Iterable[str | Transformation] = DEFAULT,
    config: AuditConfig | None = None,
) -> Audit:
    """Measure how far a network is from respecting transformations, and which modules are to blame.

    Args:
        model: Any network from images [N, C, H, W] to one tensor [N, ...]; it is run in eval mode
            and not changed.
        X: Images, or ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        transforms: Names from `symlearn.audit.TRANSFORMATIONS`, or `Transformation` objects.
        config: Options.

    Returns:
        The measurements: print them, or write them with ``to_json``.

    Raises:
        TypeError: If the model, the data, the config or the network's output are of another kind.
        ValueError: For unknown names, images that are not finite [N, C, H, W], or measurements that
            are not finite (`NotFiniteError`).
        NoDerivativeError: If the network cannot be differentiated.

    Example:
        >>> import symlearn, torch
        >>> net = symlearn.models.paper_cnn("conv", alpha=2, in_channels=1, classes=3, size=32)
        >>> audit = symlearn.audit(net, torch.rand(2, 1, 32, 32), "rotation")
        >>> abs(sum(row.share for row in audit.layer("rotation").measured) - 1) < 1e-6
        True
    """
    check_module(model)
    if not isinstance(config, (AuditConfig, type(None))):
        raise TypeError(f"config must be an AuditConfig, got {type(config).__name__}")
    config = config or AuditConfig()
    chosen = as_transformations(transforms, config.resampling, config.padding)
    x = images.as_images(X, model, config.images)
    with images.frozen(model):
        batch = images.batch_size(model, x, 4, config.memory_gb)
    return Audit(
        lie=_lie(model, x, chosen, config, batch),
        layers=_layers(model, x, chosen, config) if config.layers else (),
        metrics=_metrics(model, x, config, batch) if config.metrics else {},
        translations=_translations(model, x, config) if config.eq_t else {},
        n_images=len(x),
        link=config.link,
        resampling=config.resampling,
        padding=config.padding,
    )


def _lie(
    model: nn.Module, x: Tensor, chosen: tuple[Transformation, ...], config: AuditConfig, batch: int
) -> tuple[LieDerivative, ...]:
    found = []
    with Progress(config.progress, "Lie derivatives", len(chosen)) as bar:
        for transform in chosen:
            found.append(
                measure(model, x, transform, link=config.link, output=config.output, batch=batch)
            )
            bar.advance()
    return tuple(found)


def _layers(
    model: nn.Module, x: Tensor, chosen: tuple[Transformation, ...], config: AuditConfig
) -> tuple[Attribution, ...]:
    return attribute(
        model,
        x,
        chosen,
        link=config.link,
        output=config.output,
        probing=Probing(config.tolerance, config.most_probes, config.seed),
        memory_gb=config.memory_gb,
        progress=config.progress,
    )


def _metrics(model: nn.Module, x: Tensor, config: AuditConfig, batch: int) -> dict[str, Measured]:
    """Errors under translations: 5 and 10 pixels, less on small images."""
    smaller = min(x.shape[-2:])
    step = min(_LARGEST_SHIFT, smaller / 8)
    axes = as_transformations(("translation_x", "translation_y"), config.resampling, config.padding)
    elements = [
        element
        for t, size in zip(axes, (x.shape[-1], x.shape[-2]), strict=True)
        for element in nearby((t,), step / size, 8, config.seed, config.output)
    ]
    near = f"translations to {step:g} px"
    found = {}
    with Progress(config.progress, "finite translations", 3) as bar:
        for name, metric in _FINITE.items():
            found[f"{name}, {near}"] = metric(model, x, elements, link=config.link, batch=batch)
            bar.advance()
        pixels = min(_CONSISTENCY_SHIFT, smaller // 4)
        if pixels and _is_classifier(model, x):
            found[f"top class changes, shifts by {pixels} px"] = discrete_consistency(
                model, x, pixels=pixels, padding=config.padding, batch=batch
            )
        bar.advance()
    return found


def _is_classifier(model: nn.Module, x: Tensor) -> bool:
    with torch.no_grad(), images.frozen(model):
        y = images.outputs(model, x[:1])
    return y.ndim == 2 and y.shape[1] > 1


def _translations(
    model: nn.Module, x: Tensor, config: AuditConfig
) -> dict[str, tuple[TranslationError, ...]]:
    return {
        name: translation_errors(
            model,
            x,
            fractional=fractional,
            resampling=config.resampling,
            padding=config.padding,
            seed=config.seed,
            progress=config.progress,
        )
        for name, fractional in (("EQ-T", False), ("EQ-T_frac", True))
    }
