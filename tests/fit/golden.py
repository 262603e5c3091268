"""The numbers of a tiny fit, stored: a change that moves them is seen, and has to be meant.

``python -m tests.fit.golden`` writes them anew, after a change that is to move them; the lines that
differ belong into the change's description.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import symlearn
from tests.fit.continuing import eventful

FILE = Path(__file__).with_name("golden.json")

RELATIVE = 1e-5
"""Rounding differs between versions of torch and kinds of processors; in double precision, over few
epochs, by much less than this."""


def numbers(**changes: Any) -> dict[str, Any]:
    """The fit, in double precision: paths grow, others are removed on trial.

    Args:
        changes: Options that differ from the stored fit's.
    """
    model, data, config = eventful()
    config = replace(config, **{"epochs": 8, "challenge_epochs": 1, "check_images": 0, **changes})
    result = symlearn.fit(model.double(), data, config)
    report = result.report
    return {
        "log_evidence": report.log_evidence,
        "effective_params": report.effective_params,
        "precisions": dict(zip(result.prior.groups, result.prior.precision.tolist(), strict=True)),
        "weight_norms": {
            name: float(p.detach().norm()) for name, p in result.model.named_parameters()
        },
        "layers": {
            layer.name: {
                "verdict": layer.verdict,
                **{name: facts.effective_params for name, facts in layer.paths.items()},
            }
            for layer in report.layers
        },
        "epochs": [
            {
                "train_nll": record.train_nll,
                "log_evidence": record.log_evidence,
                "grown": list(record.grown),
                "pruned": list(record.pruned),
            }
            for record in result.history
        ],
    }


def stored() -> dict[str, Any]:
    """The stored numbers."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(numbers(), indent=1) + "\n", encoding="utf-8")
