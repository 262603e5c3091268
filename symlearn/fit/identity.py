"""Whether a saved state belongs to the model, the data and the config at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from symlearn import architecture
from symlearn.fit.config import FitConfig

_FREE = {"progress"}
"""Options that may differ between a fit and its continuation."""


def identity(model: nn.Module) -> dict[str, Any]:
    """What makes a model the same one: names, types and shapes of its tensors, and its structure.

    The structure is None for networks of modules that are not standard ones.
    """
    tensors = {
        name: [str(value.dtype), list(value.shape)]
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)  # a module may add extra state of another kind
    }
    structure = json.loads(json.dumps(architecture.describe(model)))
    return {"tensors": tensors, "structure": structure}


def check_same(
    saved: Mapping[str, Any],
    config: FitConfig,
    model: Mapping[str, Any],
    samples: Mapping[str, Any],
) -> None:
    """Check that a saved state can go on with what is at hand.

    Args:
        saved: State of a fit, with "config", "identity" and "samples".
        config: Options at hand.
        model: `identity` of the model at hand.
        samples: Fingerprint of the data at hand.

    Raises:
        ValueError: If not; all reasons are named.
    """
    reasons = differences(saved, config, model, samples)
    if reasons:
        raise ValueError(
            f"the checkpoint cannot be resumed here: {'; '.join(reasons)}. Give the model, data "
            "and config that the fit was started with"
        )


def differences(
    saved: Mapping[str, Any],
    config: FitConfig,
    model: Mapping[str, Any],
    samples: Mapping[str, Any],
) -> list[str]:
    """Why a saved state, as `check_same` takes it, cannot go on with what is at hand."""
    reasons = []
    options = FitConfig.from_dict(saved["config"]).to_dict()
    for name, value in config.to_dict().items():
        if name not in _FREE and value != options[name]:
            reasons.append(f"its config has {name}={options[name]!r}, not {value!r}")
    old, new = saved["identity"]["tensors"], model["tensors"]
    different = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if different:
        some = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
        reasons.append(f"it is of another model: tensors differ ({some})")
    elif saved["identity"]["structure"] != model["structure"]:
        reasons.append("it is of another model: the weights have the same shapes, modules differ")
    if saved["samples"] != samples:
        theirs, mine = saved["samples"]["n"], samples["n"]
        what = "as many, but others" if theirs == mine else f"{theirs} samples, here {mine}"
        reasons.append(f"it is of other training data ({what})")
    return reasons
