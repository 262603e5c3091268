"""What every test shares: one thread, fixed seeds, and a guard for optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
from types import ModuleType

import hypothesis
import numpy as np
import pytest
import torch

# Two test processes with two threads each would fight over two cores.
torch.set_num_threads(1)

# Derandomized: a failure that CI finds is found again by hand. No deadline: cores are shared.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# No test reads or leaves equivariant bases in the user's cache.
os.environ["SYMLEARN_CACHE_DIR"] = ""

# Import name of everything that only an extra brings -> that extra.
EXTRAS = {
    "asdl": "laplace",
    "backpack": "laplace",
    "curvlinops": "laplace",
    "laplace": "laplace",
    "mlxtend": "vision",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "shtab": "completion",
    "tensorboard": "tensorboard",
    "timm": "vision",
    "torchdiffeq": "ode",
    "torchvision": "vision",
}


def need(name: str) -> ModuleType:
    """Import an optional dependency, or skip the test (or the module) if it is not installed.

    With SYMLEARN_REQUIRE_EXTRAS=1 a missing one fails. An installed one that does not import fails
    always.

    Args:
        name: Full name of a module, for instance `"laplace"` or `"torchvision.models"`.

    Returns:
        The module.

    Raises:
        ValueError: If no extra brings this module.
        ModuleNotFoundError: If it is not installed and the environment requires it.
    """
    root = name.partition(".")[0]
    if root not in EXTRAS:
        raise ValueError(f"need({name!r}): no extra brings {root!r}; known: {sorted(EXTRAS)}")
    missing = importlib.util.find_spec(root) is None
    if missing and os.environ.get("SYMLEARN_REQUIRE_EXTRAS") != "1":
        pytest.skip(f"{name} comes with the extra {EXTRAS[root]!r}", allow_module_level=True)
    return importlib.import_module(name)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every test from the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
