"""Equivariant under a matrix group: ``vec W = Q beta`` (Finzi et al. 2021, thesis Sec. 3.4).

    y = W x        rho_out(g) W = W rho_in(g) for all g of the group

Weight beta ``[r]``: coefficients of the orthonormal basis Q of all such maps between the flattened
feature maps. Kronecker rule: that of a matrix, along Q, the dense block ``Q^T (G (x) A) Q``. Beside
the free path ``fc`` the layer's matrix has the prior of a residual pathway (Eq. 3.1),
``N(0, (s_a^2 + s_b^2) Q Q^T + s_b^2 P P^T)``, with both variances learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from symlearn.emlp.basis import EquivariantMap
from symlearn.geometry import Geometry
from symlearn.groups import EquivariantBasis, Rep
from symlearn.paths.base import Path, PathSpec, normal_


class EmlpPath(Path):
    """The equivariant maps between two representations, over all elements of the feature maps.

    Args:
        geometry: Shapes of the layer.
        rep_in: Representation of the flattened input.
        rep_out: Representation of the flattened output.
    """

    strictness = 1

    def __init__(self, geometry: Geometry, rep_in: Rep, rep_out: Rep) -> None:
        super().__init__(geometry)
        self.linear = EquivariantMap(rep_in, rep_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, *in] to [N, C', *out]."""
        out: Tensor = self.linear(x.flatten(1))
        return out.reshape(len(x), self.geometry.out_channels, *self.geometry.out_size)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Entries of W have the mean square of one over the number of inputs."""
        normal_(self.linear.beta, self.linear.fresh_std, generator)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """All coefficients zero."""
        nn.init.zeros_(self.linear.beta)

    def tested(self) -> Tensor:
        """The coefficients [r]."""
        return self.linear.beta

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Coefficients at zero."""
        nn.init.zeros_(self.linear.beta)

    def seed(self, descent: Tensor, size: float) -> None:
        """Coefficients along the descent direction, at a fraction of the initial size."""
        self.set_along(self.linear.beta, descent, size * self.linear.fresh_std)


@dataclass(frozen=True)
class Emlp(PathSpec):
    """Spec of the path ``"emlp"``.

    Args:
        rep_in: Representation of the flattened input, bound to a group.
        rep_out: Representation of the flattened output.
        label: Name of the path, where a layer has several for different groups.

    Raises:
        TypeError: If one of the two is no representation.

    Example:
        >>> import symlearn
        >>> from symlearn.geometry import Geometry
        >>> from symlearn.groups import SO, V
        >>> layer = symlearn.RelaxedLayer(
        ...     Geometry.of_vectors(6, 3),
        ...     [symlearn.paths.Emlp(2 * V(SO(3)), V(SO(3))), symlearn.paths.FC()],
        ... )
        >>> {name: path.tested().numel() for name, path in layer.paths.items()}
        {'emlp': 2, 'fc': 18}
    """

    name: ClassVar[str] = "emlp"
    rep_in: Rep
    rep_out: Rep
    label: str = "emlp"

    def __post_init__(self) -> None:
        for rep in (self.rep_in, self.rep_out):
            if not isinstance(rep, Rep):
                raise TypeError(
                    f"Emlp takes representations such as (2 * V)(SO(3)), got {type(rep).__name__}"
                )
        object.__setattr__(self, "name", self.label)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """Sizes that are not the representations'."""
        sides = {
            "input": (geometry.in_channels * geometry.in_sites, self.rep_in),
            "output": (geometry.out_channels * geometry.out_sites, self.rep_out),
        }
        return [
            f"its {side} has {size} elements, {rep!r} has {rep.dim}"
            for side, (size, rep) in sides.items()
            if size != rep.dim
        ]

    def build(self, geometry: Geometry) -> EmlpPath:
        """Make the path for one layer."""
        self.check(geometry)
        return EmlpPath(geometry, self.rep_in, self.rep_out)

    def n_params(self, geometry: Geometry) -> int:
        """The rank r of the basis."""
        return EquivariantBasis(self.rep_in >> self.rep_out).rank

    def factor_elements(self, geometry: Geometry) -> int:
        """One dense matrix over the coefficients."""
        return self.n_params(geometry) ** 2

    def options(self) -> dict[str, Any]:
        """The representations as they are printed, and the name."""
        return {"rep_in": repr(self.rep_in), "rep_out": repr(self.rep_out), "label": self.label}
