"""Networks stored by ``torch.export``, with their modules, so that these can be watched."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram


def load_exported(path: str | Path) -> nn.Module:
    """Read a network from a ``torch.export`` file, as a module with the modules it had.

    Args:
        path: File that ``torch.export.save`` wrote, of a network from one batch of images to one
            tensor, for batches of any size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or the network takes something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if not zipfile.is_zipfile(path):  # torch would log a traceback
        raise ValueError(f"{path} is no torch.export file, which is a zip archive")
    try:
        program = torch.export.load(path)
    except Exception as error:  # damaged files raise what zip, JSON and pickle readers raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} cannot be read as a torch.export file: {reason}") from error
    _check(program, path)
    return torch.export.unflatten(program)


def _check(program: ExportedProgram, path: Path) -> None:
    wanted = program.graph_signature.user_inputs
    inputs = [n.meta["val"] for n in program.graph.nodes if n.name in wanted]
    shapes = [list(v.shape) for v in inputs if isinstance(v, torch.Tensor)]
    if len(wanted) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"{path} holds a network of inputs {shapes or list(wanted)}; an audit needs one batch "
            "of images [N, C, H, W]"
        )
    if isinstance(shapes[0][0], int):
        raise ValueError(
            f"{path} holds a network for batches of exactly {shapes[0][0]}; export it for any size:"
            " torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim('n')},))"
        )


def kind(module: nn.Module) -> tuple[str, str]:
    """Module and name of a module's class; of a stored network's module, those of the original."""
    cls = type(module)
    if cls.__module__ == "torch.export.unflatten":
        # the method is newer than the class
        stored = getattr(module, "type_name", lambda: None)()
        if stored:
            where, _, name = str(stored).rpartition(".")
            return where, name
    return cls.__module__, cls.__qualname__
