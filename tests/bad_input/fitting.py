"""Bad input of fit: options, data, networks, and what goes wrong while it runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import symlearn
from curvature import UncoveredParameterError
from symlearn import FitConfig, NonFiniteLossError
from tests.bad_input.case import Bad
from tests.bad_input.scene import (
    INF,
    NAN,
    Items,
    Later,
    X,
    Y,
    cnn,
    fit,
    fitted,
    frozen,
    in_half,
    normalised,
    on_meta,
    reading,
    relaxed,
    returning,
    scaled,
    with_nan,
)

ONE_NAN = X.clone()
ONE_NAN[5, 0, 0, 0] = NAN
REAL = Y.float()


def option(given: str, says: str, **options: Any) -> Bad:
    """A case of `FitConfig`."""
    cut = options.pop("cut", "")
    return Bad(given, partial(FitConfig, **options), [], ValueError, says, cut)


def data(given: str, says: str, train: Any, *, error: Any = ValueError, cut: str = "") -> Bad:
    """A case of training data."""
    return Bad(given, fit, [relaxed(), train], error, says, cut)


def target(given: str, says: str, likelihood: str, y: Any) -> Bad:
    """A case of targets of a real or binary output."""
    return Bad(given, partial(fit, likelihood=likelihood), [relaxed(1), (X, y)], ValueError, says)


def model(given: str, says: str, net: Any, *, n: int = 12, error: Any = ValueError,
          cut: str = "", **options: Any) -> Bad:  # fmt: skip
    """A case of the network."""
    return Bad(given, partial(fit, **options), [net, (X[:n], Y[:n])], error, says, cut)


OPTIONS = [
    option("several options out of range", "objective='evidnce'", objective="evidnce", epochs=0),
    option("a number as text", "epochs='3'", epochs="3"),
    option("None for a number", "learning_rate=None", learning_rate=None),
    option("an infinite number", "learning_rate=inf", learning_rate=INF),
    option("half a sample", "batch_size=2.5", batch_size=2.5),
    option("True for a number", "epochs=True", epochs=True),
    option("text for a switch", "grow='no'", grow="no"),
    option("text for the progress bar", "progress='yes'", progress="yes"),
    option("a seed that is no whole number", "seed=0.5", seed=0.5),
    option("a seed of more than 64 bits", "64 bits", seed=2**64),
    option("a precision that is NaN", "precision=nan", precision=NAN),
    option("bounds that are one number", "precision_bounds=3", precision_bounds=3),
    option("bounds that leave the start out", "around the start", precision_bounds=(2.0, 9.0)),
    option("an unknown likelihood", "likelihood='poisson'", likelihood="poisson"),
    option("an unknown estimator", "estimator='exct'", estimator="exct", cut="choose one of"),
    option("a fraction above one", "burn_in=1.5", burn_in=1.5),
    option("a share held out that is none", "holdout=None", holdout=None),
    option("no epoch left for evidence", "leave no epoch", burn_in=0.7, anneal=0.7),
    Bad("a config that is a dict", symlearn.fit, [relaxed(), (X, Y), {"epochs": 3}], TypeError,
        "must be a FitConfig"),
    Bad("a published schedule of no epoch", FitConfig.published, [0], ValueError, "epochs is 0"),
    Bad("callbacks that are no functions", partial(fit, callbacks=[3]), [relaxed(), (X, Y)],
        TypeError, "list of functions"),
    Bad("validation data of another size", partial(fit, validation=(X[:, :, :4], Y)),
        [relaxed(), (X, Y)], ValueError, "size [8, 8], got [4, 8]"),
    Bad("validation labels out of range", partial(fit, validation=(X, Y + 5)),
        [relaxed(), (X, Y)], ValueError, "class indices run from 5 to 6"),
    Bad("resume from something else", partial(fit, resume=3), [relaxed(), (X, Y)], TypeError,
        "a FitResult or a path"),
    Bad("resume from a result of another model", partial(fit, resume=fitted()),
        [relaxed(paths="conv"), (X, Y)], ValueError, "another model"),
]  # fmt: skip

DATA = [
    data("nothing", "not understood", None, error=TypeError),
    data("text", "batch 0 is a str", "data"),
    data("three arrays", "pairs", (X, Y, Y)),
    data("a dict", "batch 0 is a str", {"x": X, "y": Y}),
    data("arrays of different length", "differ in length", (X, Y[:5])),
    data("no sample", "empty", (X[:0], Y[:0])),
    data("numbers instead of arrays", "differ in length", (torch.ones(()), torch.ones(()))),
    data("an array of objects", "cannot be read", (np.array([None] * 12), Y), cut="as a tensor:"),
    data("images with NaN", "inputs of batch 0 contain NaN", (ONE_NAN, Y)),
    data("infinite images", "infinite", (X / 0, Y)),
    data("images whose squares overflow", "their squares overflow", (X * 1e30, Y)),
    data("images of another size", "size [8, 8], got [4, 8]", (X[:, :, :4], Y)),
    data("images with other channels", "[N, 1, 8, 8]", (X.repeat(1, 3, 1, 1), Y)),
    data("images without a channel axis", "got [8]", (X[:, 0], Y)),
    data("images of whole numbers", "(torch.uint8)", ((255 * X.clamp(0, 1)).byte(), Y),
         cut="(torch.uint8):"),
    data("complex images", "(torch.complex64)", (X + 0j, Y), cut="(torch.complex64):"),
    data("sparse images", "dense", (X.to_sparse(), Y)),
    data("images on the meta device", "holds no values", (X.to("meta"), Y)),
    data("class indices as floats", "integer class indices", (X, REAL)),
    data("class indices as one-hot rows", "[12, 2]", (X, nn.functional.one_hot(Y, 2))),
    data("class indices in a column", "[12, 1]", (X, Y[:, None])),
    data("truth values as classes", "torch.bool", (X, Y.bool())),
    data("class indices below zero", "from -1 to 0", (X, Y - 1)),
    data("class indices out of range", "from 7 to 8", (X, Y + 7)),
    data("a bad label in a late batch", "from 7 to 8", [(X, Y), (X, Y + 7)]),
    data("a generator, which ends", "read only once", iter([(X, Y)]), error=TypeError),
    data("an empty list of batches", "no batch", []),
    data("a loader without samples", "no batch", DataLoader(TensorDataset(X[:0], Y[:0]))),
    data("a loader that drops all samples", "no batch",
         DataLoader(TensorDataset(X, Y), batch_size=64, drop_last=True)),
    data("a loader of images alone", "list of length 1", DataLoader(TensorDataset(X))),
    data("a loader of triples", "list of length 3", DataLoader(TensorDataset(X, Y, Y))),
    data("a loader with None in it", "batch 1 is a NoneType", [(X, Y), None]),
    data("an empty batch", "non-zero number", [(X, Y), (X[:0], Y[:0])]),
    data("a batch of different lengths", "batch 1 has inputs", [(X, Y), (X, Y[:3])]),
    data("batches of different sizes", "of one shape", [(X, Y), (X[:, :, :4], Y)]),
    data("a dataset of images alone", "batch 0 is a Tensor", Items(lambda i: X[i])),
    data("a dataset of different sizes", "batch 0 cannot be put together",
         Items(lambda i: (X[i, :, : 4 + i % 2], Y[i])), cut="put together:"),
    data("a dataset of pictures that are no tensors", "batch 0 cannot be put together",
         Items(lambda i: (object(), Y[i])), cut="put together:"),
    data("a dataset with names as labels", "cannot be read", Items(lambda i: (X[i], "cat")),
         cut="as a tensor:"),
    data("a dataset with NaN", "inputs of batch 0", Items(lambda i: (X[i] * NAN, Y[i]))),
    target("real targets that are NaN", "NaN or infinite", "gaussian", REAL * NAN),
    target("real targets of another width", "[12, 3]", "gaussian", torch.ones(12, 3)),
    target("binary targets that are neither 0 nor 1", "0 or 1", "bernoulli", 0.5 * REAL),
]  # fmt: skip

MODELS = [
    model("a network that is not wrapped", "wrap it first", cnn()),
    model("no network", "got NoneType", None, error=TypeError),
    model("a network with NaN in its weights", "NaN or infinite values (", with_nan(relaxed())),
    model("a network in half precision", "autocast=True", in_half(relaxed())),
    model("a network on the meta device", "holds no values", on_meta(relaxed())),
    model("a network that returns a tuple", "returned tuple", returning(lambda y: (y, y))),
    model("a network that returns maps", "[12, 1, 2]", returning(lambda y: y[:, None])),
    model("a network that returns one number", "returned []", returning(lambda y: y.mean())),
    model("a network that returns whole numbers", "torch.int64", returning(lambda y: y.long())),
    model("a network that returns NaN", "contain NaN", returning(lambda y: y * NAN)),
    model("a network whose outputs are detached", "detached", returning(lambda y: y.detach())),
    model("a network with too few outputs", "has 1 outputs", relaxed(1)),
    model("a network that is frozen", "all are frozen", frozen(relaxed())),
    model("a layer that no rule covers", "1.weight [2] of Scale", scaled(),
          error=UncoveredParameterError),
    model("a weight that is read beside its layer's call", "in another way", reading()),
    model("batch statistics in eval mode", "track_running_stats",
          normalised(track_running_stats=False)),
    model("one sample for a batch normalisation", "all that batch 0 has", normalised(), n=1,
          cut="in a loader):"),
]  # fmt: skip

RUN = [
    data("a loader whose images change in size", "got [4, 8]", Later([(X[:, :, :4], Y)])),
    data("a loader that runs dry", "no batch", Later([], after=1)),
    data("a loader with NaN in a later epoch", "inputs of batch 1",
         Later([(X, Y), (X * NAN, Y)])),
    Bad("targets so large that the loss overflows", partial(fit, likelihood="gaussian"),
        [relaxed(1), (X, REAL * 1e30)], NonFiniteLossError, "in batch 0"),
    Bad("steps so large that weights overflow",
        partial(fit, learning_rate=1e38, optimiser="sgd", precision=1e4), [relaxed(), (X, Y)],
        NonFiniteLossError, "layer"),
]  # fmt: skip
