"""Kronecker-factored Gauss-Newton curvature of torch modules, for any op that states a rule."""

from curvature import testing
from curvature.agreement import check_rules
from curvature.blocks import Block, DenseBlock, DiagonalBlock, KroneckerBlocks, Layout
from curvature.capture import Call, check_outputs, evaluating, outputs_of, watch
from curvature.coverage import Coverage, CoveredParameter, UncoveredParameterError, coverage
from curvature.data import Data, as_pair, batches, check_batch
from curvature.dense import dense_ggn
from curvature.estimators import ESTIMATORS
from curvature.factor import Factor
from curvature.functional import functional_covariance
from curvature.kronecker import KroneckerCurvature, kronecker
from curvature.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    Gaussian,
    Likelihood,
    as_likelihood,
)
from curvature.padding import pad_circular
from curvature.reduce import ALONE, Reduction
from curvature.root import HessianRoot
from curvature.rules import Rule, register_rule, rule_for

__all__ = [
    "ALONE",
    "ESTIMATORS",
    "LIKELIHOODS",
    "Bernoulli",
    "Block",
    "Call",
    "Categorical",
    "Coverage",
    "CoveredParameter",
    "Data",
    "DenseBlock",
    "DiagonalBlock",
    "Factor",
    "Gaussian",
    "HessianRoot",
    "KroneckerBlocks",
    "KroneckerCurvature",
    "Layout",
    "Likelihood",
    "Reduction",
    "Rule",
    "UncoveredParameterError",
    "as_likelihood",
    "as_pair",
    "batches",
    "check_batch",
    "check_outputs",
    "check_rules",
    "coverage",
    "dense_ggn",
    "evaluating",
    "functional_covariance",
    "kronecker",
    "outputs_of",
    "pad_circular",
    "register_rule",
    "rule_for",
    "testing",
    "watch",
]
