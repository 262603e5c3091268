"""Checks for those who register a rule: does it state what the module computes?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvature.blocks import Layout
from curvature.capture import Call, watch
from curvature.rules import Rule, rule_for


def assert_rule(module: nn.Module, x: Tensor, *, tol: float = 1e-10, seed: int = 0) -> None:
    """Check a module's registered rule against the module itself, by automatic differentiation.

    A copy in float64 and eval mode with random parameters is called on x. For random output vectors
    g, and for every sample on its own, the rule's blocks ``a`` and ``g`` must satisfy

    * layout: ``from_blocks`` undoes ``to_blocks``, and both only rearrange elements;
    * output: ``sum_rb g . (W_b a)`` is the inner product of g with the output, less the output at
      zero weight;
    * weight: ``sum_r g a^T`` is the gradient of the weight;
    * bias: ``sum_r g`` is the gradient of the bias.

    Args:
        module: A module of a class with a registered rule.
        x: A batch of inputs [N, ...].
        tol: Largest error relative to the largest entry.
        seed: Seed of the random numbers.

    Raises:
        AssertionError: If one of these does not hold, or a NaN appears.

    Example:
        >>> import torch, curvature.testing
        >>> curvature.testing.assert_rule(torch.nn.Conv2d(2, 3, 3), torch.randn(4, 2, 5, 5))
    """
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module).double().eval().requires_grad_(True)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    rule = rule_for(module)
    if rule is None:
        raise AssertionError(f"no rule is registered for {type(module).__name__}")
    x = x.detach().double() if x.is_floating_point() else x
    out, given = _call(module, x)
    v = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out)
    _Check(rule, given, out, v, tol).run()


def _call(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output of the module and the input that its rule is given."""
    calls: list[Call] = []
    with watch([module], calls.append):
        out: Tensor = module(x)
    if len(calls) != 1:
        raise AssertionError(f"{type(module).__name__} has no output that depends on a parameter")
    return out, calls[0].inputs


class _Check:
    """The laws, for one module, input, output and output vector."""

    def __init__(self, rule: Rule, x: Tensor, out: Tensor, v: Tensor, tol: float) -> None:
        self.rule, self.module, self.x, self.out, self.v = rule, rule.module, x, out, v
        self.tol = tol
        self.named = dict(rule.module.named_parameters(recurse=False))

    def run(self) -> None:
        """Run the checks of the parameters that the rule covers."""
        weight, bias = (self.named.get(name or "") for name in (self.rule.weight, self.rule.bias))
        if weight is None and bias is None:
            raise AssertionError(f"the rule of {type(self.module).__name__} covers no parameter")
        g = self.rule.grads(self.module, self.v)
        self._four_axes(g, "grads")
        if weight is not None:
            a = self.rule.inputs(self.module, self.x)
            self._four_axes(a, "inputs")
            if a.shape[:3] != g.shape[:3]:
                raise AssertionError(
                    f"inputs {list(a.shape)} and grads {list(g.shape)} differ in [N, R, B]"
                )
            size = (g.shape[2], g.shape[3], a.shape[3])
            self._layout(weight, self.rule.weight_layout(), size)
            self._output(weight, a, g)
            per_sample = torch.einsum("nrbo,nrbi->nboi", g, a)
            self._gradients(weight, self.rule.weight_layout(), per_sample)
        if bias is not None:
            layout = self.rule.bias_layout(g.shape[2])
            self._layout(bias, layout, (g.shape[2], g.shape[3], 1))
            self._gradients(bias, layout, g.sum(1).unsqueeze(-1))

    def _four_axes(self, v: Tensor, what: str) -> None:
        if v.ndim != 4 or len(v) != len(self.x):
            raise AssertionError(
                f"{what} returned {list(v.shape)} for {len(self.x)} samples; it must be 4-axis, "
                "with the samples first"
            )

    def _layout(self, parameter: Tensor, layout: Layout, size: tuple[int, int, int]) -> None:
        blocks = layout.to_blocks(parameter.detach())
        if blocks.shape != size:
            raise AssertionError(
                f"to_blocks gives {list(blocks.shape)}, inputs and grads ask for {list(size)}"
            )
        self._close("from_blocks(to_blocks(w))", layout.from_blocks(blocks), parameter.detach())

    def _output(self, weight: Tensor, a: Tensor, g: Tensor) -> None:
        product = torch.einsum("boi,nrbi->nrbo", self.rule.to_blocks(weight.detach()), a)
        zero = {str(self.rule.weight): torch.zeros_like(weight)}
        rest: Tensor = functional_call(self.module, zero, (self.x,))
        linear = ((self.out - rest) * self.v).detach().flatten(1).sum(1)
        self._close("output", (product * g).flatten(1).sum(1), linear)

    def _gradients(self, parameter: Tensor, layout: Layout, per_sample: Tensor) -> None:
        rows = (self.out * self.v).flatten(1).sum(1)
        wanted = [
            torch.autograd.grad(row, [parameter], retain_graph=True, materialize_grads=True)[0]
            for row in rows
        ]
        got = [layout.from_blocks(blocks) for blocks in per_sample]
        what = f"per-sample gradients of the parameter {list(parameter.shape)}"
        self._close(what, torch.stack(got), torch.stack(wanted))

    def _close(self, what: str, got: Tensor, want: Tensor) -> None:
        if got.shape != want.shape:
            raise AssertionError(f"{what}: shape {list(got.shape)}, not {list(want.shape)}")
        error, size = float((got - want).abs().max()), float(want.abs().max())
        if not (size > 0 and error <= self.tol * size):  # also false for NaN
            raise AssertionError(
                f"{what}: the rule of {type(self.module).__name__} is off by {error:.3g}, where "
                f"the largest entry is {size:.3g}"
            )
