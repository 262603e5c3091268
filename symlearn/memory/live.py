"""Bytes of tensors in use: a mode that sees every tensor that is made, and notes when it goes."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OTHER = "activations"
"""Kind of the tensors that nothing else names: activations, their gradients, and temporaries."""
EIGENVECTORS = "eigenvectors"
_BY_OPERATION = {"_linalg_eigh": EIGENVECTORS, "linalg_eigh": EIGENVECTORS}


@dataclass(frozen=True)
class Peak:
    """The moment at which most was in use.

    Attributes:
        total: Bytes in use.
        kinds: The same by kind of tensor.
    """

    total: int
    kinds: Mapping[str, int]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still referred to.

    What was made before is not counted, nor is what an operation needs for itself and gives back.
    Tensors on the meta device count as if they had numbers.

    Args:
        extra: What an operation uses besides its outputs while it runs, in bytes: maps its name,
            its arguments and the bytes of its outputs; nothing by default.

    Attributes:
        live: Bytes in use now.
        peak: Most bytes in use at a time.
    """

    def __init__(self, extra: Callable[[str, tuple[Any, ...], int], int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._extra, self._counting = extra, True
        self._storages: dict[int, tuple[weakref.ref[Any], int]] = {}  # address: (alive, number)
        self._changes: list[tuple[int, int]] = []  # (number of the storage, its bytes or less them)
        self._kinds: dict[int, str] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count the memory of its outputs."""
        out = func(*args, **(kwargs or {}))
        if not self._counting:
            return out
        fresh = [t for t in _tensors(out) if t.untyped_storage()._cdata not in self._storages]
        if fresh:
            given = {t.untyped_storage()._cdata for t in tree_leaves(args) if _is_tensor(t)}
            name = func.overloadpacket.__name__
            made = [t for t in fresh if t.untyped_storage()._cdata not in given]
            for tensor in made:
                self._count(tensor, name)
            if made and self._extra is not None:
                more = self._extra(name, args, sum(t.untyped_storage().nbytes() for t in made))
                self._change(-1, more)
                self._change(-1, -more)
        return out

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is made inside is not counted."""
        self._counting = False
        try:
            yield
        finally:
            self._counting = True

    def label(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """Say what tensors are, for `phase`; those made outside are left out."""
        for tensor in tensors:
            known = self._storages.get(tensor.untyped_storage()._cdata)
            if known is not None:
                self._kinds[known[1]] = kind

    @contextmanager
    def phase(self, into: Callable[[Peak], object]) -> Iterator[None]:
        """Find the peak inside; what is there at the start counts.

        Args:
            into: Called with the peak at the end, when `label` has been told what is what.
        """
        start = len(self._changes)
        yield
        into(self._peak(start))

    def kinds(self) -> dict[str, int]:
        """Bytes in use now, by kind."""
        return self._sums(len(self._changes))

    def _sums(self, at: int) -> dict[str, int]:
        """Bytes by kind after so many changes."""
        kinds: Counter[str] = Counter()
        for number, size in self._changes[:at]:
            kinds[self._kinds.get(number, OTHER)] += size
        return {kind: size for kind, size in kinds.items() if size}

    def _peak(self, start: int) -> Peak:
        total = sum(size for _, size in self._changes[:start])
        most, at = total, start
        for i, (_, size) in enumerate(self._changes[start:], start + 1):
            total += size
            if total > most:
                most, at = total, i
        return Peak(most, self._sums(at))

    def _count(self, tensor: Tensor, operation: str) -> None:
        storage, number = tensor.untyped_storage(), len(self._changes)
        address, size = storage._cdata, storage.nbytes()
        if address in self._storages:  # two outputs of one operation
            return
        if operation in _BY_OPERATION:
            self._kinds[number] = _BY_OPERATION[operation]

        def gone(_: object) -> None:
            self._storages.pop(address, None)
            self._change(number, -size)

        self._storages[address] = (weakref.ref(storage, gone), number)
        self._change(number, size)

    def _change(self, number: int, size: int) -> None:
        self._changes.append((number, size))
        self.live += size
        self.peak = max(self.peak, self.live)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _tensors(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    return [t for t in tree_leaves(out) if isinstance(t, Tensor)] if out is not None else []
