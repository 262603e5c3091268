"""Where curvature is gathered: one site per covered module, with the running factors A and G."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from curvature.blocks import DenseBlock, KroneckerBlocks
from curvature.capture import Call
from curvature.factor import Factor
from curvature.gram import accumulator_dtype, gram
from curvature.passes import batch_first
from curvature.reduce import Reduction
from curvature.restricted import check_size, restricted_block
from curvature.rules import Rule, rule_for

SHARINGS = ("expand", "reduce")


class Site:
    """Running factors ``A = sum a a^T`` and ``G = sum g g^T`` of one module.

    Args:
        prefix: Qualified name of the module.
        rule: The module's rule.
        wanted: Names of all parameters whose curvature is wanted.
        sharing: One of `SHARINGS`.

    Attributes:
        weight: Qualified name of the weight, or None when its curvature is not wanted.
        bias: The same for the bias.
    """

    def __init__(self, prefix: str, rule: Rule, wanted: Collection[str], sharing: str) -> None:
        self.rule, self.sharing = rule, sharing
        self.weight = _wanted(prefix, rule.weight, wanted)
        self.bias = _wanted(prefix, rule.bias, wanted)
        if self.weight is not None and rule.restricted:
            check_size(self.weight, rule.weight_layout().shape)
        self.called = False
        self._a: Tensor | None = None
        self._g: Tensor | None = None
        self._count = self._sent = 0

    @property
    def module(self) -> nn.Module:
        """The module."""
        module: nn.Module = self.rule.module
        return module

    def add_call(self, call: Call, n: int, counted: bool = True) -> None:
        """Add the inputs of one call in a batch of n samples, and make room for its gradients.

        Of a call that is not counted only the shapes are taken.
        """
        self.called = True
        if self.weight is not None:
            term = self._input_gram(call.inputs, n)
            self._a = _added(self._a, term if counted else term.zero_())
        # a call that gets no gradient counts too
        rows, positions, blocks, outputs = self._output_vectors(call.zeros, n).shape
        self._count += rows * positions * counted
        if self._g is None:
            self._g = call.zeros.new_zeros(
                blocks, outputs, outputs, dtype=accumulator_dtype(call.zeros)
            )

    def add_grads(self, g: Tensor, n: int) -> None:
        """Add the gradients of one call's output."""
        g = self._output_vectors(g, n)
        self._sent += g.shape[0] * g.shape[1]
        self._g = _added(self._g, gram(g))

    def reduce(self, reduction: Reduction) -> None:
        """Replace the factors by their sums over all processes."""
        reduction.sum(*(total for total in (self._a, self._g) if total is not None))
        count, sent = reduction.numbers(self._count, self._sent)
        self._count, self._sent = round(count), round(sent)

    def _input_gram(self, x: Tensor, n: int) -> Tensor:
        """[B, I, I]; of the mean over positions when weights are shared that way."""
        if self.sharing == "expand":
            return self.rule.input_gram(self.module, x)
        a = batch_first(self.rule.inputs(self.module, x), n, self.module)
        return gram(a.mean(1, keepdim=True))

    def _output_vectors(self, g: Tensor, n: int) -> Tensor:
        """[N, R, B, O]; summed over positions when weights are shared that way."""
        g = self.rule.grads(self.module, g)
        if self.sharing == "reduce":
            g = batch_first(g, n, self.module).sum(1, keepdim=True)
        return g

    def blocks(self) -> Iterator[tuple[str, KroneckerBlocks | DenseBlock]]:
        """Name and value object of the weight and the bias; both share the output factor.

        Raises:
            ValueError: If a factor is not finite.
        """
        if self._g is None:
            return
        outputs = self._factor(self._g, self._sent, "gradients")
        if self.weight is not None and self._a is not None:
            layout = self.rule.weight_layout()
            inputs = self._factor(self._a, self._count, "inputs")
            make = restricted_block if self.rule.restricted else KroneckerBlocks
            yield self.weight, make(inputs, outputs, self._count, layout)
        if self.bias is not None:
            layout = self.rule.bias_layout(outputs.blocks)
            ones = Factor(self._g.new_full((outputs.blocks, 1, 1), float(self._count)))
            yield self.bias, KroneckerBlocks(ones, outputs, self._count, layout)

    def _factor(self, matrix: Tensor, vectors: int, what: str) -> Factor:
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError(
                f"the {what} at {self.weight or self.bias} are not finite, or their squares "
                "overflow; scale the data or the weights, or use a wider dtype"
            )
        return Factor(matrix, vectors)


def _wanted(prefix: str, short: str | None, wanted: Collection[str]) -> str | None:
    name = f"{prefix}.{short}" if prefix else short
    return name if name in wanted else None


def _added(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total.add_(term)


def sites_of(model: nn.Module, wanted: Collection[str], sharing: str) -> dict[nn.Module, Site]:
    """One site per module that holds a wanted parameter and has a rule."""
    sites = {}
    for prefix, module in model.named_modules():
        rule = rule_for(module)
        if rule is not None:
            site = Site(prefix, rule, wanted, sharing)
            if site.weight or site.bias:
                sites[module] = site
    return sites


def blocks_of(sites: Collection[Site]) -> dict[str, KroneckerBlocks | DenseBlock]:
    """Value objects of all sites by parameter name.

    Raises:
        ValueError: If modules were never called; all of them are named.
    """
    idle = [site for site in sites if not site.called]
    if idle:
        lines = [f"  {site.weight or site.bias} of {type(site.module).__name__}" for site in idle]
        raise ValueError(
            "the forward pass never called the modules of these parameters:\n"
            + "\n".join(lines)
            + "\nFreeze them (requires_grad_(False)), or leave them out with only=..."
        )
    return dict(pair for site in sites for pair in site.blocks())
