"""Running code on tensors without numbers: what it would allocate, without allocating it.

Torch's fake tensors have a shape, a type and a device, and no numbers. Most code runs on them
unchanged; what it does not is where a number is asked for, or where numbers decide how large a
result is. `numberless` answers with ones, and lets masks select
everything.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_FEW = 128  # a search among so few takes time for each that is selected, and hardly memory


@contextmanager
def numberless() -> Iterator[FakeTensorMode]:
    """Tensors that are made inside have no numbers, and take no memory."""
    fakes: Any = FakeTensorMode(allow_non_fake_inputs=True)
    answers: Any = _Answers()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), fakes as mode, answers:
        # caches look at addresses; of fake tensors torch may refuse them, which caches understand
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        yield mode


def without_numbers(mode: FakeTensorMode, model: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and buffers have no numbers."""
    tensors: dict[int, Any] = {id(t): mode.from_tensor(t.detach()) for t in model.buffers()}
    for p in model.parameters():
        tensors[id(p)] = nn.Parameter(mode.from_tensor(p.detach()), p.requires_grad)
    return copy.deepcopy(model, tensors)


class _Answers(TorchDispatchMode):
    """Answers operations that fake tensors refuse, for want of numbers."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, or answer in its place."""
        kwargs = kwargs or {}
        answer = _ANSWERS.get(func.overloadpacket.__name__)
        if answer is not None:
            return answer(func, args, kwargs)
        if kwargs.get("generator") is not None:  # fake tensors take none, and need none
            kwargs = {**kwargs, "generator": None}
        return func(*args, **kwargs)


def _number(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dtype = args[0].dtype
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


def _selected(mask: Tensor) -> int:
    return mask.numel() if mask.numel() > _FEW else min(1, mask.numel())


def _all_indices(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    mask: Tensor = args[0]
    return mask.new_empty((_selected(mask), mask.ndim), dtype=torch.int64)


def _counts(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)
    labels: Tensor = args[0]
    return labels.new_empty(max(1, least), dtype=torch.int64)


def _indexed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    indices: list[Tensor | None] = []
    for index in args[1]:
        if index is not None and index.dtype == torch.bool:
            indices += [index.new_empty(_selected(index), dtype=torch.int64)] * index.ndim
        else:
            indices.append(index)
    taken: Tensor = func(args[0], indices, *args[2:], **kwargs)
    return taken


_ANSWERS: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    "_local_scalar_dense": _number,
    "nonzero": _all_indices,
    "bincount": _counts,
    "index": _indexed,
    "index_put": _indexed,
    "index_put_": _indexed,
    "equal": lambda func, args, kwargs: True,
}
