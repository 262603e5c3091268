"""File formats: idx (MNIST) and the pickles of CIFAR-10, read without running them."""

from __future__ import annotations

import gzip
import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]

_GZIP = b"\x1f\x8b"
_UINT8 = 8


def read_idx(path: str | Path) -> Tensor:
    """Read an idx file of bytes, compressed by gzip or not.

    The header is 0, 0, the type (8 is uint8), the number of dimensions, then one
    big-endian int32 per dimension.

    Args:
        path: The file.

    Returns:
        The values, uint8, of the shape that the header states.

    Raises:
        ValueError: If the file is foreign, truncated, too long or damaged.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == _GZIP:
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path}: gzip data truncated or damaged ({error}); delete the file "
                "and fetch it again"
            ) from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UINT8 or raw[3] == 0:
        raise ValueError(
            f"{path}: not an idx file of bytes: it starts with {raw[:4].hex(' ')!r}; "
            "accepted is '00 00 08' and the number of dimensions"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(
            f"{path}: truncated in its header: {len(raw)} bytes; {raw[3]} dimensions need {start}"
        )
    shape = [int(size) for size in np.frombuffer(raw, ">i4", count=raw[3], offset=4)]
    if min(shape) < 0 or len(raw) != start + math.prod(shape):
        state = "truncated" if len(raw) < start + math.prod(shape) else "foreign"
        raise ValueError(
            f"{path}: {state}: {len(raw) - start} bytes of data; the header states "
            f"{shape}, {math.prod(shape)} bytes"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())


def read_cifar_batch(path: str | Path) -> tuple[Bytes, list[int]]:
    """Read one batch file of CIFAR-10's Python version, which is a pickle.

    A pickle can call anything that it names. This one may name numpy's array and
    its type alone, and gets two inert stand-ins for them.

    Args:
        path: The file, such as `cifar-10-batches-py/data_batch_1`.

    Returns:
        Pixels, uint8 [N, 3072], channel by channel; and N labels.

    Raises:
        ValueError: If the file names anything else or is not such a batch.
    """
    try:
        with Path(path).open("rb") as file:
            batch = _BatchUnpickler(file, encoding="latin1").load()
        content = {_text(key): value for key, value in batch.items()}
        pixels, labels = content["data"].array, content["labels"]
        if pixels.shape != (len(labels), 3072) or not set(map(type, labels)) <= {int}:
            raise ValueError(f"{list(pixels.shape)} pixels, {len(labels)} labels")
    except OSError:
        raise
    # A damaged pickle raises nearly anything; the stand-ins keep it harmless.
    except Exception as error:
        raise ValueError(
            f"{path}: not a CIFAR-10 batch ({error or type(error).__name__}); accepted "
            "are the files of cifar-10-batches-py as published, a pickled dict with "
            "'data', uint8 [N, 3072], and 'labels'"
        ) from error
    return pixels, labels


class _PickledType:
    """Stands in for `numpy.dtype` while a pickle is read; only uint8 passes."""

    __slots__ = ()

    def __init__(self, name: str | bytes, *_: object) -> None:
        if _text(name) != "u1":
            raise pickle.UnpicklingError(f"array of {name!r}; accepted is uint8")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which say nothing of uint8."""


class _PickledArray:
    """Stands in for `numpy.ndarray`: keeps the bytes it is given as `array`."""

    __slots__ = ("array",)
    array: Bytes

    def __init__(self, *_: object) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _PickledType):
            raise pickle.UnpicklingError("array without a type")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        flat = np.frombuffer(raw, np.uint8)
        self.array = flat.reshape(shape, order="F") if fortran else flat.reshape(shape)


_STAND_INS = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
}


class _BatchUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in a CIFAR-10 batch and no other."""

    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for a name, or refuse the name."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is refused: it could run code"
            )
        return _STAND_INS[module, name]


def _text(key: str | bytes) -> str:
    """Return a key of either Python's pickles as text."""
    return key.decode("latin1") if isinstance(key, bytes) else key
