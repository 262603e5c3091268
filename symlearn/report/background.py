"""What a report keeps of the run that made it: epochs, covered parameters, pictures of weights.

All of it is optional: a report without it says the same of the layers.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass

from symlearn.report import schema

READS, WRITES, FILTERS = "reads", "writes", "filters"
KINDS = (FILTERS, READS, WRITES)
"""What a picture shows; see `Picture`."""

LEVELS = 127
"""A pixel is a whole number from -127 to 127, in units of the picture's largest value over 127."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of the fit.

    Attributes:
        epoch: Its number, from 1.
        train_nll: Mean negative log likelihood of the training batches, in nats.
        log_evidence: Log evidence in nats at the evidence step after the epoch; nan without one.
        log_likelihood: ``log p(D | theta)`` in nats at that step, the part of the log evidence that
            is the fit to the data; nan without one.
        grown: Paths started after the epoch, as "layer.path".
        pruned: Paths switched off after it.
    """

    epoch: int
    train_nll: float
    log_evidence: float
    log_likelihood: float
    grown: tuple[str, ...]
    pruned: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the field types."""
        schema.check(self)


@dataclass(frozen=True)
class CoveredParameters:
    """Parameters that the curvature covers in the same way.

    Attributes:
        kind: "kronecker", "dense", "diagonal", or "fixed", which is no curvature at all.
        reason: Why.
        n_params: Their number.
        names: Names of the tensors.
    """

    kind: str
    reason: str
    n_params: int
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the field types."""
        schema.check(self)


@dataclass(frozen=True)
class Picture:
    """Some maps of a path's weights, coarse enough to be kept in a report.

    Attributes:
        layer: Name of the layer.
        path: Name of the path.
        kind: "filters" of a convolution, the largest of them; else a map that an output channel
            "reads" from an input channel where it reads most, or one that it "writes" in answer.
        height: Pixels of one map.
        width: Pixels of one map.
        n_maps: How many maps of the kind the path has; the picture holds the largest of them.
        largest: Largest absolute value in the picture.
        pixels: The maps row by row, a signed byte per pixel (see `LEVELS`), in base64.
    """

    layer: str
    path: str
    kind: str
    height: int
    width: int
    n_maps: int
    largest: float
    pixels: str

    def __post_init__(self) -> None:
        """Check the field types, the kind, and that the pixels are whole maps."""
        schema.check(self)
        if self.kind not in KINDS:
            raise ValueError(f"a picture's kind is one of {list(KINDS)}, got {self.kind!r}")
        size = self.height * self.width
        found = len(self.values())
        if min(self.height, self.width) < 1 or not found or found % size:
            raise ValueError(
                f"{found} pixels are no whole number of maps of {self.height} x {self.width}"
            )
        if not (math.isfinite(self.largest) and self.largest >= 0.0):
            raise ValueError(f"largest is a finite number of at least 0, got {self.largest}")

    @property
    def n_shown(self) -> int:
        """Maps in the picture."""
        return len(self.values()) // (self.height * self.width)

    def values(self) -> list[int]:
        """The pixels, map by map and row by row, from -127 to 127.

        Raises:
            ValueError: If they are not base64.
        """
        try:
            raw = base64.b64decode(self.pixels, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"a picture's pixels are not base64: {error}") from error
        return [byte - 256 if byte > LEVELS else byte for byte in raw]
