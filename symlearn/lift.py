"""An ordinary CNN in, one on a finite group of rotations and reflections out."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from curvature.checking import check_positive, seeded
from symlearn.geometry import Geometry, OverGroup
from symlearn.groupconv import GroupConv2d, GroupFilter
from symlearn.groups.features import POOLS, GroupBias, GroupPool, GroupRepeat, PerElement
from symlearn.groups.grid import GridGroup, named, register
from symlearn.groups.windows import window_problems
from symlearn.paths.base import he_std, normal_
from symlearn.relaxed import relaxed_layers, replace_module

FIRSTS = ("lift", "repeat")
INITS = ("keep", "fresh")
_PER_ELEMENT = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.Dropout2d)
_OPTIONS = ("eps", "momentum", "affine", "track_running_stats", "p", "inplace")
_HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)


def lift(
    model: nn.Module,
    group: str | GridGroup = "p4",
    *,
    width: float = 1.0,
    pool: str = "max",
    first: str = "lift",
    init: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """Turn an ordinary CNN into one on features over a finite group; the given one is left alone.

    All maps get |G| times as many channels, one for each group element. The first convolution (in
    the order of the model's modules) lifts images to such features, the others act on them, a
    `GroupPool` before the head brings them back, biases are shared over the group, and
    normalisation layers see the maps of each element as an image of their own. Filters start as
    group convolutions, so the new network commutes with the group as far as its boundaries, strides
    and head let it (zeros or circular padding, stride one, a head that pools over all sites).

    Until it is wrapped the convolutions are plain ones over all channels: train what
    ``symlearn.wrap(lifted, x, paths=("conv", "ffc", "gconv"))`` makes of it.

    Args:
        model: A network of `nn.Conv2d` layers.
        group: A group or its name; see `symlearn.groups.named`.
        width: Factor on the number of channels; ``|G| ** -0.5`` keeps the number of weights of a
            full group convolution near that of the convolution.
        pool: "max" or "mean" over the group before the head.
        first: "lift" for a first layer that turns its filters on the image, or "repeat" to repeat
            the image over the group, as the networks of the paper's Table 7 do; it then has |G|
            times the weights for the same functions.
        init: "keep" puts the pretrained filters at the identity: the features of a group element
            are then those that the model has for the image turned back by it. "fresh" draws new
            filters. By default "keep" where the width is 1.
        seed: Seed of fresh weights.

    Returns:
        The network on the group.

    Raises:
        ValueError: If a name does not exist, the model has no `nn.Conv2d`, is lifted or wrapped
            already, or has layers that the group or the width do not suit; all are named.
        TypeError: If the model is not a module.

    Example:
        >>> import torch, symlearn
        >>> from torch import nn
        >>> cnn = nn.Sequential(
        ...     nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(),
        ...     nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        ... )
        >>> lifted = symlearn.lift(cnn, "p4")
        >>> x = torch.randn(2, 1, 8, 8)
        >>> torch.allclose(lifted(x.rot90(1, (2, 3))), lifted(x), atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"lift takes a torch.nn.Module, got {type(model).__name__}")
    init = init or ("keep" if width == 1 else "fresh")
    _check_options(width, pool, first, init)
    surgeon = _Surgeon(copy.deepcopy(model), register(named(group)), float(width))
    surgeon.check()
    generator = seeded(seed)
    surgeon.replace_convs(first, init, pool, generator)
    surgeon.replace_normalisation()
    if surgeon.head is not None:
        surgeon.pool_before(surgeon.head, pool, generator)
    return surgeon.model


def _check_options(width: float, pool: str, first: str, init: str) -> None:
    given = {"pool": (pool, POOLS), "first": (first, FIRSTS), "init": (init, INITS)}
    for what, (value, known) in given.items():
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}; choose one of {list(known)}")
    check_positive("width", width)
    if init == "keep" and width != 1:
        raise ValueError(f"init='keep' needs width=1, got {width}: other widths have other filters")


@dataclass
class _Surgeon:
    """Changes a model in place: its convolutions, normalisation layers, and what reads them."""

    model: nn.Module
    group: GridGroup
    width: float

    def __post_init__(self) -> None:
        modules = dict(self.model.named_modules())
        self.convs: dict[str, Any] = {n: m for n, m in modules.items() if type(m) is nn.Conv2d}
        names = list(modules)
        stop = 1 + max((names.index(name) for name in self.convs), default=-1)
        after = [modules[name] for name in names[stop:]]
        self.head = next((m for m in after if type(m) in _HEADS), None)
        if self.head is not None:
            stop += after.index(self.head)
        self.body: dict[str, Any] = {name: modules[name] for name in names[:stop]}
        self.linear: Any = next((m for m in after if type(m) is nn.Linear), None)

    def scaled(self, channels: int) -> int:
        """Channels of the new network, for each group element."""
        return max(1, round(channels * self.width))

    def channels(self, name: str) -> tuple[int, int, int]:
        """Input and output channels and channel groups of a new convolution."""
        conv, names = self.convs[name], list(self.convs)
        c_in = conv.in_channels if name == names[0] else self.scaled(conv.in_channels)
        is_output = name == names[-1] and self.linear is None
        c_out = conv.out_channels if is_output else self.scaled(conv.out_channels)
        depthwise = conv.groups == conv.in_channels > 1
        return c_in, c_out, c_in if depthwise else conv.groups

    def check(self) -> None:
        """Check that the model can be lifted.

        Raises:
            ValueError: If it cannot; all reasons are named.
        """
        if relaxed_layers(self.model):
            raise ValueError("the model is wrapped already; lift the plain network, then wrap it")
        if not self.convs:
            raise ValueError("the model has no nn.Conv2d layer to lift")
        problems = [f"{n} {p}" for n, m in self.body.items() for p in self._problems(n, m)]
        if self.linear is not None:
            channels = list(self.convs.values())[-1].out_channels
            if self.linear.in_features % channels:
                problems.append(
                    f"the first linear layer reads {self.linear.in_features} features, no multiple "
                    f"of the {channels} channels of the last convolution"
                )
        if problems:
            raise ValueError(
                f"the model cannot be lifted to the group {self.group.name!r}:\n  "
                + "\n  ".join(problems)
            )

    def _problems(self, name: str, module: Any) -> list[str]:
        if name in self.convs:
            return self._conv_problems(name)
        if type(module) in _PER_ELEMENT:
            channels = self.scaled(getattr(module, "num_channels", 0))
            split = getattr(module, "num_groups", 1)
            return [_uneven(channels, split)] if channels % split else []
        one_weight = isinstance(module, nn.PReLU) and module.num_parameters == 1
        if one_weight or not list(module.parameters(recurse=False)):
            return []
        known = ", ".join(t.__name__ for t in (nn.Conv2d, *_PER_ELEMENT))
        return [
            f"is a {type(module).__name__}, which lift cannot make act on features over a group; "
            f"it knows {known} and layers without weights"
        ]

    def _conv_problems(self, name: str) -> list[str]:
        if not name:
            return ["the model is one bare convolution; put it into nn.Sequential(conv)"]
        geometry = Geometry.of(self.convs[name], (1, 1), (1, 1))
        if geometry.group is not None:
            return [f"is over the group {geometry.group!r} already; lift the plain network"]
        c_in, c_out, groups = self.channels(name)
        uneven = [_uneven(c, groups) for c in (c_in, c_out) if c % groups]
        return [f"cannot be turned: {p}" for p in window_problems(self.group, geometry)] + uneven

    def replace_convs(self, first: str, init: str, pool: str, generator: torch.Generator) -> None:
        """Put convolutions over the group in place of plain ones, with their biases."""
        names = list(self.convs)
        for name, old in self.convs.items():
            lifts = name == names[0] and first == "lift"
            parts: dict[str, nn.Module] = {}
            if name == names[0] and not lifts:
                parts["repeat"] = GroupRepeat(self.group)
            parts["conv"] = self._conv(name, lifts, init, generator)
            if old.bias is not None:
                parts["bias"] = self._bias(name, init)
            if name == names[-1] and self.head is None:
                parts["pool"] = GroupPool(self.group, pool)
            new = nn.Sequential(OrderedDict(parts)) if len(parts) > 1 else parts["conv"]
            replace_module(self.model, old, new.train(old.training))

    def _conv(self, name: str, lifts: bool, init: str, generator: torch.Generator) -> nn.Module:
        old = self.convs[name]
        c_in, c_out, groups = self.channels(name)
        geometry = replace(
            Geometry.of(old, (1, 1), (1, 1)),
            in_channels=c_in * (1 if lifts else self.group.order),
            out_channels=c_out * self.group.order,
            groups=groups,
            group=self.group.name,
            lifts=lifts,
        )
        filter = GroupFilter(geometry)
        turned = GroupConv2d(filter).to(old.weight)
        with torch.no_grad():
            if init == "keep":
                turned.weight[:, :, 0] = old.weight
            else:
                normal_(turned.weight, he_std(filter.fan_in), generator)
        new = geometry.build_conv().to(old.weight)
        new.weight.data.copy_(turned.dense())
        OverGroup(self.group.name, lifts).put_on(new)
        return new.requires_grad_(old.weight.requires_grad)

    def _bias(self, name: str, init: str) -> GroupBias:
        old = self.convs[name].bias
        new = GroupBias(self.channels(name)[1], self.group).to(old)
        if init == "keep":
            new.bias.data.copy_(old)
        return new.requires_grad_(old.requires_grad)

    def replace_normalisation(self) -> None:
        """Let normalisation layers and channel dropout see one element at a time."""
        for module in self.body.values():
            if type(module) in _PER_ELEMENT:
                own = module if self.width == 1 else self._resized(module)
                new = PerElement(own, self.group).train(module.training)
                replace_module(self.model, module, new)

    def _resized(self, module: Any) -> nn.Module:
        """A fresh layer of the same kind for the new number of channels."""
        sizes: tuple[int, ...] = ()
        if isinstance(module, nn.GroupNorm):
            sizes = (module.num_groups, self.scaled(module.num_channels))
        elif not isinstance(module, nn.Dropout2d):
            sizes = (self.scaled(module.num_features),)
        options = {name: getattr(module, name) for name in _OPTIONS if hasattr(module, name)}
        new: nn.Module = type(module)(*sizes, **options)
        return new.to(next(iter(self.convs.values())).weight)

    def pool_before(self, head: nn.Module, pool: str, generator: torch.Generator) -> None:
        """Pool over the group before the head, and fit the first linear layer to the width."""
        channels = list(self.convs.values())[-1].out_channels
        old, sites = self.linear, 1
        if old is not None:
            per_channel = old.in_features // channels
            sites = per_channel if head is old else 1
            if self.width != 1:
                features = self.scaled(channels) * per_channel
                new: Any = nn.utils.skip_init(
                    nn.Linear, features, old.out_features, old.bias is not None
                )
                normal_(new.weight, features**-0.5, generator)
                if new.bias is not None:
                    nn.init.zeros_(new.bias)
                new.to(old.weight)
                replace_module(self.model, old, new)
                head = new if head is old else head
        replace_module(self.model, head, nn.Sequential(GroupPool(self.group, pool, sites), head))


def _uneven(channels: int, groups: int) -> str:
    return f"has {channels} channels at this width, which {groups} groups cannot share"
