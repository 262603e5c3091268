"""A collapsed network in one file without pickle: tensors (safetensors), and its structure as JSON.

The structure is the file's metadata, so that any reader of safetensors finds the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from symlearn import architecture
from symlearn.atomic import as_path, whole_file
from symlearn.collapse.report import ATTRIBUTE

FORMAT = "symlearn.plain/1"


def save_plain(plain: nn.Module, path: str | Path) -> None:
    """Write a network of standard or collapsed modules; `load_plain` reads it.

    Args:
        plain: The network, such as `FitResult.collapse` returns.
        path: The file; an existing one is replaced as a whole.

    Raises:
        ValueError: If the network holds a module that cannot be rebuilt from its name: use
            ``plain.state_dict()``, or `torch.save`, then.
    """
    description = architecture.describe(plain)
    if description is None:
        raise ValueError(
            "the network holds modules that cannot be rebuilt from their names; save "
            "plain.state_dict() or use torch.save, which pickles"
        )
    facts = {
        "format": FORMAT,
        "architecture": json.dumps(description),
        "collapse": json.dumps(getattr(plain, ATTRIBUTE, None)),
    }
    # clone: safetensors refuses tensors that share memory
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in plain.state_dict().items()}
    path = as_path(path, "path")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        save_file(tensors, draft, metadata=facts)


def load_plain(path: str | Path) -> nn.Module:
    """Read a network written by `save_plain`, in eval mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or foreign, or the network is over a group that is
            registered as another one.
        TypeError: If the path is none.
    """
    if not as_path(path, "path").is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("format") != FORMAT:
            raise ValueError(f"it is not in the format {FORMAT!r}")
        plain = architecture.build(json.loads(facts["architecture"]))
        plain.load_state_dict(tensors, assign=True)
        report = json.loads(facts["collapse"])
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or no plain network: {error}") from error
    if report is not None:
        vars(plain)[ATTRIBUTE] = report
    for parameter in plain.parameters():
        parameter.requires_grad_()
    return plain.eval()
