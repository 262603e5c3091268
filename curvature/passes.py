"""What every pass over the data does with a batch: one forward, then vectors sent backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvature.capture import Call, check_outputs, watch
from curvature.estimators import Vectors
from curvature.likelihoods import Likelihood


@dataclass(frozen=True)
class Pass:
    """The parts of a pass that do not change from batch to batch.

    Attributes:
        model: The network.
        likelihood: The likelihood.
        vectors: Which vectors in output space go backward (an estimator).
        generator: Random numbers of the sampling estimators.
        draws: Number of draws of the sampling estimators.
    """

    model: nn.Module
    likelihood: Likelihood
    vectors: Vectors
    generator: torch.Generator
    draws: int

    def forward(
        self,
        modules: Collection[nn.Module],
        batch: tuple[Tensor, Tensor],
        on_call: Callable[[Call], None],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Outputs [N, K] with their graph, checked targets, and the vectors to send backward."""
        x, y = batch
        with watch(modules, on_call):
            outputs = check_outputs(self.model(x), len(x))
        f = outputs.detach()
        y = self.likelihood.check(f, y)
        vectors = self.vectors(self.likelihood, f, y, self.generator, self.draws)
        return outputs, y, list(vectors)

    @staticmethod
    def backward(
        outputs: Tensor, calls: Sequence[Call], vectors: Sequence[Tensor]
    ) -> Iterator[list[tuple[Call, Tensor]]]:
        """For each vector, the calls with the gradients of their outputs; the graph is used up.

        Only gradients of activations are asked for, so that autograd computes no gradient of a
        weight. A call whose output has no influence on the network's is left out.

        Raises:
            ValueError: If the outputs are cut off from the calls.
        """
        if not calls:
            return
        if not outputs.requires_grad:
            raise ValueError(
                "the network's outputs have no gradient (detached?); a curvature needs one"
            )
        edges = [call.edge for call in calls]
        for i, v in enumerate(vectors):
            keep = i + 1 < len(vectors)
            grads = torch.autograd.grad(outputs, edges, v, retain_graph=keep, allow_unused=True)
            yield [(call, g) for call, g in zip(calls, grads, strict=True) if g is not None]


def batch_first(v: Tensor, n: int, module: nn.Module) -> Tensor:
    """Return per-call vectors [N, R, B, D] after a check that their first axis is the samples'.

    Sums over samples and positions do not care, but whatever treats positions by sample does.

    Raises:
        ValueError: If the first axis has another length than the batch.
    """
    if len(v) != n:
        raise ValueError(
            f"a {type(module).__name__} was called on {len(v)} rows in a batch of {n} samples; "
            "sharing='reduce' and ekfac=True need the samples on the first axis of its input"
        )
    return v
