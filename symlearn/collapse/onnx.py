"""A collapsed network as an ONNX file, compared with the network by onnxruntime."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import curvature
from symlearn.collapse.realtemplate import RealTemplate
from symlearn.collapse.verify import CollapseError
from symlearn.subsample import PhaseReference
from symlearn.template import Template

TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


@torch.no_grad()
def export_onnx(
    plain: nn.Module, example: Tensor, path: str | Path, *, tolerance: float = TOLERANCE
) -> float:
    """Write a network in eval mode as an ONNX file that takes batches of any size.

    The file is read back by onnxruntime, and its outputs are compared with the network's, on the
    example and on one of its samples alone; only a file that agrees is kept. Input and output are
    called "x" and "y".

    Args:
        plain: A network that maps one tensor to one tensor, such as a collapsed one.
        example: Inputs [N, C, *size], at least two.
        path: The file; an existing one is replaced as a whole.
        tolerance: Largest difference between outputs, relative to the largest output where that is
            above one.

    Returns:
        The largest absolute difference found.

    Raises:
        ModuleNotFoundError: If the extra "export" is not installed.
        ValueError: If the example is too small, or the network cannot be exported.
        CollapseError: If outputs differ by more than the tolerance, or are NaN.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"ONNX needs {', '.join(missing)}: pip install 'symlearn-torch[export]'"
        )
    if not isinstance(example, Tensor) or example.ndim < 2 or len(example) < 2:
        shape = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(f"the example is {shape}; give at least two inputs, [N, C, *size]")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".onnx", dir=path.parent)
    os.close(handle)
    try:
        with curvature.evaluating(plain):
            _export(_without_complex(plain), example, name)
            error = max(_error(plain, part, name, tolerance) for part in (example, example[:1]))
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return error


def _without_complex(plain: nn.Module) -> nn.Module:
    """The network, or a copy that reads poses off its input without complex numbers."""
    if not any(isinstance(m, PhaseReference) for m in plain.modules()):
        return plain
    plain = copy.deepcopy(plain)
    for module in plain.modules():
        if isinstance(module, PhaseReference) and isinstance(module.rule, Template):
            module.rule = RealTemplate(module.rule).eval()
    return plain


def _export(plain: nn.Module, example: Tensor, name: str) -> None:
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program = torch.export.export(plain, (example,), dynamic_shapes=({0: batch},))
            torch.onnx.export(
                program, (), name, dynamo=True, input_names=["x"], output_names=["y"],
                dynamic_shapes=({0: batch},), external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise ValueError(
            f"the network cannot be exported to ONNX: {str(error).strip().splitlines()[0]}"
        ) from error


def _error(plain: nn.Module, x: Tensor, name: str, tolerance: float) -> float:
    """Largest difference of one batch's outputs."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.cpu().numpy()})[0]
    wanted = plain(x).cpu().numpy()
    error = float(np.abs(got - wanted).max()) if got.shape == wanted.shape else float("nan")
    if not error <= tolerance * max(1.0, float(np.abs(wanted).max())):
        raise CollapseError(
            f"onnxruntime's outputs {list(got.shape)} differ from the network's "
            f"{list(wanted.shape)} by {error:.3g}, more than {tolerance:g}; the file is not kept"
        )
    return error
