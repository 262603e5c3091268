"""Bad input of wrap, plan, lift and the networks that the package builds."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

import symlearn
from symlearn.paths import GConv
from tests.bad_input.case import Bad, Lazy
from tests.bad_input.scene import NAN, X, cnn, with_nan, wrapped
from tests.test_wrap_errors import MODELS

FOREIGN = "(torch.float32):", "(torch.int64):"


def wrap(given: str, says: str, *, error: type[Exception] = ValueError, **options: Any) -> Bad:
    """A case of `symlearn.wrap`; ``model`` and ``x`` stand for its arguments."""
    things = [options.pop("model", cnn()), options.pop("x", X[:1])]
    cut = options.pop("cut", "")
    return Bad(given, partial(symlearn.wrap, **options), things, error, says, cut)


def known(name: str, given: str, cut: str = "") -> Bad:
    """A case that the tests of wrap try for their text."""
    build, x, error, _ = MODELS[name]
    return Bad(given, symlearn.wrap, [Lazy(build), x], error, "", cut)


def build(given: str, says: str, **options: Any) -> Bad:
    """A case of `symlearn.models.paper_cnn`."""
    sizes = {"kind": "conv", "alpha": 1, "in_channels": 1, "classes": 2, "size": 32, **options}
    cut = str(sizes.pop("cut", ""))
    return Bad(given, partial(symlearn.models.paper_cnn, **sizes), [], ValueError, says, cut)


WRAP = [
    known("not a module", "a model that is no module"),
    known("no convolution", "a model without a convolution"),
    known("no tensor", "an example that is no tensor"),
    known("wrong channels", "an example with other channels", FOREIGN[0]),
    known("wrong axes", "an example without a batch axis"),
    known("wrong dtype", "an example of another dtype", FOREIGN[0]),
    known("other device", "an example on another device"),
    known("bare", "a convolution that is the whole model"),
    known("several sizes", "a convolution that sees several sizes"),
    known("tied weights", "convolutions that share weights"),
    known("hooks", "a convolution with hooks"),
    known("in a list", "a model that calls a convolution out of a list"),
    wrap("an example of integers", "does not accept", x=X[:1].long(), cut=FOREIGN[1]),
    wrap("an example smaller than a kernel", "does not accept", x=X[:1, :, :0], cut=FOREIGN[0]),
    wrap("a model with NaN in its weights", "(0.weight)", model=with_nan(cnn())),
    wrap("a model with lazy layers", "run it on the example",
         model=nn.Sequential(nn.LazyConv2d(2, 3))),
    wrap("an unknown path", "unknown paths ['cnov']", paths=("conv", "cnov"), cut="the paths are"),
    wrap("no path", "at least one path", paths=()),
    wrap("a path twice", "none twice", paths=("conv", "conv")),
    wrap("a path that is a number", "names or path objects", paths=3, error=TypeError),
    wrap("paths for layers that do not exist", "['z.*']", paths={"z.*": "conv"}),
    wrap("a layer that does not exist", "no convolution is named ['9']", layers="9"),
    wrap("layers that are a number", "got 3", layers=3, error=TypeError),
    wrap("more stages than there are", "the network has", layers=symlearn.last_stages(9)),
    wrap("an unknown boundary", "['keep', 'circular']", boundary="torus"),
    wrap("an unknown tie", "['path', 'tensor']", tie="layer"),
    wrap("an unknown init", "['keep', 'fresh']", init="zero"),
    wrap("a seed that is no number", "seed is 'a'", seed="a"),
    wrap("a memory limit of zero", "positive number", memory_limit_gib=0),
    wrap("a memory limit that is NaN", "positive number", memory_limit_gib=NAN),
    wrap("paths that need too much memory", "'fc' needs", paths=("conv", "fc"),
         memory_limit_gib=1e-9),
    wrap("group convolutions without a group", "symlearn.lift", paths=("conv", GConv())),
    Bad("a network that is wrapped already", symlearn.wrap,
        [wrapped(), X[:1]], ValueError, "wrapped already"),
    Bad("plan: a negative memory limit", partial(symlearn.plan, memory_limit_gib=-1.0),
        [cnn(), X[:1]], ValueError, "positive number"),
    Bad("lift: an unknown group", partial(symlearn.lift, group="p7"), [cnn()], ValueError,
        "unknown group 'p7'", "the groups are"),
    Bad("lift: a width that is no number", partial(symlearn.lift, width="a"), [cnn()], ValueError,
        "width is 'a'"),
    Bad("lift: no module", symlearn.lift, [None], TypeError, "got NoneType"),
    Bad("last_stages: no stage", symlearn.last_stages, [0], ValueError, "at least one"),
    build("paper_cnn: an unknown kind", "unknown kind 'cnv'", kind="cnv", cut="choose one of"),
    build("paper_cnn: a width of zero", "alpha is 0", alpha=0),
    build("paper_cnn: no class", "classes is 0", classes=0),
    build("paper_cnn: no channel", "in_channels is 0", in_channels=0),
    build("paper_cnn: a size that does not halve", "multiple of 32", size=48),
    Bad("small_cnn: no class", symlearn.models.small_cnn, [0], ValueError, "classes is 0"),
]  # fmt: skip
