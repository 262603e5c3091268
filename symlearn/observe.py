"""What the layers of a network see when it runs on an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

import curvature
from symlearn.geometry import CONVS, Geometry, Sizes

CONV_TYPES = tuple(CONVS.values())


def why_left_alone(module: nn.Module) -> str | None:
    """Why a convolution is never relaxed, or None if it can be.

    Only torch's own classes are known to compute what their weights and options say.
    """
    if "forward" in vars(module):
        return "its forward method is replaced"
    if type(module) in CONV_TYPES:
        return None
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is parametrised"
    if isinstance(module, CONV_TYPES):
        (base,) = (kind.__name__ for kind in CONV_TYPES if isinstance(module, kind))
        return f"subclass {type(module).__name__} of nn.{base}"
    known = ", ".join(kind.__name__ for kind in CONV_TYPES)
    return f"{type(module).__name__} is none of {known}"


@dataclass(frozen=True)
class Site:
    """A module that ran on the example.

    Attributes:
        name: Its (first) qualified name.
        module: The module.
        calls: The different pairs of spatial input and output sizes it saw.
    """

    name: str
    module: nn.Module
    calls: list[tuple[Sizes, Sizes]] = field(default_factory=list)

    @property
    def in_size(self) -> Sizes:
        """Spatial size of the first input."""
        return self.calls[0][0]

    @property
    def out_size(self) -> Sizes:
        """Spatial size of the first output."""
        return self.calls[0][1]

    @property
    def geometry(self) -> Geometry:
        """Geometry of a convolution."""
        return Geometry.of(self.module, self.in_size, self.out_size)


Resize = Callable[[Site, Tensor, Any], Any]


def observe(
    model: nn.Module, example: Tensor, types: tuple[type[nn.Module], ...], resize: Resize
) -> list[Site]:
    """Run the example and note the sizes that modules of some types (exactly) see.

    Sites come in the order of their modules' first calls.

    Args:
        model: The network.
        example: A batch it accepts.
        types: Module types to watch.
        resize: Maps a site, its input and its output to the output used instead.
    """
    sites = {m: Site(n, m) for n, m in model.named_modules() if type(m) in types}
    ran: list[Site] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        out = resize(sites[module], x, out)
        shape = out.shape if isinstance(out, Tensor) else ()  # of a subclass, left alone anyway
        call = (tuple(x.shape[2:]), tuple(shape[2:]))
        if not sites[module].calls:
            ran.append(sites[module])
        if call not in sites[module].calls:
            sites[module].calls.append(call)
        return out

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in sites]
    _run(model, example, handles)
    return ran


def _run(model: nn.Module, example: Tensor, handles: Sequence[RemovableHandle]) -> None:
    """Run the example in eval mode, then remove the hooks; the global random state stays."""
    devices = [example.device] if example.is_cuda else []
    try:
        with torch.no_grad(), curvature.evaluating(model), torch.random.fork_rng(devices):
            model(example)
    finally:
        for handle in handles:
            handle.remove()


def observe_convs(model: nn.Module, example: Tensor) -> list[Site]:
    """The convolutions that run on the example, also those that are `why_left_alone`.

    Raises:
        ValueError: If the model does not accept the example.
    """

    def check(site: Site, x: Tensor, out: Tensor) -> Tensor:
        axes = len(site.module.kernel_size)  # type: ignore[arg-type]
        if x.ndim != axes + 2 and why_left_alone(site.module) is None:
            raise ValueError(f"{site.name} got {x.ndim} axes; give a batch, [N, C, *size]")
        return out

    types = {type(m) for m in model.modules() if isinstance(m, _ConvNd)}
    try:
        return observe(model, example, tuple(types), check)
    except Exception as error:
        raise ValueError(
            f"the model does not accept example_input of shape {list(example.shape)} "
            f"({example.dtype}): {error}"
        ) from error


def count_calls(
    model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor
) -> dict[str, int]:
    """How often modules are called when the example runs, by name."""
    counts = dict.fromkeys(modules, 0)

    def counter(name: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            counts[name] += 1

        return count

    _run(model, example, [m.register_forward_hook(counter(n)) for n, m in modules.items()])
    return counts
