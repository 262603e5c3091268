"""Collapse of a fitted network, by what its evidence says of paths and channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curvature import Block, Data, KroneckerBlocks
from curvature.checking import is_count, is_number
from symlearn.collapse import Steps, run
from symlearn.fit.data import TrainData
from symlearn.fit.optimisers import OPTIMISERS
from symlearn.fit.weights import WeightAverage, train_epoch
from symlearn.relaxed import relaxed_layers
from symlearn.report import StructureReport

if TYPE_CHECKING:
    from symlearn.fit.result import FitResult

TUNE_RATE = 0.1
"""First learning rate of fine-tuning, relative to that of the fit; it falls to zero."""

VANISHED = 1e-3
"""Effective parameters per weight below which a channel counts as vanished."""


def weak_paths(report: StructureReport, threshold: float) -> list[str]:
    """Paths that are on, but have a relative share of effective parameters below a threshold.

    The path with the largest share of a layer is never weak, nor is one that was not measured.

    Args:
        report: The structure report.
        threshold: Share in [0, 1).

    Returns:
        Names "layer.path".

    Raises:
        ValueError: If the threshold is out of range.
    """
    if not (is_number(threshold) and 0 <= threshold < 1):
        raise ValueError(f"threshold is {threshold!r}; give a share in [0, 1)")
    weak = []
    for layer in report:
        shares = {
            name: path.relative_effective_params for name, path in layer.paths.items() if path.on
        }
        largest = max(shares, key=lambda name: shares[name], default=None)
        below = [name for name, share in shares.items() if share < threshold and name != largest]
        weak += [f"{layer.name}.{name}".lstrip(".") for name in below]
    return weak


def collapse_result(
    result: FitResult,
    data: Any,
    threshold: float,
    fine_tune: int,
    prune_channels: bool,
    train: Data | None,
) -> nn.Module:
    """See `FitResult.collapse`."""
    if not is_count(fine_tune, 0):
        raise ValueError(f"fine_tune is {fine_tune!r}; give a whole number of epochs, 0 for none")
    measured = result.curvature is not None and not fine_tune
    if train is None and (fine_tune or (prune_channels and not measured)):
        raise ValueError(
            "fine-tuning, and the effective parameters of channels where the weights were tuned or "
            "the result is from disk, need the training data: train=(X, y)"
        )

    def tune(model: nn.Module) -> None:
        _fine_tune(result, model, train, fine_tune)

    def vanished(model: nn.Module) -> dict[str, Tensor]:
        posterior = replace(result, model=model).posterior(train)
        return vanished_channels(model, posterior.blocks, posterior.precision)

    steps = Steps(
        drop=weak_paths(result.report, threshold),
        tune=tune if fine_tune else None,
        prune=prune_channels,
        vanished=vanished,
    )
    return run(result.model, data, steps, result.likelihood)


def _fine_tune(result: FitResult, model: nn.Module, train: Any, epochs: int) -> None:
    """MAP steps under the learned prior, with a learning rate that falls to zero."""
    config = result.config
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        data = TrainData(train, model, config.batch_size)
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        n_data = data.n * config.likelihood_weight
        optimiser = OPTIMISERS[config.optimiser](named, n_data, config.learning_rate)
        optimiser.set_precisions(result.prior.precisions_by_parameter())
        average = WeightAverage(model, config.average)
        for epoch in range(epochs):
            optimiser.set_lr(TUNE_RATE * config.learning_rate * (1 - epoch / epochs))
            train_epoch(model, data.epoch(generator), result.likelihood, optimiser, average)
        average.copy_to_model()
    model.eval()


def vanished_channels(
    model: nn.Module, blocks: Mapping[str, Block], precisions: Mapping[str, float]
) -> dict[str, Tensor]:
    """Output channels of layers whose weights have (almost) no effective parameters.

    A weight's share is its diagonal element of ``H (H + delta)^-1``; the shares of a path sum to
    its gamma (paper, App. D.2). Layers with a part whose channels are not known are left out.

    Args:
        model: The relaxed network.
        blocks: The curvature of its log likelihood, by parameter.
        precisions: Prior precision by parameter.

    Returns:
        Layer -> whether each output channel has vanished, bool [C'].
    """
    shares = _shares(blocks, precisions)
    gone = {}
    for name, layer in relaxed_layers(model).items():
        n = layer.geometry.out_channels
        prefix = f"{name}." if name else ""
        weights = [
            f"{prefix}paths.{key}.{tensor}"
            for key, path in layer.named_paths().items()
            if path.enabled
            for tensor, _ in path.named_parameters()
        ]
        rows = [_by_channel(shares[w], n) for w in weights if w in shares]
        if rows and len(rows) == len(weights) and all(row is not None for row in rows):
            mean = torch.cat([row for row in rows if row is not None], 1).mean(1)
            gone[name] = mean < VANISHED
    return gone


def _shares(blocks: Mapping[str, Block], precisions: Mapping[str, float]) -> dict[str, Tensor]:
    """Diagonal of ``H (H + delta)^-1`` of each Kronecker-factored weight, in the weight's shape."""
    shares = {}
    for name, block in blocks.items():
        if isinstance(block, KroneckerBlocks) and name in precisions:
            a, g = block.inputs.vectors.square(), block.outputs.vectors.square()
            lam = block.eigenvalues.reshape(-1, block.outputs.dim, block.inputs.dim)
            diagonal = g @ (lam / (lam + precisions[name])) @ a.mT
            shares[name] = block.layout.from_blocks(diagonal)
    return shares


def _by_channel(share: Tensor, channels: int) -> Tensor | None:
    """A weight's numbers [C', K] by output channel, or None if its first axis is none of channels.

    Where several channels share a filter (those of a group), each gets all of its numbers.
    """
    rows = len(share)
    if rows % channels == 0:
        return share.reshape(channels, -1)
    if channels % rows == 0:
        return share.reshape(rows, -1).repeat_interleave(channels // rows, 0)
    return None
