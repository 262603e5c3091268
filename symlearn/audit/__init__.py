"""How far a network is from respecting transformations, and which modules are to blame."""

from symlearn.audit.aliasing import aliasing_error
from symlearn.audit.attribution import Attribution, Contribution, Probing, attribute
from symlearn.audit.auditing import AuditConfig, audit
from symlearn.audit.candidates import Candidate, Invariances, affine_basis, invariances
from symlearn.audit.exported import load_exported
from symlearn.audit.images import NotFiniteError
from symlearn.audit.lie import LieDerivative, NoDerivativeError, lie_derivative, measure
from symlearn.audit.linear import LinearCandidate, LinearInvariances, linear_invariances
from symlearn.audit.metrics import (
    Element,
    Measured,
    discrete_consistency,
    element_at,
    elements_of,
    group_sample_error,
    nearby,
    relative_error,
)
from symlearn.audit.projection import (
    Averaged,
    OperatorSplit,
    Shifts,
    split_operator,
    split_paths,
)
from symlearn.audit.report import Audit
from symlearn.audit.transforms import (
    TRANSFORMATIONS,
    Affine,
    Brightness,
    Contrast,
    Transformation,
    as_transformations,
)
from symlearn.audit.translation import TranslationError, translation_errors

__all__ = [
    "TRANSFORMATIONS",
    "Affine",
    "Attribution",
    "Audit",
    "AuditConfig",
    "Averaged",
    "Brightness",
    "Candidate",
    "Contrast",
    "Contribution",
    "Element",
    "Invariances",
    "LieDerivative",
    "LinearCandidate",
    "LinearInvariances",
    "Measured",
    "NoDerivativeError",
    "NotFiniteError",
    "OperatorSplit",
    "Probing",
    "Shifts",
    "Transformation",
    "TranslationError",
    "affine_basis",
    "aliasing_error",
    "as_transformations",
    "attribute",
    "audit",
    "discrete_consistency",
    "element_at",
    "elements_of",
    "group_sample_error",
    "invariances",
    "lie_derivative",
    "linear_invariances",
    "load_exported",
    "measure",
    "nearby",
    "relative_error",
    "split_operator",
    "split_paths",
    "translation_errors",
]
