"""The structure of a network as JSON, for networks made of standard modules; no pickle, no code.

A network is described by class names from a fixed table and their constructor arguments, so that
reading a description can build modules of that table and nothing else.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from symlearn.geometry import Geometry
from symlearn.paths import PATHS, as_specs
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import Align, CircularPool, PhaseReference

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
}


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
            size, dither = description["reference"]
            reference = PhaseReference(tuple(size), dither)
        model = _build(description["root"], reference)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a network description: {error!r}") from error
    if reference is not None:
        reference.attach(model)
    return model


def _describe_reference(model: nn.Module) -> list[Any] | None:
    found = [m for m in model.modules() if isinstance(m, PhaseReference)]
    return [list(found[0].size), found[0].dither] if found else None


def _describe(module: nn.Module) -> Description:
    kind = type(module).__name__
    if type(module) is nn.Sequential:
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
    if getattr(nn, kind, None) is not type(module):
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
    return {"stride": list(align.stride), "passed": list(align.passed), "shared": shared}


def _build(data: Description, reference: PhaseReference | None) -> nn.Module:
    kind = data["kind"]
    if kind == "Sequential":
        model = nn.Sequential()
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
    if kind not in _ARGUMENTS:
        raise KeyError(kind)
    arguments = {key: _tupled(value) for key, value in data["arguments"].items()}
    module: nn.Module = getattr(nn, kind)(**arguments)
    return module


def _build_relaxed(data: Description, reference: PhaseReference | None) -> RelaxedLayer:
    geometry = Geometry(**{key: _tupled(value) for key, value in data["geometry"].items()})
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
    return Align(tuple(data["stride"]), tuple(data["passed"]), shared)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
