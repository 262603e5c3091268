"""The structure of a network as JSON, for networks made of standard modules; no pickle, no code.

A network is described by class names from a fixed table and their constructor arguments, so that
reading a description can build modules of that table and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from symlearn.collapse.modules import (
    CircularConv,
    ConstantMap,
    FactoredMap,
    GeneratorMap,
    KeptPaths,
    MapSum,
    PowerMap,
)
from symlearn.geometry import Geometry, OverGroup
from symlearn.groups.features import GroupBias, GroupPool, GroupRepeat, PerElement
from symlearn.groups.grid import GROUPS, GridGroup
from symlearn.paths import PATHS, PathSpec, as_specs
from symlearn.powerblock import PowerBlock
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import Align, Circular, CircularPool, PhaseReference

Description = dict[str, Any]

_CONV = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "bias", "padding_mode"),
)
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")

# constructor arguments that are attributes of the same name
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _CONV),
    "Linear": ("in_features", "out_features", "bias"),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "MaxPool3d"), _MAX),
    "AvgPool1d": _AVG,
    **dict.fromkeys(("AvgPool2d", "AvgPool3d"), (*_AVG, "divisor_override")),
    **{f"Adaptive{kind}Pool{d}d": ("output_size",) for kind in ("Avg", "Max") for d in (1, 2, 3)},
    **{f"{kind}Norm{d}d": _NORM for kind in ("Batch", "Instance") for d in (1, 2, 3)},
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    **dict.fromkeys(("Dropout", "Dropout2d"), ("p", "inplace")),
    **dict.fromkeys(("ReLU", "SiLU", "ReLU6"), ("inplace",)),
    "LeakyReLU": ("negative_slope", "inplace"),
    "PReLU": ("num_parameters",),
    "ELU": ("alpha", "inplace"),
    "GELU": ("approximate",),
    **dict.fromkeys(("Tanh", "Sigmoid", "Identity"), ()),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "RelaxedLayer": ("geometry", "specs", "bias", "align"),
    "CircularPool": ("pool", "align", "pads"),
    "CircularConv": ("conv", "geometry", "align", "bias"),
    "FactoredMap": ("in_shape", "out_shape", "channels_per_field", "coordinates", "bias"),
    "GeneratorMap": ("in_shape", "out_shape", "rank"),
    "PowerMap": ("in_shape", "out_shape", "bases", "powers", "zero", "picks"),
    "ConstantMap": ("out_shape", "bias"),
    "KeptPaths": ("geometry", "specs", "align"),
    "PowerBlock": ("body", "skip", "rho"),
    "GroupPool": ("group", "how", "sites"),
    "GroupRepeat": ("group",),
    "GroupBias": ("channels", "group"),
    "PerElement": ("module", "group"),
}
_OWN: dict[str, type[nn.Module]] = {
    own.__name__: own
    for own in (
        *(RelaxedLayer, CircularPool, CircularConv, FactoredMap, GeneratorMap, ConstantMap),
        *(KeptPaths, PowerMap, PowerBlock),
        *(GroupPool, GroupRepeat, GroupBias, PerElement),
    )
}
_CONTAINERS: dict[str, type[nn.Module]] = {"Sequential": nn.Sequential, "MapSum": MapSum}


def describe(model: nn.Module) -> Description | None:
    """Describe a network, or return None if it holds a module outside the table."""
    try:
        return {"root": _describe(model), "reference": _describe_reference(model)}
    except KeyError:
        return None


def build(description: Description) -> nn.Module:
    """Build the network of a description, with fresh weights.

    Raises:
        ValueError: If the description names something that is not in the table, or a group that is
            not registered, or registered as another one.
    """
    reference = None
    try:
        if description["reference"] is not None:
            reference = _build_reference(description["reference"])
        with torch.random.fork_rng(devices=()):  # torch draws weights, which nobody will see
            model = _build(description["root"], reference)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a network description: {error!r}") from error
    if reference is not None:
        reference.attach(model)
    return model


def _describe(module: nn.Module) -> Description:
    kind = type(module).__name__
    if type(module) is _CONTAINERS.get(kind):
        return {"kind": kind, "children": {n: _describe(m) for n, m in module.named_children()}}
    if _class(kind) is not type(module):
        raise KeyError(kind)
    arguments = {name: _describe_value(name, getattr(module, name)) for name in _ARGUMENTS[kind]}
    data: Description = {"kind": kind, "arguments": arguments}
    if isinstance(module, RelaxedLayer):
        data["off"] = [name for name, path in module.named_paths().items() if not path.enabled]
    over = OverGroup.of(module)
    if over is not None:
        data["over_group"] = asdict(over)
    return data


def _build(data: Description, reference: PhaseReference | None) -> nn.Module:
    kind = data["kind"]
    if kind in _CONTAINERS:
        model: nn.Module = _CONTAINERS[kind]()
        for name, child in data["children"].items():
            model.add_module(name, _build(child, reference))
        return model
    if kind not in _ARGUMENTS:
        raise KeyError(kind)
    arguments = data["arguments"]
    make = PowerBlock.assemble if kind == "PowerBlock" else _class(kind)
    module: nn.Module = make(
        **{name: _build_value(name, value, reference) for name, value in arguments.items()}
    )
    if isinstance(module, RelaxedLayer):
        for name in data["off"]:
            module.path(name).switch_off()
    if "over_group" in data:
        OverGroup(**data["over_group"]).put_on(module)
    return module


def _class(kind: str) -> Any:
    """The class of a name, from torch or our own."""
    return _OWN.get(kind) or getattr(nn, kind, None)


def _describe_value(name: str, value: Any) -> Any:
    return _VALUES[name][0](value) if name in _VALUES else value


def _build_value(name: str, data: Any, reference: PhaseReference | None) -> Any:
    return _VALUES[name][1](data, reference) if name in _VALUES else _tupled(data)


def _describe_reference(model: nn.Module) -> Description | None:
    found = next((m for m in model.modules() if isinstance(m, PhaseReference)), None)
    if found is None:
        return None
    group = None if found.group is None else asdict(found.group)
    options = {"phase": found.options.phase, "dither": found.options.dither, "group": group}
    return {"size": list(found.size), "channels": found.channels, "options": options}


def _build_reference(data: Description) -> PhaseReference:
    options = dict(data["options"])
    group = options.pop("group")
    if group is not None:
        group = _build_group(group)
    return PhaseReference(tuple(data["size"]), data["channels"], Circular(**options, group=group))


def _build_group(data: Description) -> GridGroup:
    """The group of a description, which the paths of the network will look up by its name."""
    group = GridGroup(data["name"], data["elements"])
    if GROUPS.get(group.name, group) != group:
        raise ValueError(
            f"the network is over a group {group.name!r} with other elements than the one that is "
            "registered under this name; load it where no other group has the name"
        )
    return group


def _describe_specs(specs: Iterable[PathSpec]) -> list[list[Any]]:
    specs = tuple(specs)
    foreign = [spec.name for spec in specs if PATHS.get(type(spec).name) is not type(spec)]
    if foreign:
        raise KeyError(*foreign)
    return [[type(spec).name, spec.options()] for spec in specs]  # a label may be another name


def _build_specs(data: list[list[Any]]) -> tuple[PathSpec, ...]:
    return as_specs([PATHS[name](**options) for name, options in data])


def _describe_align(align: Align | None) -> Description | None:
    if align is None:
        return None
    shared = align.reference is not None
    return {
        "stride": list(align.stride),
        "passed": list(align.passed),
        "shared": shared,
        "over_group": list(align.over_group),
    }


def _build_align(data: Description | None, reference: PhaseReference | None) -> Align | None:
    if data is None:
        return None
    shared = reference if data["shared"] else None
    over_input, over_output = data["over_group"]
    return Align(tuple(data["stride"]), tuple(data["passed"]), shared, (over_input, over_output))


def _build_geometry(data: Description) -> Geometry:
    return Geometry(**{key: _tupled(value) for key, value in data.items()})


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# arguments that JSON does not hold as they are: how they are described, and built
_VALUES: dict[str, tuple[Callable[[Any], Any], Callable[[Any, PhaseReference | None], Any]]] = {
    **dict.fromkeys(("pool", "conv", "module", "body"), (_describe, _build)),
    "skip": (
        lambda skip: None if skip is None else _describe(skip),
        lambda data, reference: None if data is None else _build(data, reference),
    ),
    "bias": (lambda bias: bias is not None, lambda data, _: data),
    "geometry": (asdict, lambda data, _: _build_geometry(data)),
    "specs": (_describe_specs, lambda data, _: _build_specs(data)),
    "align": (_describe_align, _build_align),
    "group": (asdict, lambda data, _: _build_group(data)),
}
