"""A folder of safetensors and JSON, written whole or not at all; nothing is pickled.

result.json           config, prior groups, history, structure of the network
report.json           the structure report
tensors.safetensors   weights, buffers and prior
network.json          how the command line made a network that has no structure in result.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from symlearn.atomic import as_folder, as_path, whole_folder

FORMAT = "symlearn.result/1"
FACTS, REPORT, TENSORS = "result.json", "report.json", "tensors.safetensors"
NETWORK = "network.json"
_FILES = (FACTS, REPORT, TENSORS)


def write(
    folder: str | Path, facts: dict[str, Any], report: str, tensors: dict[str, Tensor]
) -> None:
    """Write the three files; an earlier result in the folder is replaced as a whole.

    Raises:
        OSError: If it cannot be; see `free_folder`.
        TypeError: If the folder is no path.
    """
    folder = free_folder(folder)
    with whole_folder(folder) as draft:
        text = json.dumps({"format": FORMAT, **facts}, indent=1)
        (draft / FACTS).write_text(text, encoding="utf-8")
        (draft / REPORT).write_text(report, encoding="utf-8")
        save_file({k: v.contiguous() for k, v in tensors.items()}, draft / TENSORS)


def free_folder(given: str | Path) -> Path:
    """The path of a folder that a result may be written to.

    Raises:
        FileExistsError: If the folder exists and holds something other than a result.
        NotADirectoryError: If the folder is a file.
        TypeError: If the folder is no path.
    """
    folder = as_folder(given, "folder")
    if folder.exists() and any(p.name not in (*_FILES, NETWORK) for p in folder.iterdir()):
        raise FileExistsError(
            f"{folder} holds other files than a saved result; choose another folder"
        )
    return folder


def read(folder: str | Path, wanted: set[str]) -> tuple[dict[str, Any], Path, dict[str, Tensor]]:
    """Read what `write` wrote: facts, the report's path, tensors.

    Args:
        folder: The folder.
        wanted: Names that the facts must hold.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or foreign.
    """
    folder = as_path(folder, "folder")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a saved result: {', '.join(missing)} missing")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / FACTS} is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"{folder / FACTS} is not in the format {FORMAT!r}")
    absent = sorted(wanted - set(facts))
    if absent:
        raise ValueError(f"{folder / FACTS} lacks {absent}")
    try:
        tensors = load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ValueError(f"{folder / TENSORS} is damaged or foreign: {error}") from error
    return facts, folder / REPORT, tensors
