"""Value objects against dense linear algebra."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import curvature
from curvature import Block, DenseBlock, DiagonalBlock, Factor, KroneckerBlocks, Layout
from tests.cases import case
from tests.curvature.laws import BlockLaws
from tests.oracles import assert_near

pytestmark = pytest.mark.core


def psd(*shape: int, rank: int | None = None, decades: float = 0.0, seed: int = 0) -> Tensor:
    """Random PSD matrices [*, D, D] of some rank, with eigenvalues spread over some decades."""
    generator = torch.Generator().manual_seed(seed)
    *stack, d = shape
    basis = torch.linalg.qr(torch.randn(*stack, d, d, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -decades, d, dtype=torch.float64)
    values[d if rank is None else rank :] = 0
    return (basis * values) @ basis.mT


def layout(shape: tuple[int, ...], order: tuple[int, int, int] | None = None) -> Layout:
    """Layout of a weight stored as it is, or with its axes permuted."""
    if order is None:
        return Layout(
            torch.Size(shape),
            lambda w: w.reshape(1, shape[0], -1),
            lambda blocks: blocks.reshape(shape),
        )
    back = [order.index(axis) for axis in range(3)]
    return Layout(torch.Size(shape), lambda w: w.permute(order), lambda b: b.permute(back))


def kronecker_blocks() -> dict[str, KroneckerBlocks]:
    """Kronecker curvatures: regular, stacked and permuted, rank-deficient, ill-conditioned."""

    def make(a: Tensor, g: Tensor, where: Layout) -> KroneckerBlocks:
        return KroneckerBlocks(Factor(a), Factor(g), 7.0, where)

    return {
        "linear": make(psd(1, 4), psd(1, 3, seed=1), layout((3, 4))),
        "conv": make(psd(1, 6), psd(1, 2, seed=1), layout((2, 3, 2))),
        "blocks": make(psd(2, 3), psd(2, 2, seed=1), layout((2, 2, 3), (1, 0, 2))),
        "other-blocks": make(psd(2, 3, seed=5), psd(2, 2, seed=6), layout((2, 2, 3), (1, 0, 2))),
        "rank-deficient": make(psd(1, 4, rank=2), psd(1, 3, rank=1), layout((3, 4))),
        "ill-conditioned": make(psd(1, 4, decades=9), psd(1, 3, decades=5), layout((3, 4))),
        "zero": make(0 * psd(1, 4), psd(1, 3), layout((3, 4))),
        "large": make(1e6 * psd(1, 4), 1e3 * psd(1, 3), layout((3, 4))),
    }


class TestKroneckerBlocks(BlockLaws):
    def blocks(self) -> dict[str, Block]:
        return dict(kronecker_blocks())


class TestCorrectedKroneckerBlocks(BlockLaws):
    addable = False

    def blocks(self) -> dict[str, Block]:
        generator = torch.Generator().manual_seed(8)
        found: dict[str, Block] = {}
        for name, b in kronecker_blocks().items():
            size = (b.inputs.blocks, b.outputs.dim, b.inputs.dim)
            values = torch.rand(size, generator=generator, dtype=torch.float64)
            values[0, 0, 0] = 0
            found[name] = KroneckerBlocks(b.inputs, b.outputs, b.count, b.layout, values)
        return found


class TestDenseBlock(BlockLaws):
    def blocks(self) -> dict[str, Block]:
        shape = torch.Size([2, 3])
        return {
            "regular": DenseBlock(psd(6), shape),
            "other": DenseBlock(psd(6, seed=3), shape),
            "rank-deficient": DenseBlock(psd(6, rank=2), shape),
            "ill-conditioned": DenseBlock(1e4 * psd(6, decades=12), shape),
            "scalar": DenseBlock(psd(1), torch.Size([])),
        }


class TestDiagonalBlock(BlockLaws):
    def blocks(self) -> dict[str, Block]:
        values = torch.logspace(-8, 4, 6, dtype=torch.float64).reshape(2, 3)
        some_zero = values.clone()
        some_zero[0] = 0
        return {"regular": DiagonalBlock(values), "singular": DiagonalBlock(some_zero)}


class _Broken(DiagonalBlock):
    """Not the inverse rotation, and half the eigenvalues."""

    @property
    def eigenvalues(self) -> Tensor:
        return super().eigenvalues / 2

    def _unrotate(self, coefficients: Tensor) -> Tensor:
        return -coefficients


class _NaN(DiagonalBlock):
    """Everything is NaN."""

    @property
    def eigenvalues(self) -> Tensor:
        return super().eigenvalues * math.nan

    def _rotate(self, w: Tensor) -> Tensor:
        return w.reshape(-1) * math.nan


@pytest.mark.parametrize("kind", [_Broken, _NaN])
@pytest.mark.parametrize(
    ("law", "args"),
    [
        ("test_eigenvalues", ()),
        ("test_logdet", (1.0,)),
        ("test_effective_dim", (1.0,)),
        ("test_rotate_and_unrotate_are_inverse", ()),
        ("test_rotation_is_orthogonal_and_diagonalises", ()),
        ("test_solve", (1.0,)),
        ("test_sample_has_the_posteriors_covariance", ()),
    ],
)
def test_the_laws_catch_a_wrong_block(kind: type[DiagonalBlock], law: str, args: tuple) -> None:
    class Laws(BlockLaws):
        def blocks(self) -> dict[str, Block]:
            return {"wrong": kind(torch.arange(1.0, 5.0, dtype=torch.float64))}

    with pytest.raises(AssertionError):
        getattr(Laws(), law)(*args)


@pytest.mark.parametrize("law", ["test_scaled", "test_sum_with_itself_is_twice"])
def test_the_laws_catch_wrong_arithmetic(law: str) -> None:
    class Lying(DiagonalBlock):
        def scaled(self, factor: float) -> DiagonalBlock:
            return self

        def __add__(self, other: Block) -> DiagonalBlock:
            return self

    class Laws(BlockLaws):
        def blocks(self) -> dict[str, Block]:
            return {"lying": Lying(torch.ones(3, dtype=torch.float64))}

    with pytest.raises(AssertionError):
        getattr(Laws(), law)(*((2.0,) if law == "test_scaled" else ()))


def test_kronecker_blocks_are_the_definition() -> None:
    for block in kronecker_blocks().values():
        a, g = block.inputs.matrix, block.outputs.matrix
        dense = block.to_dense()
        index = block.layout.to_blocks(torch.arange(len(dense)).reshape(block.shape))
        for p in range(len(dense)):
            for q in range(len(dense)):
                (b, o, i), (c, m, j) = ((index == k).nonzero()[0].tolist() for k in (p, q))
                want = g[b, o, m] * a[b, i, j] / block.count if b == c else 0.0
                assert_near(dense[p, q], torch.as_tensor(want, dtype=torch.float64), 1e-14)


def test_linear_weight_is_kron_of_outputs_and_inputs() -> None:
    block = kronecker_blocks()["linear"]
    want = torch.kron(block.outputs.matrix[0], block.inputs.matrix[0]) / block.count
    assert_near(block.to_dense(), want, 1e-15)


def test_rounding_in_a_singular_factor_is_not_evidence() -> None:
    v = torch.randn(2, 40, dtype=torch.float64)
    factor = Factor((v.T @ v).unsqueeze(0), rank=2)
    assert int((factor.values > 0).sum()) == 2
    assert int(((factor + factor).values > 0).sum()) <= 4
    block = KroneckerBlocks(factor, Factor(psd(1, 2)), 1.0, layout((2, 40)))
    # 76 of 80 directions have no curvature, even at a precision far below rounding
    assert float(block.effective_dim(1e-30)) == pytest.approx(4, abs=1e-12)


@pytest.mark.parametrize("delta", [1e-8, 1e-4, 1.0, 1e12])
def test_ill_conditioned_logdet_keeps_its_digits(delta: float) -> None:
    a = torch.diag(torch.logspace(0, -9, 4, dtype=torch.float64)).unsqueeze(0)
    g = torch.diag(torch.logspace(2, -4, 3, dtype=torch.float64)).unsqueeze(0)
    block = KroneckerBlocks(Factor(a), Factor(g), 2.0, layout((3, 4)))
    terms = (x * y / 2 for x in a[0].diagonal().tolist() for y in g[0].diagonal().tolist())
    assert float(block.logdet(delta)) == pytest.approx(
        math.fsum(math.log(t + delta) for t in terms), rel=1e-12
    )


def test_each_matrix_is_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = curvature.kronecker(*case("mlp").make()).scaled(3.0)
    sizes, eigh = [], torch.linalg.eigh

    def counted(matrix: Tensor) -> object:
        sizes.append(matrix.shape[-1])
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    for _ in range(3):
        for block in found.values():
            block.logdet(1.0)
            block.sample(1.0)
    # per layer the inputs, the outputs (for weight and bias) and the bias' constant input
    assert sorted(sizes) == sorted([4, 5, 1, 5, 3, 1])


@pytest.mark.parametrize(
    ("inputs", "outputs", "shape", "count", "message"),
    [
        ((1, 4), (1, 3), (2, 4), 1.0, "do not fit a parameter of shape"),
        ((2, 4), (1, 3), (3, 8), 1.0, "do not fit a parameter of shape"),
        ((1, 4), (1, 3), (3, 4), 0.0, "must be positive"),
        ((1, 4), (1, 3), (3, 4), math.nan, "must be positive"),
    ],
)
def test_factors_must_fit(
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    shape: tuple[int, int],
    count: float,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        KroneckerBlocks(Factor(psd(*inputs)), Factor(psd(*outputs)), count, layout(shape))


def test_malformed_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="stack"):
        Factor(torch.eye(3))
    with pytest.raises(ValueError, match="does not fit"):
        DenseBlock(torch.eye(3), torch.Size([2, 2]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        DenseBlock(torch.full((2, 2), math.nan), torch.Size([2])).logdet(1.0)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            DiagonalBlock(torch.tensor([1.0, bad]))
