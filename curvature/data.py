"""Data in any of the accepted forms, turned into checked batches once, at the edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from curvature.checking import check_count, check_module, check_real

Pair: TypeAlias = tuple[Tensor, Tensor]
Data: TypeAlias = "tuple[Any, Any] | Dataset[Any] | Iterable[Any]"
"""Labelled data: ``(X, y)``, a Dataset, a DataLoader or an iterable of pairs."""


def _tensor(part: object, what: str) -> Tensor:
    if isinstance(part, np.ndarray):
        # torch would share the memory of an array it may not write to, and warn
        part = np.require(part, requirements=["C", "W"])
    try:
        tensor = torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(part).__name__
        raise ValueError(f"{what} ({kind}) cannot be read as a tensor: {error}") from error
    if tensor.is_meta:
        raise ValueError(f"{what} are on the meta device, which holds no values")
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = str(tensor.dtype if tensor.is_quantized else tensor.layout)
        raise ValueError(f"{what} are {kind}; give dense tensors (x.to_dense(), x.dequantize())")
    return tensor


def as_pair(data: object) -> Pair | None:
    """Return ``(X, y)`` as tensors when the data are two arrays, otherwise None.

    Raises:
        ValueError: If the two arrays differ in length or are empty.
    """
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        return None
    if not all(isinstance(part, (Tensor, np.ndarray)) for part in data):
        return None
    x, y = _tensor(data[0], "X"), _tensor(data[1], "y")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"X and y differ in length: shapes {list(x.shape)} and {list(y.shape)}")
    if len(x) == 0:
        raise ValueError("the data are empty: X and y hold no sample")
    return x, y


def _loader(data: Data, batch_size: int) -> Iterable[Any]:
    pair = as_pair(data)
    if pair is not None:
        return zip(pair[0].split(batch_size), pair[1].split(batch_size), strict=True)
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size)
    if isinstance(data, Iterable):
        return data
    raise TypeError(
        f"data of type {type(data).__name__} are not understood; give (X, y), a torch Dataset, "
        "a DataLoader, or an iterable of (inputs, targets) batches"
    )


def _put_together(loader: Iterable[Any]) -> Iterator[Any]:
    """A loader's batches; an error of the loader says which batch it was."""
    source, index = iter(loader), 0
    while True:
        try:
            batch = next(source)
        except StopIteration:
            return
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"batch {index} cannot be put together: {error}") from error
        yield batch
        index += 1


def check_batch(batch: object, index: int) -> Pair:
    """Return one batch as tensors.

    Raises:
        ValueError: If it is not a pair, is empty, differs in length or has non-finite inputs.
    """
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        kind = type(batch).__name__
        size = f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(
            f"batch {index} is a {kind}{size}; batches must be (inputs, targets) pairs"
        )
    x = _tensor(batch[0], f"the inputs of batch {index}")
    y = _tensor(batch[1], f"the targets of batch {index}")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"batch {index} has inputs {list(x.shape)} and targets {list(y.shape)}; both need the "
            "same, non-zero number of samples first"
        )
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ValueError(f"the inputs of batch {index} contain NaN or infinite values")
    return x, y


def batches(data: Data, model: nn.Module, batch_size: int = 256) -> Iterator[Pair]:
    """Yield checked batches on the model's device and in its floating dtype.

    Args:
        data: ``(X, y)`` of tensors or arrays, a Dataset, a DataLoader, or an iterable of pairs.
        model: The network the batches are for.
        batch_size: Samples per batch, where the data do not decide it.

    Raises:
        TypeError: If the data are of none of these kinds, or the model is not a module.
        ValueError: If there is no batch, a batch is malformed or cannot be put together (its index
            is named), or the batch size is not positive.
    """
    check_count("batch_size", batch_size)
    check_module(model)
    check_real(model)
    anchor = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    empty = True
    for index, batch in enumerate(_put_together(_loader(data, batch_size))):
        x, y = check_batch(batch, index)
        empty = False
        # autograd cannot save tensors that were made in inference mode
        x = x.clone() if x.is_inference() else x
        x = x.to(anchor) if x.is_floating_point() else x.to(anchor.device)
        yield x, y.to(anchor.device)
    if empty:
        raise ValueError("the data are empty: the loader yielded no batch")
