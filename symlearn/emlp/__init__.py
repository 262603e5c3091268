"""Equivariant multilayer perceptrons of matrix groups (Finzi, Welling and Wilson 2021)."""

from symlearn.emlp.basis import BasisExpansion, EquivariantMap
from symlearn.emlp.layers import (
    BilinearContraction,
    EquivariantLinear,
    GatedNonlinearity,
    gated,
    uniform,
)
from symlearn.emlp.network import EMLP, EMLPBlock, EMLPNonlinearity, assert_equivariant

__all__ = [
    "EMLP",
    "BasisExpansion",
    "BilinearContraction",
    "EMLPBlock",
    "EMLPNonlinearity",
    "EquivariantLinear",
    "EquivariantMap",
    "GatedNonlinearity",
    "assert_equivariant",
    "gated",
    "uniform",
]
