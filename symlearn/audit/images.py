"""Images and networks in the forms that an audit works on, checked once at the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from curvature import Data
from curvature.capture import run
from curvature.checking import check_count, check_positive

LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda y: y,
    "softmax": lambda y: y.softmax(1),
}
"""What is measured of a network's outputs: the outputs, or class probabilities."""


class NotFiniteError(ValueError):
    """A measurement came out as NaN or infinite."""


def check_finite(v: Tensor, what: str) -> Tensor:
    """Return a tensor whose numbers are all finite.

    Raises:
        NotFiniteError: If they are not.
    """
    if not bool(torch.isfinite(v).all()):
        raise NotFiniteError(f"{what} contains NaN or infinite values")
    return v


def as_images(x: Tensor | np.ndarray[Any, Any] | Data, model: nn.Module, limit: int) -> Tensor:
    """The first images of the data, [N, C, H, W], on the model's device and in its dtype.

    Args:
        x: Images, or ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs.
        model: The network.
        limit: Most images taken.

    Raises:
        TypeError: If the data are of none of these kinds.
        ValueError: If there are no images, they differ in size, or they are not finite
            floating-point [N, C, H, W].
    """
    check_count("the number of images", limit)
    if isinstance(x, (Tensor, np.ndarray)):
        if not len(x.shape) or not len(x):
            raise ValueError(f"got images of shape {list(x.shape)}; give [N, C, H, W] with N >= 1")
        x = (x[:limit], np.zeros(min(limit, len(x))))
    found: list[Tensor] = []
    for batch, _ in curvature.batches(x, model):
        found.append(batch[: limit - sum(map(len, found))])
        if sum(map(len, found)) >= limit:
            break
    shapes = sorted({tuple(batch.shape[1:]) for batch in found})
    if len(shapes) > 1:
        raise ValueError(
            f"the images have shapes {[list(shape) for shape in shapes]}; give images of one size"
        )
    images = torch.cat(found)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"an audit needs floating-point images [N, C, H, W], got {images.dtype} "
            f"{list(images.shape)}"
        )
    return images.detach()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for parameters; both are restored at the end."""
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    with curvature.evaluating(model):
        try:
            for p, _ in wanted:
                p.requires_grad_(False)
            yield
        finally:
            for p, on in wanted:
                p.requires_grad_(on)


def outputs(model: Callable[[Tensor], Any], x: Tensor, link: str = "identity") -> Tensor:
    """The network's outputs [N, ...] through a link.

    Raises:
        TypeError: If the network does not return one floating-point tensor.
        ValueError: If that is not one row per image, or the link is unknown.
        NotFiniteError: If it is not finite.
    """
    if link not in LINKS:
        raise ValueError(f"unknown link {link!r}; choose one of {list(LINKS)}")
    y = model(x)
    if not isinstance(y, Tensor) or not y.is_floating_point():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"the network returned {kind}; an audit needs one floating-point tensor: wrap the "
            "network in a module that returns it"
        )
    if y.ndim < 2 or len(y) != len(x):
        raise ValueError(
            f"the network returned {list(y.shape)} for {len(x)} images; it must return one row "
            "per image"
        )
    return check_finite(LINKS[link](y), "the network's output")


def batch_size(model: nn.Module, x: Tensor, copies: int, memory_gb: float) -> int:
    """Images per batch so that the activations fit in memory.

    Args:
        model: The network.
        x: Images.
        copies: How many times each activation is held.
        memory_gb: Memory allowed, in units of 10^9 bytes.

    Raises:
        ValueError: If the memory is not positive.
    """
    check_positive("memory_gb", memory_gb)
    bytes_seen = 0

    def count(module: nn.Module, args: Any, out: Any) -> None:
        nonlocal bytes_seen
        if isinstance(out, Tensor) and not any(True for _ in module.children()):
            bytes_seen += out.numel() * out.element_size()

    handles = [m.register_forward_hook(count) for m in model.modules()]
    try:
        with torch.no_grad():
            run(model, x[:1])
    finally:
        for handle in handles:
            handle.remove()
    each = copies * (bytes_seen + x[0].numel() * x.element_size())
    return max(1, min(len(x), int(memory_gb * 1e9 / each)))
