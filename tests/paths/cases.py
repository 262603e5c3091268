"""Convolutions of every kind, on small maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from symlearn.generators import BaseMatrix

Make = Callable[[], nn.Module]

# name -> (convolution, spatial size of its input)
CONVS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "plain": (lambda: nn.Conv2d(2, 3, 3, padding=1), (4, 4)),
    "valid": (lambda: nn.Conv2d(1, 2, (3, 2), padding="valid"), (5, 4)),
    "stride": (lambda: nn.Conv2d(2, 2, 3, stride=2, padding=1), (6, 4)),
    "stride-rectangular": (lambda: nn.Conv2d(1, 2, (2, 3), stride=(2, 1), padding=(0, 1)), (6, 5)),
    "same-even": (lambda: nn.Conv2d(1, 2, (4, 2), padding="same"), (6, 5)),
    "same-dilated": (lambda: nn.Conv2d(1, 1, 3, padding="same", dilation=(2, 1)), (6, 4)),
    "circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (4, 5)),
    "reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode="reflect"), (5, 4)),
    "replicate": (
        lambda: nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="replicate"),
        (5, 4),
    ),
    "groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (3, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 3, 2, groups=3), (4, 3)),
    "pointwise": (lambda: nn.Conv2d(3, 2, 1, stride=2), (4, 4)),
    "large-window": (lambda: nn.Conv2d(1, 2, 5, padding=2), (2, 1)),
    "one-d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), (9,)),
    "three-d": (lambda: nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=(0, 0, 1)), (3, 4, 2)),
}
# those whose strides divide their maps can be made circular
CIRCULAR = [name for name in CONVS if name not in {"replicate", "one-d"}]


def geometries() -> list[Any]:
    """Parameters (name, circular): every case as it is and, where possible, circular."""
    plain = [pytest.param(name, False, id=name) for name in CONVS]
    return plain + [pytest.param(name, True, id=f"{name}-circular-layer") for name in CIRCULAR]


SHIFTS = ("translation_y", "translation_x")
SPIRAL = BaseMatrix.affine("spiral", rotation=0.4, scaling=0.1)
