"""Collapsed networks go through torch.export and ONNX, with batches of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.collapse.realtemplate import RealTemplate
from symlearn.collapse.verify import CollapseError
from symlearn.template import Template
from tests.conftest import need
from tests.nets import NETS, make
from tests.test_collapse import lively

EXPORTED = [("residual", "keep"), ("signal", "keep"), ("shared", "circular")]


def collapsed(name: str, boundary: object = "keep") -> tuple[nn.Module, Tensor]:
    net, x = make(name)
    net, x = net.float(), x.float()
    return symlearn.collapse(lively(symlearn.wrap(net, x, boundary=boundary)), x), x


@pytest.mark.core
@pytest.mark.parametrize("name", NETS)
def test_torch_export(name: str) -> None:
    plain, x = collapsed(name)
    batch = torch.export.Dim("batch")
    program = torch.export.export(plain, (x,), dynamic_shapes=({0: batch},))
    more = torch.cat([x, -x])
    torch.testing.assert_close(program.module()(more), plain(more), rtol=1e-6, atol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize(
    ("size", "channels"), [((8, 8), 1), ((9,), 2), ((40, 6), 3), ((4, 3, 6), 2)], ids=str
)
def test_templates_without_complex_numbers(size: tuple[int, ...], channels: int) -> None:
    rule = Template(size, channels, 0.0).eval()
    images = torch.randn(30, channels, *size)
    for _ in range(2):
        real = RealTemplate(rule)
        views = torch.randn(12, 1, channels, *size, dtype=torch.float64)
        views[0] = 0
        views[1] += views[1].roll(size[0] // 2, 2)  # for even sizes, the same at two places
        pose, wanted = real.locate(views), rule.locate(views)
        assert torch.equal(pose.shift[2:], wanted.shift[2:])
        assert torch.equal(pose.element, wanted.element)
        for view, mine, theirs in zip(views[:, 0], pose.shift, wanted.shift, strict=True):
            axes = tuple(range(1, view.ndim))
            moved = [view.roll((-shift).tolist(), axes) for shift in (mine, theirs)]
            torch.testing.assert_close(*moved, rtol=0, atol=1e-12)
        rule.calibrate(images)
    with pytest.raises(RuntimeError, match="calibrate the template"):
        real.calibrate(images)


@pytest.mark.parametrize(("name", "boundary"), EXPORTED)
def test_onnx(name: str, boundary: str, tmp_path: Path) -> None:
    runtime = need("onnxruntime")
    plain, x = collapsed(name, boundary)
    error = symlearn.export_onnx(plain, x, tmp_path / "net.onnx")
    assert error <= 1e-4
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    more = torch.cat([x, -x, x])
    got = session.run(["y"], {"x": more.numpy()})[0]
    np.testing.assert_allclose(got, plain(more).detach().numpy(), rtol=0, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


class Hidden(nn.Module):
    """A network that knows whether it is being exported."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0 if torch.compiler.is_compiling() else x * self.factor

    factor = 2.01


@pytest.mark.parametrize("factor", [2.01, float("nan")])
def test_onnx_that_differs_is_not_kept(factor: float, tmp_path: Path) -> None:
    need("onnxruntime")
    net = Hidden()
    net.factor = factor
    with pytest.raises(CollapseError, match="not kept"):
        symlearn.export_onnx(net, torch.ones(2, 3), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.sum() > 0) else -x


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    need("onnxruntime")
    with pytest.raises(ValueError, match="cannot be exported"):
        symlearn.export_onnx(Branching(), torch.ones(2, 3), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="at least two inputs"):
        symlearn.export_onnx(nn.Identity(), torch.ones(1, 3), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.core
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnx, onnxruntime, onnxscript.*\[export\]"):
        symlearn.export_onnx(nn.Identity(), torch.ones(2, 3), tmp_path / "net.onnx")
