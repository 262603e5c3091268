"""What every pass over the data does with a batch: one forward, then vectors sent backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from curvature.capture import Call, outputs_of, watch
from curvature.estimators import Sampling, Vectors
from curvature.likelihoods import Likelihood
from curvature.padding import FastPadding
from curvature.reduce import Share


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
        share: Share,
        on_call: Callable[[Call], None],
    ) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """Outputs [N, K] with their graph, checked targets, and the vectors to send backward.

        All are of this process's share of the batch.
        """
        x, y = map(share.of, batch)
        with watch(modules, on_call), FastPadding():
            outputs = outputs_of(self.model, x)
        f = outputs.detach()
        y = self.likelihood.check(f, y)
        return outputs, y, self.vectors(self.likelihood, f, y, replace(self.sampling, share=share))

    @staticmethod
    def backward(
        outputs: Tensor,
        calls: Sequence[Call],
        vectors: Iterator[Tensor],
        on_grad: Callable[[Call, Tensor], object],
    ) -> Iterator[Tensor]:
        """Send the vectors back one after the other; yields each when it has passed.

        Only gradients of activations are asked for, so that autograd computes no gradient of a
        weight, and each is given to ``on_grad`` as it appears rather than kept to the end. A call
        whose output has no influence on the network's gets none. The graph is used up.

        Raises:
            ValueError: If the outputs are cut off from the calls.
        """
        if calls and not outputs.requires_grad:
            raise ValueError(
                "the network's outputs have no gradient (detached?); a curvature needs one"
            )
        ends, passed = _split(outputs, calls)
        hooks = [call.edge.node.register_prehook(_reader(call, on_grad)) for call in passed]
        try:
            v = next(vectors, None)
            while v is not None:
                following = next(vectors, None)
                if ends:
                    edges, keep = [call.edge for call in ends], following is not None
                    grads = torch.autograd.grad(outputs, edges, v, retain_graph=keep)
                    for call, g in zip(ends, grads, strict=True):
                        on_grad(call, g)
                yield v
                v = following
        finally:
            for hook in hooks:
                hook.remove()


def _reader(
    call: Call, on_grad: Callable[[Call, Tensor], object]
) -> Callable[[Sequence[Tensor | None]], None]:
    def read(grads: Sequence[Tensor | None]) -> None:
        g = grads[call.edge.output_nr]
        if g is not None:
            on_grad(call, g)

    return read


def _split(outputs: Tensor, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """The calls beyond which backward passes meet no other call, and those they pass on the way.

    Calls that the outputs do not depend on are in neither list.
    """
    if not calls:
        return [], []
    users: dict[Node, list[Node]] = {}
    ahead = [get_gradient_edge(outputs).node]
    users[ahead[0]] = []
    while ahead:
        node = ahead.pop()
        for behind, _ in node.next_functions:
            if behind is not None:
                if behind not in users:
                    users[behind] = []
                    ahead.append(behind)
                users[behind].append(node)
    calls = [call for call in calls if call.edge.node in users]
    passed, ahead = set[Node](), [call.edge.node for call in calls]
    while ahead:
        for node in users[ahead.pop()]:
            if node not in passed:
                passed.add(node)
                ahead.append(node)
    ends = [call for call in calls if call.edge.node not in passed]
    return ends, [call for call in calls if call.edge.node in passed]


def recorder(calls: list[Call], inputs: list[Tensor]) -> Callable[[Call], None]:
    """Collect calls and copies of their inputs, for use after the forward pass.

    A copy, because the rest of the forward pass may overwrite an input in place.
    """

    def on_call(call: Call) -> None:
        calls.append(call)
        inputs.append(call.inputs.clone())

    return on_call


def batch_first(v: Tensor, n: int, module: nn.Module) -> Tensor:
    """Return per-call vectors [N, R, B, D] after a check that their first axis is the samples'.

    Sums over samples and positions do not care, but whatever treats positions by sample does.

    Raises:
        ValueError: If the first axis has another length than the batch.
    """
    if len(v) != n:
        raise ValueError(
            f"a {type(module).__name__} was called on {len(v)} rows in a batch of {n} samples; "
            "sharing='reduce', ekfac=True and functional variances need the samples on the first "
            "axis of its input"
        )
    return v
