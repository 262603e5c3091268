"""Watching a network's modules: what each call takes and returns, and how that transforms.

A first forward pass (`survey`) finds a layout for every tensor that enters or leaves a module, and
so which modules can be measured. A second one (`Ledger`) marks the places in the autograd graph
where a backward pass with a vector z brings ``z . C`` of every module:

    z . C = sum_inputs g_in . A v_in - sum_outputs g_out . A v_out

with g_out the gradient of z . f at an output of the call, g_in the part of the gradient at an input
that comes through the call, and A the generator on each tensor. For a leaf this is
``z^T df_{N:i+1} L f_i`` of Eq. 4.6 (Gruver et al. 2023). From a module that contains others, what
theirs add up to is subtracted: the rest are the operations of its own forward.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from symlearn.audit.exported import kind
from symlearn.audit.layouts import VECTOR, Layout, Layouts
from symlearn.audit.lie import acting_on
from symlearn.audit.transforms import Transformation
from symlearn.paths import Path
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import CircularPool

_TAKES_MAPS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.PixelShuffle,
    nn.Upsample,
    RelaxedLayer,
    CircularPool,
)
_STORED_MAPS = {(c.__module__, c.__qualname__) for c in _TAKES_MAPS}
_WITHOUT_TENSORS = (type(None), bool, int, float, str, torch.Size, torch.dtype, torch.device)


class _OpaqueError(TypeError):
    """A call takes or returns an object that may hide tensors."""


def _takes_maps(module: nn.Module) -> bool:
    return isinstance(module, _TAKES_MAPS) or kind(module) in _STORED_MAPS


def replaced(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples, lists and dicts with each floating-point tensor changed.

    Raises:
        _OpaqueError: If there is anything else in them that may hold tensors.
    """
    if isinstance(tree, Tensor):
        return change(tree) if tree.is_floating_point() else tree
    if isinstance(tree, _WITHOUT_TENSORS):
        return tree
    if isinstance(tree, tuple):
        parts = [replaced(part, change) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, list):
        return [replaced(part, change) for part in tree]
    if isinstance(tree, dict):
        return {key: replaced(part, change) for key, part in tree.items()}
    raise _OpaqueError(type(tree).__name__)


def _shapes(tree: Any) -> list[torch.Size]:
    found: list[torch.Size] = []

    def note(v: Tensor) -> Tensor:
        found.append(v.shape)
        return v

    replaced(tree, note)
    return found


@dataclass
class Surveyed:
    """What the first pass found about a module.

    Attributes:
        name: Its name, "" for the whole network.
        module: The module.
        calls: How often it is called in a forward pass.
        sides: Layouts of the inputs and outputs of each call; meaningless if there is a reason.
        reason: Why it is not measured on its own, or None.
        parent: The module measured instead, or whose operations the module belongs to.
        holds: Whether measured modules are called within it.
    """

    name: str
    module: nn.Module
    calls: int = 0
    reason: str | None = None
    parent: str = ""
    holds: bool = False
    shapes: list[tuple[list[torch.Size], list[torch.Size]]] = field(default_factory=list)
    sides: list[tuple[list[Layout], list[Layout]]] = field(default_factory=list)

    @property
    def transforms_as(self) -> str:
        """Layouts of the first call's inputs and outputs, in words."""
        if not self.sides:
            return ""
        return " -> ".join("; ".join(map(str, side)) for side in self.sides[0])


@contextmanager
def hooked(
    modules: Sequence[nn.Module],
    before: Callable[[nn.Module, Any, Any], Any],
    after: Callable[[nn.Module, Any, Any, Any], Any],
) -> Iterator[None]:
    """Call functions before and after each call of the modules, with their keywords."""
    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True, prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def survey(model: nn.Module, x: Tensor) -> tuple[list[Surveyed], Layouts]:
    """List all modules: what they take and return, and which can be measured.

    Args:
        model: The network.
        x: Images [N, C, H, W].
    """
    found = {m: Surveyed(name, m) for name, m in model.named_modules()}
    stack: list[Surveyed] = []
    order: list[tuple[Surveyed, list[Surveyed]]] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        entry = found[module]
        order.append((entry, list(stack)))
        stack.append(entry)

    def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        entry = stack.pop()
        entry.calls += 1
        try:
            entry.shapes.append((_shapes((args, kwargs)), _shapes(out)))
        except _OpaqueError as error:
            entry.reason = f"takes or returns a {error}"

    with torch.no_grad(), hooked(list(found), before, after):
        model(x)
    layouts = _layouts(x, list(found.values()))
    for entry in found.values():
        _judge(entry, layouts)
    for path in [m for m in found if isinstance(m, Path)]:
        for inner in list(path.modules())[1:]:
            found[inner].reason = found[inner].reason or "a part of a path, which is measured whole"
    found[model].reason = None  # it takes images, and how its outputs transform is given
    for entry, outside in order:
        measured = [o for o in outside if o.reason is None]
        entry.parent = measured[-1].name if measured else ""
        if entry.reason is None and measured:
            measured[-1].holds = True
    return list(found.values()), layouts


def _layouts(x: Tensor, entries: Sequence[Surveyed]) -> Layouts:
    maps, others = list[torch.Size](), list[torch.Size]()
    for entry in entries:
        for inputs, outs in entry.shapes:
            (maps if _takes_maps(entry.module) else others).extend(inputs + outs)
    return Layouts(x.shape, maps, others)


def _judge(entry: Surveyed, layouts: Layouts) -> None:
    """Find the reason why a module cannot be measured, if there is one."""
    if not entry.calls:
        entry.reason = "not called: its forward is not used in this pass"
    takes_maps = _takes_maps(entry.module)
    for inputs, outs in entry.shapes:
        if entry.reason is None and not (inputs and outs):
            entry.reason = "takes or returns no floating-point tensor"
        found = [[layouts(shape, takes_maps) for shape in side] for side in (inputs, outs)]
        unknown = [
            list(shape)
            for side, known in zip((inputs, outs), found, strict=True)
            for shape, layout in zip(side, known, strict=True)
            if layout is None
        ]
        if unknown and entry.reason is None:
            entry.reason = f"no known layout for its tensors {unknown}"
        inside, outside = ([layout or VECTOR for layout in side] for side in found)
        entry.sides.append((inside, outside))


_Derived = tuple["weakref.ref[Tensor] | None", int, "list[Tensor | None]"]


class Ledger:
    """One forward pass with a place for ``z . C`` of each module, filled by a backward pass.

    Args:
        model: The network, frozen.
        surveyed: What `survey` found.
        layouts: The layouts.
        transforms: The transformations.
        output: How they act on the network's outputs.

    Attributes:
        account: ``z . C`` [T, R, N] of transformation, module and image since it was last zeroed.
        reached: Whether gradients pass each module, [R].
    """

    def __init__(
        self,
        model: nn.Module,
        surveyed: Sequence[Surveyed],
        layouts: Layouts,
        transforms: Sequence[Transformation],
        output: str,
    ) -> None:
        self.model, self.layouts, self.transforms = model, layouts, tuple(transforms)
        self.output = output
        self.rows = {entry.module: i for i, entry in enumerate(surveyed)}
        self.watched = [e.module for e in surveyed if e.reason is None]
        self._stack: list[int] = []
        self._images: list[Tensor] = []
        self._handles: list[Any] = []
        self._known: dict[tuple[int, Layout], _Derived] = {}
        self.account = torch.zeros(0)
        self.reached = [False] * len(surveyed)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on images [N, C, H, W]; returns the graph's input and the output."""
        self.layouts.n = len(x)
        size = (len(self.transforms), len(self.rows), len(x))
        self.account = torch.zeros(size, dtype=torch.float64, device=x.device)
        x = x.detach().requires_grad_()
        self._images = [x]
        with torch.enable_grad(), hooked(self.watched, self._before, self._after):
            return x, self.model(x)

    def close(self) -> None:
        """Remove everything from the graph."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._images.clear()
        self._known.clear()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        row, parent = self.rows[module], self._stack[-1] if self._stack else None
        takes_maps = _takes_maps(module)

        def read(v: Tensor) -> Tensor:
            if not v.requires_grad:
                return v
            # a copy, so that the gradient through this call is apart from that through others,
            # and the value is kept if the call overwrites its input
            copied = v.clone()
            is_image = any(v is image for image in self._images)
            if is_image:
                self._images.append(copied)
            layout = VECTOR if is_image else self._layout(v, takes_maps)
            derived = self._derived(v, layout, is_image)
            self._remember(copied, layout, derived)
            self._enter(copied, derived, row, parent, 1.0)
            return copied

        changed = replaced((args, kwargs), read)
        self._stack.append(row)
        return changed

    def _after(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        row = self._stack.pop()
        parent = self._stack[-1] if self._stack else None
        takes_maps = _takes_maps(module)

        def read(v: Tensor) -> Tensor:
            if not v.requires_grad:
                return v
            # an operation in place on a view would rewrite the history of its base
            v = v.clone() if v._base is not None or v.is_leaf else v
            if module is self.model:
                derived: list[Tensor | None] = [
                    acting_on(v, t, self.output).derive(v.detach(), t.generator)
                    for t in self.transforms
                ]
            else:
                derived = self._derived(v, self._layout(v, takes_maps), False)
            self._enter(v, derived, row, parent, -1.0)
            return v

        return replaced(out, read)

    def _layout(self, v: Tensor, takes_maps: bool) -> Layout:
        return self.layouts(v.shape, takes_maps) or VECTOR

    def _derived(self, v: Tensor, layout: Layout, is_image: bool) -> list[Tensor | None]:
        """The generators on a tensor, None for zero: on maps spatial ones, on the image all."""
        seen, version, derived = self._known.get((id(v), layout), (None, -1, []))
        if seen is not None and seen() is v and version == v._version:
            return derived
        w = v.detach()
        derived = [t.generator(w) if is_image else None for t in self.transforms]
        if layout.grids and not is_image:
            derived = [
                layout.derive(w, t.generator) if t.spatial else None for t in self.transforms
            ]
        self._remember(v, layout, derived)
        return derived

    def _remember(self, v: Tensor, layout: Layout, derived: list[Tensor | None]) -> None:
        """Keep the generators on a tensor for the next module that meets it."""
        self._known[id(v), layout] = (weakref.ref(v), v._version, derived)

    def _enter(
        self,
        v: Tensor,
        derived: Sequence[Tensor | None],
        row: int,
        parent: int | None,
        sign: float,
    ) -> None:
        """Book ``g . A v`` to a module, and take it from the module around it."""
        edge = get_gradient_edge(v)

        def book(grads: Sequence[Tensor | None]) -> None:
            g = grads[edge.output_nr]
            if g is None:
                return
            self.reached[row] = True
            for t, d in enumerate(derived):
                if d is None:
                    continue
                # sums pairwise, so that single precision is enough, and makes no product of maps
                amount = sign * torch.linalg.vecdot(g.flatten(1), d.flatten(1)).double()
                self.account[t, row] += amount
                if parent is not None:
                    self.account[t, parent] -= amount

        self._handles.append(edge.node.register_prehook(book))
