"""Nested dicts and lists of plain values and tensors, taken apart into JSON and named tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_MARK = "$tensor"
_FACTS = "facts"


def split(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the tree with tensors replaced by their names, and the tensors, copied to the CPU.

    Raises:
        TypeError: For a value that is neither plain nor a tensor; the message says where it is.
    """
    tensors: dict[str, Tensor] = {}
    return _split(tree, "", tensors), tensors


def join(facts: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `split`.

    Raises:
        KeyError: If a tensor is missing.
    """
    if isinstance(facts, dict):
        if set(facts) == {_MARK}:
            return tensors[facts[_MARK]]
        return {key: join(value, tensors) for key, value in facts.items()}
    return [join(value, tensors) for value in facts] if isinstance(facts, list) else facts


def pack(tree: Any) -> dict[str, Tensor]:
    """A tree as named tensors, one of which holds the plain values as JSON (UTF-8)."""
    facts, tensors = split(tree)
    # not as metadata: the header of a safetensors file has a largest size
    tensors[_FACTS] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `pack`.

    Raises:
        KeyError: If a tensor is missing.
    """
    return join(json.loads(tensors[_FACTS].numpy().tobytes()), tensors)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # clone: safetensors refuses tensors that share memory
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_MARK: name}
    if isinstance(value, Mapping):
        return {key: _split(part, _below(name, key), tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_split(part, _below(name, i), tensors) for i, part in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name} is a {type(value).__name__}; only numbers, text and tensors can be checkpointed"
    )


def _below(name: str, key: object) -> str:
    """The name of a part, unlike that of any other (escaped as in a JSON pointer)."""
    part = str(key).replace("~", "~0").replace("/", "~1")
    return f"{name}/{part}" if name else part
