"""Infinitesimal generators of transformations: known ones on a grid, and reading learned ones."""

from symlearn.generators.affine import (
    DENSE_SITES,
    FIELDS,
    AffineGenerator,
    Field,
    affine_generators,
    derivative,
    interpolation,
    translation,
)
from symlearn.generators.algebra import (
    Canonical,
    Spectrum,
    Structure,
    canonical,
    spectrum,
    structure,
    unscrambled,
)
from symlearn.generators.basematrix import BaseMatrix
from symlearn.generators.reading import Likeness, VectorField, likeness, vector_field
from symlearn.generators.regression import RegressionSymmetry, regression_symmetry
from symlearn.generators.sitemap import FixedGenerator, SiteMap

__all__ = [
    "DENSE_SITES",
    "FIELDS",
    "AffineGenerator",
    "BaseMatrix",
    "Canonical",
    "Field",
    "FixedGenerator",
    "Likeness",
    "RegressionSymmetry",
    "SiteMap",
    "Spectrum",
    "Structure",
    "VectorField",
    "affine_generators",
    "canonical",
    "derivative",
    "interpolation",
    "likeness",
    "regression_symmetry",
    "spectrum",
    "structure",
    "translation",
    "unscrambled",
    "vector_field",
]
