"""What every pass over the data does with a batch: one forward, then vectors sent backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvature.capture import Call, check_outputs, watch
from curvature.estimators import Sampling, Vectors
from curvature.likelihoods import Likelihood
from curvature.padding import FastPadding


@dataclass(frozen=True)
class Pass:
    """The parts of a pass that do not change from batch to batch.

    Attributes:
        model: The network.
        likelihood: The likelihood.
        vectors: Which vectors in output space go backward (an estimator).
        sampling: What the estimator may draw.
    """

    model: nn.Module
    likelihood: Likelihood
    vectors: Vectors
    sampling: Sampling

    def forward(
        self,
        modules: Collection[nn.Module],
        batch: tuple[Tensor, Tensor],
        on_call: Callable[[Call], None],
    ) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """Outputs [N, K] with their graph, checked targets, and the vectors to send backward."""
        x, y = batch
        with watch(modules, on_call), FastPadding():
            outputs = check_outputs(self.model(x), len(x))
        f = outputs.detach()
        y = self.likelihood.check(f, y)
        return outputs, y, self.vectors(self.likelihood, f, y, self.sampling)

    @staticmethod
    def backward(
        outputs: Tensor, calls: Sequence[Call], vectors: Iterator[Tensor]
    ) -> Iterator[tuple[Tensor, list[tuple[Call, Tensor]]]]:
        """Each vector, and the calls with the gradients of their outputs; the graph is used up.

        Only gradients of activations are asked for, so that autograd computes no gradient of a
        weight. A call whose output has no influence on the network's is left out.

        Raises:
            ValueError: If the outputs are cut off from the calls.
        """
        if calls and not outputs.requires_grad:
            raise ValueError(
                "the network's outputs have no gradient (detached?); a curvature needs one"
            )
        edges = [call.edge for call in calls]
        v = next(vectors, None)
        while v is not None:
            following = next(vectors, None)
            grads: Sequence[Tensor | None] = ()
            if calls:
                grads = torch.autograd.grad(
                    outputs, edges, v, retain_graph=following is not None, allow_unused=True
                )
            yield v, [(call, g) for call, g in zip(calls, grads, strict=True) if g is not None]
            v = following


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
