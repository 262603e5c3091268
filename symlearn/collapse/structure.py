"""Which layers read which channels: a network's graph, traced by torch.fx, as channel spaces.

A *space* is a set of channels that can only be cut together: those that a layer writes, after
elementwise operations, norms and pools too; an addition joins the spaces of its terms. What cannot
be followed (the network's output, reshapes, concatenations, unknown modules) locks a space.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import curvature
from symlearn.collapse.modules import CircularConv, ConstantMap
from symlearn.collapse.surgery import PRODUCERS
from symlearn.observe import CONV_TYPES
from symlearn.subsample import CircularPool

_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# a constant map stays one, also at the border
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, CircularPool),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_FUNCTIONS = (F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid)
_METHODS = ("relu", "tanh", "sigmoid")
_POOL_FUNCTIONS = (F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.dropout)
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_LEAVES = (*PRODUCERS, CircularPool)


@dataclass(frozen=True)
class Reader:
    """A module that reads a space.

    Attributes:
        name: Its name.
        module: The module.
        values: The constants [C] that arrive at it, NaN for channels that are in use.
    """

    name: str
    module: nn.Module
    values: Tensor

    def absorbs(self) -> Tensor:
        """For which channels the constant can be dropped or folded into the bias, bool [C]."""
        module = self.module
        folds = isinstance(module, (nn.Linear, CircularConv, ConstantMap))
        if isinstance(module, CONV_TYPES):
            unpadded = module.padding in ("valid", (0,) * len(module.kernel_size))
            folds = unpadded or module.padding_mode != "zeros"
        return self.values.isfinite() if folds else self.values == 0


@dataclass
class Space:
    """Channels that are cut together.

    Attributes:
        producers: Names of the modules that write them.
        norms: Names of the batch normalisations that scale them.
        readers: The modules that read them.
        locked: Why they cannot be cut; "" if they can.
    """

    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    locked: str = ""

    def lock(self, reason: str) -> None:
        """Forbid cutting; the first reason is kept."""
        self.locked = self.locked or reason

    def join(self, other: Space) -> None:
        """Take in another space."""
        self.producers += other.producers
        self.norms += other.norms
        self.readers += other.readers
        self.lock(other.locked)


@dataclass(frozen=True)
class _Flow:
    """What a node of the graph carries.

    Attributes:
        space: Number of the space it was made for.
        values: The constants in it [C], NaN for channels in use.
        axes: Spatial axes; channels are on axis 1, each of several values where maps are flat.
    """

    space: int
    values: Tensor
    axes: int


def producers(net: nn.Module) -> dict[str, nn.Module]:
    """The modules whose output channels can be cut, by name."""
    found = {n: m for n, m in net.named_modules() if type(m) in PRODUCERS}
    inner = {f"{n}.conv" for n, m in found.items() if isinstance(m, CircularConv)}
    return {name: module for name, module in found.items() if name not in inner}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Look into everything but modules of torch and those that channels are cut from."""
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace(net: nn.Module, constants: Mapping[str, Tensor]) -> list[Space]:
    """The channel spaces of a network.

    Args:
        net: The network.
        constants: For each producer the constants that its channels are taken for, [C'], NaN for
            channels in use.

    Raises:
        ValueError: If the network's forward cannot be traced.
    """
    with curvature.evaluating(net):
        try:
            graph = _Tracer().trace(net)
        except Exception as error:
            raise ValueError(
                f"channels cannot be pruned: torch.fx cannot trace the network ({error}); collapse "
                "it with prune_channels=False"
            ) from error
        return _Walk(net, constants).run(graph)


class _Walk:
    """One pass over the graph, in the order of computation."""

    def __init__(self, net: nn.Module, constants: Mapping[str, Tensor]) -> None:
        self.net, self.constants = net, constants
        self.flows: dict[fx.Node, _Flow | None] = {}
        self.spaces: list[Space] = []
        self.calls: dict[str, list[int]] = {}

    def run(self, graph: fx.Graph) -> list[Space]:
        """Visit all nodes; returns the distinct spaces."""
        for node in graph.nodes:
            flow = self._visit(node)
            if flow is None:
                what = "the network's output" if node.op == "output" else f"{node} ({node.op})"
                if node.op == "call_module":
                    what = f"{node.target} ({type(self._module(node)).__name__})"
                for given in node.all_input_nodes:
                    self._lock(self.flows[given], f"{what} reads them")
            self.flows[node] = flow
        return list({id(space): space for space in self.spaces}.values())

    def _module(self, node: fx.Node) -> Any:
        return self.net.get_submodule(str(node.target))

    def _lock(self, flow: _Flow | None, reason: str) -> None:
        if flow is not None:
            self.spaces[flow.space].lock(reason)

    def _visit(self, node: fx.Node) -> _Flow | None:
        given = node.args[0] if node.args else None
        flow = self.flows.get(given) if isinstance(given, fx.Node) else None
        if node.op == "call_module":
            module = self._module(node)
            if type(module) in PRODUCERS:
                return self._layer(str(node.target), module, flow)
            return None if flow is None else self._through(str(node.target), module, flow)
        if node.op in ("call_function", "call_method") and flow is not None:
            return self._function(node, flow)
        return None

    def _layer(self, name: str, module: Any, flow: _Flow | None) -> _Flow:
        """A module that reads one space and writes a new one."""
        space = Space(producers=[name])
        self.spaces.append(space)
        touched = self.calls.setdefault(name, [])
        touched.append(len(self.spaces) - 1)
        grouped = getattr(getattr(module, "conv", module), "groups", 1) > 1
        if grouped or getattr(module, "channels_per_field", (1, 1)) != (1, 1):
            space.lock(f"{name} has channel groups")
            self._lock(flow, f"{name} has channel groups")
        if isinstance(module, nn.Linear) and (flow is None or flow.axes):
            space.lock(f"{name} may act on another axis than the channels")
            self._lock(flow, f"{name} acts on another axis than the channels")
        elif flow is not None:
            touched.append(flow.space)
            self.spaces[flow.space].readers.append(Reader(name, module, flow.values))
        if len(touched) > 2:
            for number in touched:
                self.spaces[number].lock(f"{name} runs more than once")
        return _Flow(len(self.spaces) - 1, self.constants[name], _axes(module))

    def _through(self, name: str, module: Any, flow: _Flow) -> _Flow | None:
        """A module that leaves channels where they are, or None."""
        values, axes = flow.values, flow.axes
        if type(module) in _POINTWISE:
            values = module(values.clone())
        elif type(module) in _NORMS and module.num_features == len(values):
            if module.running_mean is None:
                return None
            values = copy.deepcopy(module).double().cpu()(values.reshape(1, -1, *[1] * axes))
            values = values.flatten()
            self.spaces[flow.space].norms.append(name)
        elif type(module) in _AVG_POOLS:
            plain = not any(_numbers(module.padding)) or not module.count_include_pad
            values = values if plain else torch.where(values == 0, values, torch.nan)
        elif type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            axes = 0
        elif type(module) not in _POOLS:
            return None
        return _Flow(flow.space, values, axes)

    def _function(self, node: fx.Node, flow: _Flow) -> _Flow | None:
        """A function or method that leaves channels where they are, or None."""
        target: Any = node.target
        if target in _SUMS:
            return self._sum(node, flow)
        if len(node.all_input_nodes) > 1:
            return None
        rest: tuple[Any, ...] = node.args[1:]
        options: dict[str, Any] = dict(node.kwargs)
        if target in _POOL_FUNCTIONS:
            return flow
        if target in _FUNCTIONS:
            return _Flow(flow.space, target(flow.values.clone(), *rest, **options), flow.axes)
        if target in _METHODS:
            return _Flow(flow.space, getattr(flow.values, target)(), flow.axes)
        if target in (torch.flatten, "flatten"):
            whole = (*rest, *options.values()) in ((1,), (1, -1))
            return _Flow(flow.space, flow.values, 0) if whole else None
        if target in (torch.mean, "mean"):
            return _mean(flow, *rest, **options)
        return None

    def _sum(self, node: fx.Node, flow: _Flow) -> _Flow | None:
        """An addition of two maps, whose channels can only go together."""
        other = self.flows.get(node.args[1]) if isinstance(node.args[1], fx.Node) else None
        if other is None or node.kwargs or len(other.values) != len(flow.values):
            return None
        mine, theirs = self.spaces[flow.space], self.spaces[other.space]
        if mine is not theirs:
            mine.join(theirs)
            self.spaces = [mine if space is theirs else space for space in self.spaces]
        return _Flow(flow.space, flow.values + other.values, min(flow.axes, other.axes))


def _mean(flow: _Flow, dim: Any = None, keepdim: bool = False) -> _Flow | None:
    """A mean over spatial axes."""
    over = () if dim is None else _numbers(dim)
    if not over or not all(d >= 2 or -flow.axes <= d < 0 for d in over):
        return None
    return _Flow(flow.space, flow.values, flow.axes - (0 if keepdim else len(over)))


def _axes(module: Any) -> int:
    """Spatial axes of a module's output."""
    if isinstance(module, nn.Linear):
        return 0
    if isinstance(module, CircularConv):
        return len(module.geometry.out_size)
    return len(module.kernel_size) if isinstance(module, CONV_TYPES) else len(module.out_shape) - 1


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)
