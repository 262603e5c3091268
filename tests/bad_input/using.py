"""Bad input of what comes before and after a fit: predictions, screening, audit, collapse."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
import symlearn
from symlearn import AuditConfig
from symlearn.audit.images import NotFiniteError
from tests.bad_input.case import Bad
from tests.bad_input.scene import (
    NAN,
    X,
    Y,
    cnn,
    fitted,
    on_meta,
    relaxed,
    report,
    returning,
    with_nan,
)

Y_LATE = Y + 5


def predict(given: str, says: str, x: Any, *, cut: str = "", **options: Any) -> Bad:
    """A case of `FitResult.predict_proba`."""
    act = partial(symlearn.FitResult.predict_proba, **options)
    return Bad(given, act, [fitted(), x], ValueError, says, cut)


def result(given: str, says: str, method: str, *args: Any, cut: str = "", **options: Any) -> Bad:
    """A case of another method of a result."""

    def act(found: Any, given: tuple[Any, ...]) -> object:
        return getattr(found, method)(*given, **options)

    return Bad(f"{method}: {given}", act, [fitted(), args], ValueError, says, cut)


def screen(given: str, says: str, net: Any = None, data: Any = (X, Y), *, error: Any = ValueError,
           cut: str = "", **options: Any) -> Bad:  # fmt: skip
    """A case of `symlearn.screen`."""
    act = partial(symlearn.screen, **options)
    return Bad(given, act, [cnn() if net is None else net, data], error, says, cut)


def audit(given: str, says: str, net: Any = None, x: Any = X[:2], transforms: Any = "rotation", *,
          error: Any = ValueError, cut: str = "") -> Bad:  # fmt: skip
    """A case of `symlearn.audit`."""
    things = [cnn() if net is None else net, x, transforms, AuditConfig(progress=False)]
    return Bad(given, symlearn.audit, things, error, says, cut)


def audit_option(given: str, says: str, **options: Any) -> Bad:
    """A case of an audit's options."""

    def act(net: nn.Module) -> object:
        return symlearn.audit(net, X[:2], "rotation", AuditConfig(progress=False, **options))

    return Bad(given, act, [cnn()], ValueError, says)


def collapse(given: str, says: str, net: Any, *data: Any, error: Any = ValueError,
             cut: str = "", **options: Any) -> Bad:  # fmt: skip
    """A case of `symlearn.collapse`."""
    return Bad(given, partial(symlearn.collapse, **options), [net, *data], error, says, cut)


def kronecker(given: str, says: str, *, error: Any = ValueError, cut: str = "",
              net: Any = None, data: Any = (X, Y), **options: Any) -> Bad:  # fmt: skip
    """A case of `curvature.kronecker`."""
    act = partial(curvature.kronecker, **options)
    return Bad(given, act, [cnn() if net is None else net, data], error, says, cut)


PREDICTIONS = [
    predict("nothing", "cannot be read", None, cut="as a tensor [N, ...]:"),
    predict("a single number", "a single number", 3.0),
    predict("no image", "empty", X[:0]),
    predict("images with NaN", "contain NaN", X * NAN),
    predict("images of another size", "got [4, 8]", X[:, :, :4]),
    predict("images with other channels", "[N, 1, 8, 8]", X.repeat(1, 3, 1, 1)),
    predict("one image without a batch axis", "got [8]", X[0]),
    predict("images of whole numbers", "(torch.int64)", X.long(), cut="(torch.int64):"),
    predict("a loader", "cannot be read", DataLoader(TensorDataset(X, Y)),
            cut="as a tensor [N, ...]:"),
    predict("an array of objects", "cannot be read", np.array([None]), cut="as a tensor [N, ...]:"),
    predict("a batch size of zero", "batch_size is 0", X, batch_size=0),
    predict("a batch size that is no number", "batch_size is '8'", X, batch_size="8"),
    result("images without labels", "pairs", "score", X),
    result("labels out of range", "from 5 to 6", "score", (X, Y_LATE)),
    result("images of another size", "got [4, 8]", "predictive", X[:, :, :4]),
    result("one draw", "samples is 1", "predictive", X, samples=1),
    result("an unknown link", "unknown link 'logit'", "predictive", X, link="logit"),
    result("labels of another length", "[3]", "calibration", X, Y[:3]),
    result("no bin", "n_bins is 0", "calibration", X, Y, n_bins=0),
    Bad("a layer that the report does not have", lambda report: report["9"], [report()],
        KeyError, "its layers are: 0, 2"),
    Bad("a figure that no report has", lambda report: report.plot("bars"), [report()],
        ValueError, "choose one of ['structure', 'shares'"),
    Bad("a figure of what the report does not hold", lambda report: report.plot("calibration"),
        [report()], ValueError, "the report has no section on calibration"),
    Bad("calibration of logits", symlearn.calibration, [2 * X[:4, 0, 0, :2] - 1, Y[:4]],
        ValueError, "probabilities, not logits", "probabilities"),
]  # fmt: skip

SCREEN = [
    screen("no network", "got str", "net", error=TypeError),
    screen("a network without a convolution", "no nn.Conv1d", nn.Linear(2, 2)),
    screen("a network with NaN in its weights", "(0.weight)", with_nan(cnn())),
    screen("an unknown path", "unknown paths ['fffc']", paths="fffc", cut="the paths are"),
    screen("a relaxed network that has all the paths", "name others", relaxed(paths="conv")),
    screen("an unknown layer", "no convolution is named ['9']", layers="9"),
    screen("an unknown likelihood", "unknown likelihood", likelihood="poisson"),
    screen("an unknown estimator", "unknown estimator", estimator="exct", cut="choose one of"),
    screen("fewer samples than none", "samples is -1", samples=-1),
    screen("a seed that is no number", "seed is 'a'", seed="a"),
    screen("images without labels", "pairs", data=X),
    screen("images with NaN", "contain NaN", data=(X * NAN, Y)),
    screen("no sample", "empty", data=(X[:0], Y[:0])),
    screen("class indices as floats", "integer class", data=(X, Y.float())),
    screen("labels out of range", "from 5 to 6", data=(X, Y_LATE)),
    screen("images of another size", "got [4, 8]", relaxed(), (X[:, :, :4], Y)),
]

AUDIT = [
    audit("no network", "got str", "net", error=TypeError),
    audit("a function", "got function", lambda x: x, error=TypeError),
    audit("no images", "not understood", x=None, error=TypeError),
    audit("an empty array", "N >= 1", x=X[:0]),
    audit("images with NaN", "contain NaN", x=X * NAN),
    audit("one image without a batch axis", "[N, C, H, W]", x=X[0]),
    audit("images of whole numbers", "torch.int64", x=X.long()),
    audit("images with other channels", "does not accept", x=X.repeat(1, 3, 1, 1),
          cut="(torch.float32):"),
    audit("images of different sizes", "of one size", x=[(X[:1], Y[:1]), (X[:1, :, :4], Y[:1])]),
    audit("images on the meta device", "holds no values", x=X.to("meta")),
    audit("a network on the meta device", "holds no values", on_meta(cnn())),
    audit("a network with NaN in its weights", "network's output", with_nan(cnn()),
          error=NotFiniteError),
    audit("a network that returns a tuple", "returned tuple", returning(lambda y: (y,)),
          error=TypeError),
    audit("an unknown transformation", "unknown transformations ['spin']", transforms="spin",
          cut="the names are"),
    audit("no transformation", "at least one", transforms=()),
    audit("a transformation that is a number", "names or Transformation", transforms=3,
          error=TypeError),
    Bad("a config that is a dict", symlearn.audit, [cnn(), X[:2], "rotation", {"images": 3}],
        TypeError, "must be an AuditConfig"),
    audit_option("no images wanted", "number of images is 0", images=0),
    audit_option("memory that is no number", "memory_gb is 'x'", memory_gb="x"),
    audit_option("a tolerance that is NaN", "positive tolerance", tolerance=NAN),
    audit_option("no probe", "at least 2 probes", most_probes=0),
    audit_option("a seed that is no number", "seed is 'a'", seed="a"),
]  # fmt: skip

COLLAPSE = [
    collapse("no network", "got NoneType", None, error=TypeError),
    collapse("a network without relaxed layers", "no relaxed layer", cnn()),
    collapse("a network with NaN in its weights", "NaN or infinite values (", with_nan(relaxed())),
    collapse("images with NaN", "contain NaN", relaxed(), X * NAN),
    collapse("images of another size", "got [4, 8]", relaxed(), X[:, :, :4]),
    collapse("no image", "empty", relaxed(), X[:0]),
    collapse("a single number", "single number", relaxed(), torch.ones(())),
    collapse("labels out of range", "from 5 to 6", relaxed(), (X, Y_LATE)),
    collapse("paths that do not exist", "['0.gconv']", relaxed(), drop=["0.gconv"]),
    collapse("one path as text", "['0.ffc']", relaxed(), drop="0.ffc", error=TypeError),
    collapse("an unknown likelihood", "poisson", relaxed(), (X, Y), likelihood="poisson"),
    result("a threshold of one", "threshold is 1", "collapse", threshold=1.0),
    result("a threshold that is text", "threshold is 'a'", "collapse", threshold="a"),
    result("fine-tuning without data", "train=(X, y)", "collapse", fine_tune=2),
    result("less than no fine-tuning", "fine_tune is -1", "collapse", fine_tune=-1),
    result("fine-tuning on images of another size", "got [4, 8]", "collapse", fine_tune=1,
           train=(X[:, :, :4], Y)),
    Bad("collapse_report of another network", symlearn.collapse_report, [cnn()], ValueError,
        "no collapse report"),
    Bad("save_plain: modules of your own", symlearn.save_plain,
        [returning(abs), "plain.safetensors"], ValueError, "state_dict()"),
]  # fmt: skip

CURVATURE = [
    kronecker("no network", "got str", net="net", error=TypeError),
    kronecker("an unknown likelihood", "poisson", likelihood="poisson"),
    kronecker("an unknown estimator", "exct", estimator="exct", cut="choose one of"),
    kronecker("an unknown sharing", "shrae", sharing="shrae"),
    kronecker("no draw", "draws is 0", draws=0, estimator="mc"),
    kronecker("a batch size of zero", "batch_size is 0", batch_size=0),
    kronecker("a parameter that is not there", "named ['9']", only=["9"]),
    kronecker("images with other channels", "does not accept", data=(X.repeat(1, 3, 1, 1), Y),
              cut="(torch.float32):"),
]  # fmt: skip
