"""The states of all global generators of random numbers: torch's, numpy's and Python's.

A fit draws from torch's only; a user's data set may draw from the others.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def state_dict() -> dict[str, Any]:
    """The present states, as a tree of plain values and tensors."""
    _, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {"keys": torch.from_numpy(np.asarray(keys, np.int64)), "rest": list(rest)},
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
    }


def load_state_dict(state: Mapping[str, Any]) -> None:
    """Restore what `state_dict` returned; of CUDA devices, those that were there as well."""
    torch.random.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    numpy, python = state["numpy"], state["python"]
    np.random.set_state(("MT19937", numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
