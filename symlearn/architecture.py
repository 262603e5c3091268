"""The structure of a network as JSON, for networks made of standard modules; no pickle, no code.

A network is described by class names from a fixed table and their constructor arguments, so that
reading a description can build modules of that table and nothing else.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from symlearn.collapse.modules import CircularConv, ConstantMap, FactoredMap, MapSum
from symlearn.geometry import Geometry
from symlearn.groups.grid import GridGroup
from symlearn.paths import PATHS, as_specs
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import Align, Circular, CircularPool, PhaseReference

Description = dict[str, Any]

_CONV = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "padding_mode"),
)
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_BATCH = ("num_features", "eps", "momentum", "affine", "track_running_stats")

# constructor arguments that are attributes of the same name
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _CONV),
    "Linear": ("in_features", "out_features"),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "MaxPool3d"), _MAX),
    "AvgPool1d": _AVG,
    **dict.fromkeys(("AvgPool2d", "AvgPool3d"), (*_AVG, "divisor_override")),
    **{f"Adaptive{kind}Pool{d}d": ("output_size",) for kind in ("Avg", "Max") for d in (1, 2, 3)},
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), _BATCH),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    **dict.fromkeys(("Dropout", "Dropout2d"), ("p", "inplace")),
    **dict.fromkeys(("ReLU", "SiLU", "ReLU6"), ("inplace",)),
    "LeakyReLU": ("negative_slope", "inplace"),
    "ELU": ("alpha", "inplace"),
    "GELU": ("approximate",),
    **dict.fromkeys(("Tanh", "Sigmoid", "Identity"), ()),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "FactoredMap": ("in_shape", "out_shape", "channels_per_field", "coordinates"),
    "ConstantMap": ("out_shape",),
}
_OWN: dict[str, type[nn.Module]] = {"FactoredMap": FactoredMap, "ConstantMap": ConstantMap}
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
        ValueError: If the description names something that is not in the table.
    """
    reference = None
    try:
        if description["reference"] is not None:
            reference = _build_reference(description["reference"])
        model = _build(description["root"], reference)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a network description: {error!r}") from error
    if reference is not None:
        reference.attach(model)
    return model


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
        group = GridGroup(group["name"], group["elements"])
    return PhaseReference(tuple(data["size"]), data["channels"], Circular(**options, group=group))


def _describe(module: nn.Module) -> Description:
    kind = type(module).__name__
    if type(module) is _CONTAINERS.get(kind):
        return {"kind": kind, "children": {n: _describe(m) for n, m in module.named_children()}}
    if isinstance(module, RelaxedLayer):
        return {
            "kind": kind,
            "geometry": asdict(module.geometry),
            "paths": [[spec.name, spec.options()] for spec in module.specs],
            "enabled": [name for name, path in module.named_paths().items() if path.enabled],
            "bias": module.bias is not None,
            "align": _describe_align(module.align),
        }
    if isinstance(module, CircularPool):
        return {
            "kind": kind,
            "pool": _describe(module.pool),
            "align": _describe_align(module.align),
            "pads": module.pads,
        }
    if isinstance(module, CircularConv):
        return {
            "kind": kind,
            "conv": _describe(module.conv),
            "geometry": asdict(module.geometry),
            "align": _describe_align(module.align),
            "bias": module.bias is not None,
        }
    if _class(kind) is not type(module):
        raise KeyError(kind)
    arguments = {name: getattr(module, name) for name in _ARGUMENTS[kind]}
    if hasattr(module, "bias"):
        arguments["bias"] = module.bias is not None
    if kind.startswith(("BatchNorm", "GroupNorm")):
        arguments.pop("bias")
    return {"kind": kind, "arguments": arguments}


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


def _build(data: Description, reference: PhaseReference | None) -> nn.Module:
    kind = data["kind"]
    if kind in _CONTAINERS:
        model: nn.Module = _CONTAINERS[kind]()
        for name, child in data["children"].items():
            model.add_module(name, _build(child, reference))
        return model
    if kind == "RelaxedLayer":
        return _build_relaxed(data, reference)
    if kind == "CircularPool":
        align = _build_align(data["align"], reference)
        if align is None:
            raise KeyError("align")
        return CircularPool(_build(data["pool"], reference), align, list(data["pads"]))
    if kind == "CircularConv":
        align = _build_align(data["align"], reference)
        conv = CircularConv(_build(data["conv"], reference), _geometry(data["geometry"]), align)
        if data["bias"]:
            conv.bias = nn.Parameter(torch.zeros(conv.geometry.out_channels))
        return conv
    if kind not in _ARGUMENTS:
        raise KeyError(kind)
    arguments = {key: _tupled(value) for key, value in data["arguments"].items()}
    module: nn.Module = _class(kind)(**arguments)
    return module


def _class(kind: str) -> Any:
    """The class of a name, from torch or our own."""
    return _OWN.get(kind) or getattr(nn, kind, None)


def _geometry(data: Description) -> Geometry:
    return Geometry(**{key: _tupled(value) for key, value in data.items()})


def _build_relaxed(data: Description, reference: PhaseReference | None) -> RelaxedLayer:
    geometry = _geometry(data["geometry"])
    specs = as_specs([PATHS[name](**options) for name, options in data["paths"]])
    layer = RelaxedLayer(geometry, specs, data["bias"], _build_align(data["align"], reference))
    for name, path in layer.named_paths().items():
        if name not in data["enabled"]:
            path.switch_off()
    return layer


def _build_align(data: Description | None, reference: PhaseReference | None) -> Align | None:
    if data is None:
        return None
    shared = reference if data["shared"] else None
    over_input, over_output = data["over_group"]
    return Align(tuple(data["stride"]), tuple(data["passed"]), shared, (over_input, over_output))


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
