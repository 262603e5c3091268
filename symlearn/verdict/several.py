"""What sets of fits share: checkpoints in one folder, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from symlearn.atomic import as_folder
from symlearn.fit import FitResult
from symlearn.fit.checkpoint import checkpoints

Key = TypeVar("Key")


def continued(folder: str | Path | None, name: str, resume: bool) -> dict[str, Any]:
    """Options of `symlearn.fit` for one of several fits, with checkpoints in a folder of its name.

    Args:
        folder: Folder of all of them; None for no checkpoints.
        name: Name of the fit.
        resume: Whether it goes on from its checkpoints, if there are any.

    Raises:
        ValueError: If it is to go on and there is no folder.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs to know the checkpoints: give checkpoint_dir too")
        return {}
    own = as_folder(folder, "checkpoint_dir") / name
    there = resume and own.is_dir() and bool(checkpoints(own))
    return {"checkpoint_dir": own, "resume": own if there else None}


def best_of(results: Mapping[Key, FitResult]) -> FitResult:
    """The fit with the largest log evidence; one whose evidence is not known comes last."""

    def evidence(result: FitResult) -> float:
        return -math.inf if math.isnan(result.log_evidence) else result.log_evidence

    return max(results.values(), key=evidence)
