"""BackPACK's Kronecker extensions for any module with a curvature rule, and any other module.

BackPACK sends a square root of the loss' Hessian from module to module and asks, for each module,
how it passes on. `KFLR` and `KFAC` here answer for every registered rule, and by automatic
differentiation for every module that BackPACK does not know, whatever is inside it. They also
replace what BackPACK says about modules with a rule: its convolutions pad with zeros whatever
``padding_mode`` says, and their input factor is too large by the number of output sites.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from curvature.adapters.extra import missing
from curvature.blocks import DenseBlock, KroneckerBlocks
from curvature.capture import Call, watch
from curvature.coverage import coverage
from curvature.rules import rule_for
from curvature.sites import blocks_of, sites_of

try:
    import backpack
    from backpack import extensions
    from backpack.extensions.module_extension import ModuleExtension
    from backpack.utils.module_classification import is_no_op
except ModuleNotFoundError as error:
    raise missing("backpack-for-pytorch") from error


class Whole(nn.Module):
    """A network as one operation: nothing in it runs on its own.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The network's output."""
        out: Tensor = self.model(x)
        return out


def extend(model: nn.Module, whole: bool = False) -> nn.Module:
    """Make a network ready for BackPACK, as ``backpack.extend`` does.

    Containers that BackPACK sees through (``nn.Sequential``) stay so. Every other module is one
    operation to BackPACK, together with what is inside it.

    Args:
        model: The network, or a loss; it is changed.
        whole: Treat the network as a single operation. For networks whose modules share more than
            what they hand on, such as the sampling grids of circular relaxed networks.

    Returns:
        The module to call: the network itself, or a `Whole` around it.
    """
    module = Whole(model) if whole else model
    for operation in _operations(module):
        for inner in operation.children():
            for hidden in inner.modules():
                # BackPACK passes over what it takes to be extended already
                hidden._backpack_extend = True  # type: ignore[assignment]
    backpack.extend(module)
    return module


def _operations(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that are operations, not containers."""
    if is_no_op(module):
        for child in module.children():
            yield from _operations(child)
    else:
        yield module


class _Operation(ModuleExtension):  # type: ignore[misc]
    """What an extension does at one operation: factors inside it, and a Jacobian product.

    The operation is run again on its input, so that autograd can send the square root S [V, N,
    *output] through it, to the outputs of the modules with a rule and to the input.
    """

    def __call__(
        self, extension: Any, module: Any, g_inp: tuple[Any, ...], g_out: tuple[Any, ...]
    ) -> None:
        """Store the factors of the parameters inside, and send S on; BackPACK calls this."""
        saved, x = extension.saved_quantities, module.input0
        root = saved.retrieve_quantity(module.output.data_ptr(), True)
        if root is None:
            raise ValueError(
                f"nothing was sent back to a {type(module).__name__}: what follows it must be "
                "modules extended with BackPACK, the loss included"
            )
        # the extension is not to run again, on what is only this computation
        with backpack.disable(), backpack.backpack():
            blocks, passed = _through(module, x.detach(), root)
        for name, block in blocks.items():
            setattr(module.get_parameter(name), extension.savefield, block)
        if x.requires_grad:
            add = extension.accumulate_backpropagated_quantities
            saved.save_quantity(x.data_ptr(), passed, add)


def _through(
    module: Any, x: Tensor, root: Tensor
) -> tuple[dict[str, KroneckerBlocks | DenseBlock], Tensor]:
    """Value objects of the parameters inside an operation, and its Jacobian products [V, N, *in].

    Raises:
        UncoveredParameterError: If trainable parameters inside have no rule.
        ValueError: If the operation is not a function of its input.
    """
    sites = sites_of(module, set(coverage(module).names("kronecker")), "expand")
    calls: list[Call] = []
    x.requires_grad_(x.is_floating_point())
    with watch(list(sites), calls.append):
        out = _again(module, x)
    for call in calls:
        sites[call.module].add_call(call, len(x))
    ends: Any = [call.edge for call in calls] + [x] * x.requires_grad
    passed = []
    for v in root:
        grads = torch.autograd.grad(out, ends, v, retain_graph=True, allow_unused=True)
        for call, g in zip(calls, grads, strict=False):
            if g is not None:
                sites[call.module].add_grads(g, len(x))
        passed.append(torch.zeros_like(x) if grads[-1] is None else grads[-1])
    return blocks_of(sites.values()), torch.stack(passed)


def _again(module: Any, x: Tensor) -> Tensor:
    """The output of an operation that is called on its own."""
    kind = type(module).__name__
    try:
        out: Tensor = module(x)
    except RuntimeError as failure:
        raise ValueError(
            f"a {kind} cannot be called on its own: {failure}; use extend(model, whole=True)"
        ) from failure
    error = (out - module.output).abs().max()
    if not bool(error <= torch.finfo(out.dtype).eps ** 0.5 * out.abs().max()):
        raise ValueError(
            f"a {kind} gave another output when it was called again; its curvature needs eval "
            "mode, and extend(model, whole=True) if it depends on more than its input"
        )
    return out


class _Rules:
    """Mixin of a BackPACK extension: registers `_Operation` for the operations of a network.

    Args:
        model: What `extend` returned.
        options: Options of the BackPACK extension.

    Raises:
        UncoveredParameterError: If trainable parameters have no rule.
    """

    savefield: str
    set_module_extension: Callable[..., None]

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.model = model.model if isinstance(model, Whole) else model
        self._wanted = coverage(self.model).names("kronecker")
        for module in _operations(model):
            ruled = rule_for(module) is not None
            # where BackPACK has an extension of its own, and no rule says otherwise, it stays
            with contextlib.suppress(ValueError):
                self.set_module_extension(type(module), _Operation(), overwrite=ruled)

    def accumulate_backpropagated_quantities(self, existing: Tensor, other: Tensor) -> Tensor:
        """What reaches a tensor from two branches; BackPACK's KFLR has no such rule."""
        return existing + other

    def collect(self) -> dict[str, KroneckerBlocks]:
        """Take the results off the parameters: name to value object.

        Results that stayed would be read again after a backward pass that stored none.

        Raises:
            ValueError: If trainable parameters have no result; all of them are named.
        """
        found = {
            name: vars(self.model.get_parameter(name)).pop(self.savefield, None)
            for name in self._wanted
        }
        lacking = [name for name, block in found.items() if block is None]
        if lacking:
            raise ValueError(
                f"the backward pass left no curvature at {lacking}: extend the network with this "
                "module's extend(), call it once before every backward pass, and stay inside "
                "`with backpack(...)`. BackPACK's hooks may be gone: a predictive of laplace-torch "
                "with a BackPACK backend removes them from all networks"
            )
        return found


class KFLR(_Rules, extensions.KFLR):  # type: ignore[misc]
    """BackPACK's KFLR (the exact square root of the loss' Hessian) for networks with rules.

    Stores value objects (`curvature.KroneckerBlocks`) of the curvature of the loss as it is given:
    use ``reduction="sum"`` for that of the log likelihood; ``MSELoss`` counts twice.

    Example:
        >>> import torch
        >>> from backpack import backpack
        >>> from curvature.adapters import backpack as adapter
        >>> net = adapter.extend(torch.nn.Sequential(torch.nn.Linear(3, 2)))
        >>> loss = adapter.extend(torch.nn.CrossEntropyLoss(reduction="sum"))
        >>> kflr = adapter.KFLR(net)
        >>> with backpack(kflr):
        ...     loss(net(torch.randn(8, 3)), torch.randint(2, (8,))).backward()
        >>> sorted(kflr.collect())
        ['0.bias', '0.weight']
    """


class KFAC(_Rules, extensions.KFAC):  # type: ignore[misc]
    """BackPACK's KFAC (sampled labels, ``mc_samples`` of them); see `KFLR`."""
