"""What the layers of a network see when it runs on an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from symlearn.geometry import CONVS, Geometry, Sizes

CONV_TYPES = tuple(CONVS.values())


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

    Args:
        model: The network.
        example: A batch it accepts.
        types: Module types to watch.
        resize: Maps a site, its input and its output to the output used instead.
    """
    sites = {m: Site(n, m) for n, m in model.named_modules() if type(m) in types}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        out = resize(sites[module], x, out)
        call = (tuple(x.shape[2:]), tuple(out.shape[2:]))
        if call not in sites[module].calls:
            sites[module].calls.append(call)
        return out

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in sites]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return [site for site in sites.values() if site.calls]


def observe_convs(model: nn.Module, example: Tensor) -> list[Site]:
    """The convolutions that run on the example.

    Raises:
        ValueError: If the model does not accept the example.
    """

    def check(site: Site, x: Tensor, out: Tensor) -> Tensor:
        axes = len(site.module.kernel_size)  # type: ignore[arg-type]
        if x.ndim != axes + 2:
            raise ValueError(f"{site.name} got {x.ndim} axes; give a batch, [N, C, *size]")
        return out

    try:
        return observe(model, example, CONV_TYPES, check)
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

    handles = [m.register_forward_hook(counter(n)) for n, m in modules.items()]
    try:
        with torch.no_grad(), curvature.evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return counts
