"""The rebuilt published construction is our F-FC layer, and its factors hold ours as blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import curvature
from benchmarks.support.published_ffc import EinsumFFC, PublishedFFC, along_diagonal, ffc_path
from symlearn.geometry import Geometry
from symlearn.paths.ffc import FFC, FFCPath
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def path(channels: int, out: int, stride: int = 1) -> FFCPath:
    """A random path from 4x6 maps, in double precision."""
    size = (4, 6)
    conv = nn.Conv2d(channels, out, 3, stride=stride, padding=1)
    made = FFC().build(Geometry.of(conv, size, tuple(s // stride for s in size))).double()
    made.reset_parameters(torch.Generator().manual_seed(0))
    return made


CASES = {"equal": (3, 3, 1), "wider": (2, 5, 1), "strided": (4, 2, 2), "one": (1, 1, 2)}


def test_rows_along_a_diagonal() -> None:
    x = torch.randn(2, 3, 4)
    expected = torch.stack(
        [torch.block_diag(*(row.unsqueeze(0) for row in sample)) for sample in x]
    )
    assert torch.equal(along_diagonal(x), expected)


@pytest.mark.parametrize("rebuild", [PublishedFFC, EinsumFFC])
@pytest.mark.parametrize("case", CASES)
def test_the_same_map_with_the_same_gradients(case: str, rebuild: Any) -> None:
    ours = path(*CASES[case])
    theirs = rebuild(ours)
    x = torch.randn(5, ours.geometry.in_channels, 4, 6, dtype=torch.float64, requires_grad=True)
    y = ours(x)
    assert_near(theirs(x), y, 1e-12)
    g = torch.randn_like(y)
    (wanted,) = torch.autograd.grad(y, x, g, retain_graph=True)
    (found,) = torch.autograd.grad(theirs(x), x, g)
    assert_near(found, wanted, 1e-12)
    y.backward(g)
    theirs(x).backward(g)
    for grad, want in zip(weight_gradients(theirs), weight_gradients(ours), strict=True):
        assert_near(grad, want, 1e-12)


def weight_gradients(layer: Any) -> list[Any]:
    """Gradients of ``theta1 [C', C, S']`` and ``theta2 [C', C, S]`` however they are stored."""
    if isinstance(layer, FFCPath):
        return [layer.theta1.weight.grad, layer.theta2.weight.grad]
    if isinstance(layer, EinsumFFC):
        return [layer.theta1.grad, layer.theta2.grad]
    theta1 = layer.write.weight.grad.T.unflatten(0, (len(layer.read.weight), -1))
    return [theta1, layer.read.weight.grad.unflatten(1, (theta1.shape[1], -1))]


@pytest.mark.parametrize("case", CASES)
def test_the_dense_factors_hold_our_blocks(case: str) -> None:
    ours = path(*CASES[case])
    outputs = ours.geometry.out_channels * ours.geometry.out_sites
    head = nn.Linear(outputs, 3).double().requires_grad_(False)
    data = (
        torch.randn(6, ours.geometry.in_channels, 4, 6, dtype=torch.float64),
        torch.randint(3, (6,)),
    )
    found = [
        curvature.kronecker(nn.Sequential(layer, nn.Flatten(), head), data)
        for layer in (ours, PublishedFFC(ours))
    ]
    for name, published in (
        ("0.theta2.weight", "0.read.weight"),
        ("0.theta1.weight", "0.write.weight"),
    ):
        blocks, dense = found[0][name], found[1][published]
        assert isinstance(blocks, curvature.KroneckerBlocks)
        assert isinstance(dense, curvature.KroneckerBlocks)
        assert_near(dense.inputs.matrix[0], torch.block_diag(*blocks.inputs.matrix), 1e-10)
        assert_near(dense.outputs.matrix[0], blocks.outputs.matrix.sum(0), 1e-10)


def test_other_weights_are_noticed() -> None:
    ours, x = path(3, 3), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    theirs = PublishedFFC(ours)
    with torch.no_grad():
        theirs.write.weight[0, 0] += 1.0
    with pytest.raises(AssertionError, match="error"):
        assert_near(theirs(x), ours(x), 1e-12)


def test_a_path_for_the_benchmarks() -> None:
    made = ffc_path(3, 4)
    assert made(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4)
    assert made.theta1.weight.dtype == torch.float32
