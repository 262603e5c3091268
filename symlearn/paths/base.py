"""What every path is: a linear map that obeys one symmetry, and how it appears and disappears.

A *spec* (a small frozen dataclass such as ``FFC()``) carries a path's options and builds the path
for a layer's geometry. A *path* is the module that computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry


class Path(nn.Module, ABC):
    """A linear map from [N, C, *in] to [N, C', *out] with its own weights and no bias.

    A new path has zero weights. A path that is not `enabled` is not computed; its weights are zero
    and frozen, and the fit may bring it back. Subclasses state their map, their initialisation and
    how they are tested for relevance while absent.

    Args:
        geometry: Shapes of the layer.

    Attributes:
        reads_aligned: Whether the path reads its input on the sampling grid chosen for the sample
            (shift-equivariant paths do; paths that depend on absolute position do not).
        strictness: How many symmetries the path obeys: 0 for none, 1 for shifts, 2 for shifts and a
            finite group. Pretrained weights go to the strictest path that can hold them.
    """

    reads_aligned: ClassVar[bool] = False
    strictness: ClassVar[int] = 0

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.enabled = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial weights that preserve the scale of activations (He et al. 2015)."""

    @abstractmethod
    def start_at_zero(self, generator: torch.Generator) -> None:
        """Set weights so that the path contributes nothing, yet gradients can reach it."""

    @abstractmethod
    def tested(self) -> Tensor:
        """The weight whose relevance is tested, at zero, while the path is absent."""

    @abstractmethod
    def propose(self, x: Tensor, g: Tensor) -> None:
        """Prepare an absent path for the test: `tested` at zero, other factors at a direction.

        Args:
            x: Layer inputs of the samples set aside for finding directions, [N, C, *in].
            g: Gradients of the negative log likelihood at the layer's outputs, [N, C', *out].
        """

    @abstractmethod
    def seed(self, descent: Tensor, size: float) -> None:
        """Start the path from the tested point in a descent direction.

        Args:
            descent: Negative gradient of `tested` (in its shape).
            size: Scale of the start relative to a full-size initialisation.
        """

    def filters(self) -> Tensor | None:
        """The dense filters [C', C/g, *kernel] of the convolution that the path is, if it is one.

        The convolution has the geometry of the layer. No gradient goes through.
        """
        return None

    def adopt(self, conv: nn.Module) -> bool:
        """Take over the map of a convolution of the same geometry; False if the path cannot."""
        return False

    def needs_direction(self) -> bool:
        """Whether `propose` uses its arguments."""
        return False

    @staticmethod
    def set_along(
        weight: Tensor, descent: Tensor, std: float, values: Tensor | None = None
    ) -> None:
        """Set a weight to a direction.

        Args:
            weight: The weight.
            descent: The direction, in its shape.
            std: Size of the weight, or of the noise on the map's values that it is a fit to.
            values: The map's values along ``descent``, if they are not the weight's.
        """
        norm = (descent if values is None else values).norm()
        scale = std * descent.numel() ** 0.5 / norm.clamp(min=1e-30)
        with torch.no_grad():
            weight.copy_(descent * scale)

    def factors(self) -> list[nn.Parameter]:
        """The weights whose product is the map; by default all but hyperparameters."""
        kept = self.hyperparameters()
        return [p for name, p in self.named_parameters() if name not in kept]

    def hyperparameters(self) -> dict[str, str | None]:
        """Parameters that are not weights: name to a prior group of its own, None without a prior.

        They stay as they are where weights are set to zero.
        """
        return {}

    def parts(self) -> dict[str, list[str]]:
        """Parts that may vanish one by one, with a prior variance each: name to their parameters.

        None by default: the path is present or absent as a whole.
        """
        return {}

    def parts_left(self) -> list[str]:
        """Parts with a weight that is trainable or not zero."""
        own = dict(self.named_parameters())
        return [
            part
            for part, names in self.parts().items()
            if any(own[n].requires_grad or bool(own[n].any()) for n in names)
        ]

    def drop(self, part: str) -> None:
        """Set the weights of a part to zero, and freeze them; `switch_on` thaws all parts."""
        own = dict(self.named_parameters())
        for name in self.parts()[part]:
            nn.init.zeros_(own[name])
            own[name].requires_grad_(False)

    def energy(self) -> Tensor | None:
        """Negative logarithm of the prior beyond its Gaussians, in nats up to a constant, [].

        It must stay the same when all weights of a prior group are multiplied by a number: then
        its normaliser does not depend on the prior variances, and the evidence can learn them.
        """
        return None

    def scale(self, size: float) -> None:
        """Multiply the map by a positive number, the same share in each factor."""
        factors = self.factors()
        with torch.no_grad():
            for p in factors:
                p.mul_(size ** (1 / len(factors)))

    def contributes(self) -> bool:
        """Whether the path can change the output: no factor is identically zero."""
        return all(bool(p.detach().any()) for p in self.factors())

    def switch_off(self) -> None:
        """Set the weights to zero, freeze them, and leave the path out of the forward map."""
        kept = self.hyperparameters()
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name not in kept:
                    p.zero_()
        self.requires_grad_(False)
        self.enabled = False

    def switch_on(self) -> None:
        """Take part in the forward map again, with trainable weights."""
        self.requires_grad_(True)
        self.enabled = True


@dataclass(frozen=True)
class PathSpec(ABC):
    """Options of a path, and how to build it for a layer."""

    name: ClassVar[str]
    """Name of the path in `wrap`, in the model and in reports."""

    @classmethod
    def from_text(cls, text: str) -> PathSpec:
        """The path with the option that stands behind its name and a colon, "name:text".

        Args:
            text: The option; what it says is up to the path.

        Raises:
            ValueError: If the path takes none, or not this one.
        """
        raise ValueError(f"path {cls.name!r} takes no option behind a colon, got {text!r}")

    @abstractmethod
    def build(self, geometry: Geometry) -> Path:
        """Make the path for one layer, with zero weights."""

    def unsuited(self, geometry: Geometry) -> list[str]:
        """Why the path cannot stand in a layer, one sentence a reason; none if it can."""
        return []

    def check(self, geometry: Geometry) -> None:
        """Check that the path can stand in a layer.

        Raises:
            ValueError: If it cannot; all reasons are named.
        """
        reasons = self.unsuited(geometry)
        if reasons:
            raise ValueError(f"path {self.name!r} does not suit this layer: " + "; ".join(reasons))

    @abstractmethod
    def n_params(self, geometry: Geometry) -> int:
        """Weights the path has in a layer, without building it."""

    @abstractmethod
    def factor_elements(self, geometry: Geometry) -> int:
        """Numbers that its Kronecker factors hold, without building them."""

    def fixed_elements(self, geometry: Geometry) -> int:
        """Numbers that its fixed matrices hold, without building them, where they are many."""
        return 0

    def options(self) -> dict[str, Any]:
        """The options as a JSON-ready dict."""
        return asdict(self)


def check_label(label: str) -> None:
    """Check that a label can be the name of a path in a layer.

    Raises:
        ValueError: If it is empty, has dots, or is the name of a method of ``nn.ModuleDict``.
    """
    if not isinstance(label, str) or not label or "." in label or hasattr(nn.ModuleDict, label):
        raise ValueError(
            f"the label of a path is {label!r}; give text without dots that is not the name of a "
            "method of nn.ModuleDict"
        )


def he_std(fan_in: float) -> float:
    """Standard deviation that preserves activation scale through a ReLU layer."""
    return float((2.0 / fan_in) ** 0.5)


def normal_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill a tensor with Gaussian numbers of the generator (drawn on its device)."""
    if weight.is_meta:
        return
    options: dict[str, Any] = {"dtype": torch.float64, "device": generator.device}
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator, **options) * std)
