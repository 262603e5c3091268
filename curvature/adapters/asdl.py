"""asdl's Fisher information for any module with a curvature rule (the distribution asdfghjkl).

asdl knows modules by a fixed list. It skips the others without a word, leaves the frozen parameters
of partly frozen modules in, and pads convolutions with zeros whatever ``padding_mode`` says. The
Fisher maker here runs asdl's own loops over classes and samples, but gathers the factors of every
module by its rule, and none by asdl's operations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from curvature.adapters.extra import missing
from curvature.blocks import KroneckerBlocks
from curvature.capture import Call, check_outputs, check_separable, evaluating, watch
from curvature.coverage import coverage
from curvature.sites import Site, blocks_of, sites_of

try:
    from asdl.fisher import FisherConfig, get_fisher_maker
    from asdl.matrices import SHAPE_KRON
    from asdl.symmatrix import SymMatrix
except ModuleNotFoundError as error:
    raise missing("asdfghjkl") from error


class _RuleFisher:
    """Mixin of an asdl Fisher maker: factors by the registered rules.

    Attributes:
        blocks: After ``forward_and_backward``, parameter name to value object: the curvature of the
            log likelihood, summed over the batch. Those of several batches can be added.
    """

    model: nn.Module
    config: FisherConfig
    blocks: dict[str, KroneckerBlocks]

    def __init__(self, model: nn.Module, config: FisherConfig) -> None:
        # asdl's own operations are to ignore every module
        super().__init__(model, dataclasses.replace(config, ignore_modules=[nn.Module]))  # type: ignore[call-arg]
        self._wanted = set(coverage(model).names("kronecker"))
        self._sites: dict[nn.Module, Site] = {}
        self._handles: list[Any] = []

    def forward_and_backward(
        self, data_size: int = -1, scale: float | None = None, **options: Any
    ) -> Any:
        """Run the model and asdl's backward passes; sets ``module.fisher`` and `blocks`.

        ``module.fisher.kron`` holds asdl's factors: A, divided by the number of shared positions,
        and B, both times ``scale / data_size``. They are stacks [B, D, D] where a rule states
        several blocks. `blocks` is not scaled.

        Args:
            data_size: As asdl's.
            scale: As asdl's.
            options: ``calc_loss_grad``.

        Raises:
            ValueError: For options other than that, modules that the model never calls, or weights
                whose rule is restricted.
        """
        refused = sorted(set(options) - {"calc_loss_grad"})
        if refused:
            raise ValueError(f"{refused} are not supported; add the blocks of several batches")
        data_size = self.config.data_size if data_size == -1 else data_size
        self._scale = (self.config.scale if scale is None else scale) / data_size
        self._sites = sites_of(self.model, self._wanted, "expand")
        restricted = [site.weight for site in self._sites.values() if site.rule.restricted]
        if restricted:
            raise ValueError(
                f"the curvature of the coefficients {restricted} is no Kronecker product, which is "
                "all that this adapter passes on; use curvature.kronecker"
            )
        trainable = [(p, p.requires_grad) for p in self.model.parameters()]
        try:
            with evaluating(self.model):
                return super().forward_and_backward(data_size, scale, **options)  # type: ignore[misc]
        finally:
            self._stop()
            for p, flag in trainable:  # asdl leaves all frozen after an exception
                p.requires_grad_(flag)

    def call_model(self) -> Any:
        """Run the model, and watch the modules with rules."""
        calls: list[Call] = []
        with watch(list(self._sites), calls.append):
            out = super().call_model()  # type: ignore[misc]
        self._n = len(out)
        check_outputs(out.detach(), self._n)
        for call in calls:
            self._sites[call.module].add_call(call, self._n)
            self._handles.append(call.edge.node.register_prehook(partial(self._read, call)))
        return out

    def _read(self, call: Call, grads: Sequence[Tensor | None]) -> None:
        g = grads[call.edge.output_nr]
        if g is not None:
            self._sites[call.module].add_grads(g.detach(), self._n)

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _extract_fisher(self, cxt: object) -> None:
        self._stop()  # the gradient of the loss may follow
        blocks = blocks_of(self._sites.values()).items()
        self.blocks = {name: b for name, b in blocks if isinstance(b, KroneckerBlocks)}
        for module, site in self._sites.items():
            block = self.blocks[site.weight or site.bias or ""]
            a = block.inputs.matrix * (self._n / block.count * self._scale)
            b = block.outputs.matrix * self._scale
            a, b = (a[0], b[0]) if len(b) == 1 else (a, b)
            setattr(module, self.config.fisher_attr, SymMatrix(kron_A=a, kron_B=b))


def fisher_maker(model: nn.Module, config: FisherConfig) -> Any:
    """A Fisher maker as ``asdl.fisher.get_fisher_maker`` makes it, for any module with a rule.

    Args:
        model: The network; evaluated in eval mode.
        config: asdl's configuration, with Kronecker shapes only. The modules that it says to ignore
            are not ignored: freeze their parameters.

    Raises:
        UncoveredParameterError: If trainable parameters have no rule.
        ValueError: For other shapes of the Fisher information, or outputs that depend on the batch.

    Example:
        >>> import torch
        >>> from asdl.fisher import FisherConfig
        >>> from curvature.adapters import asdl as adapter
        >>> net, x = torch.nn.Linear(3, 2), torch.randn(8, 3)
        >>> config = FisherConfig("fisher_exact", ["kron"], "cross_entropy", data_size=1)
        >>> maker = adapter.fisher_maker(net, config)
        >>> _ = maker.setup_model_call(net, x)
        >>> _ = maker.forward_and_backward()
        >>> maker.blocks["weight"].to_dense().shape
        torch.Size([6, 6])
    """
    if config.fisher_shapes not in (SHAPE_KRON, [SHAPE_KRON]):
        raise ValueError(
            f"fisher_shapes is {config.fisher_shapes}; only [{SHAPE_KRON!r}] is supported"
        )
    check_separable(model)
    kind: type = type(get_fisher_maker(model, config))
    make: Callable[..., Any] = type(f"Rule{kind.__name__}", (_RuleFisher, kind), {})
    return make(model, config)
